"""A provider of language models that answers as it is told, in a process of its own.

It speaks just enough of OpenAI's chat completions and responses and of Anthropic's messages. What
the first part of a path names is a node. ``PUT /NODE`` with a JSON object says how that node
answers from now on, ``GET /NODE`` tells how many prompts it has been asked since that.

    status, headers, body   an answer in one piece; 200 without a body is a good answer
    lose                    the connection ends without an answer
    break                   the connection ends amid an answer, whose length is not told
    onward                  where a prompt is sent on to by a redirect, below the same origin
    stream                  how a stream goes: "well", "error" (an event amid it), "cut" (it ends
                            without its end marker, though as HTTP has it), "refused" (an error is
                            all that comes), "empty" (nothing comes) or "lost" (the connection ends
                            instead)
    error                   the error of such an event
    finish                  why a stream of chat completions is at its end, said before it is
    times                   how many prompts are answered so; later ones are answered well
    hold                    how many prompts have to have come before the first is answered; if
                            they do not come it is answered by a 504

It prints its port.
"""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition
from typing import Any

CHANGED = Condition()
SCRIPTS: dict[str, dict[str, Any]] = {}
ASKED: dict[str, int] = {}


def answer_of(kind: str) -> dict[str, Any]:
    """Return a good answer in one piece."""
    if kind == "chat/completions":
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant"},
        }
        choice["message"]["content"] = "hi"
        return {"id": "c", "object": "chat.completion", "created": 1, "model": "m"} | {
            "choices": [choice]
        }
    if kind == "responses":
        content = [{"type": "output_text", "text": "hi", "annotations": []}]
        output = {"id": "i", "type": "message", "role": "assistant", "status": "completed"}
        whole = {"id": "r", "object": "response", "created_at": 1, "model": "m", "tools": []}
        return whole | {
            "output": [output | {"content": content}],
            "status": "completed",
            "parallel_tool_calls": False,
            "tool_choice": "auto",
        }
    return {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 1},
    }


def events_of(kind: str) -> tuple[list[Any], list[Any]]:
    """Return the events of a good stream: those before, and those after something may go wrong."""
    whole = answer_of(kind)
    if kind == "chat/completions":
        choice = {"index": 0, "delta": {"content": "hi"}, "finish_reason": None}
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        return [chunk | {"choices": [choice]}], ["[DONE]"]
    if kind == "responses":
        place = {"item_id": "i", "output_index": 0, "content_index": 0}
        return [
            {"type": "response.created", "response": whole | {"output": [], "error": None}},
            {"type": "response.output_text.delta", "delta": "hi", **place},
        ], [{"type": "response.completed", "response": whole}]
    start = {"type": "content_block_start", "index": 0}
    return [
        {"type": "message_start", "message": whole | {"content": []}},
        start | {"content_block": {"type": "text", "text": ""}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "hi"},
        },
    ], [{"type": "message_stop"}]


def stream_of(kind: str, script: dict[str, Any]) -> Iterator[tuple[str | None, str]]:
    """Return the names and the data of a stream's events."""
    before, after = events_of(kind)
    how = script["stream"]
    if kind == "chat/completions" and "finish" in script:
        last = {"index": 0, "delta": {}, "finish_reason": script["finish"]}
        after = [before[0] | {"choices": [last]}, *after]
    if how in ("empty", "lost"):
        return
    if how == "refused":
        before = [{"type": "ping"}] if kind == "messages" else []
    events = before
    if how == "well":
        events = before + after
    elif how in ("error", "refused"):
        error = script.get("error", {"type": "overloaded_error", "message": "Overloaded"})
        if kind == "chat/completions":
            events = [*before, {"error": error}]
        elif kind == "responses":
            events = [*before, {"type": "error", "code": error.get("code"), "message": "no"}]
        else:
            events = [*before, {"type": "error", "error": error}]
    for event in events:
        if isinstance(event, str):
            yield None, event
        else:
            yield event.get("type"), json.dumps(event)


class Handler(BaseHTTPRequestHandler):
    """Answers prompts, and is told how."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        """Learn how a node answers."""
        with CHANGED:
            SCRIPTS[self.path.strip("/")] = json.loads(self.body())
            ASKED[self.path.strip("/")] = 0
        self.reply(204, b"")

    def do_GET(self) -> None:
        """Tell what a node has been asked."""
        self.reply(200, json.dumps(ASKED.get(self.path.strip("/"), 0)).encode())

    def do_POST(self) -> None:
        """Answer a prompt."""
        node, _, kind = self.path.strip("/").partition("/v1/")
        asked = json.loads(self.body())
        with CHANGED:
            ASKED[node] = ASKED.get(node, 0) + 1
            CHANGED.notify_all()
            script = SCRIPTS.get(node, {})
            held = CHANGED.wait_for(lambda: ASKED[node] >= script.get("hold", 0), 10)
            times = script.get("times")
            if times is not None:
                script["times"] = max(0, times - 1)
                if not times:
                    script = {}
        if "lose" in script:
            self.close_connection = True
            return
        if "onward" in script:
            self.reply(307, b"", {"Location": f"{script['onward']}/v1/{kind}"})
            return
        status = script.get("status", 200) if held else 504
        if asked.get("stream") and status == 200:
            self.stream(stream_of(kind, {"stream": "well", **script}), **script)
            return
        body = answer_of(kind) if status == 200 else script.get("body", {})
        if "break" in script:
            self.begin("application/json")
            self.chunk(json.dumps(body).encode()[:-2])
            self.close_connection = True
            return
        self.reply(status, json.dumps(body).encode(), script.get("headers", {}))

    def body(self) -> bytes:
        """Read the body of a request."""
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Send a response in one piece."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def begin(self, kind: str) -> None:
        """Begin a response in chunks."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, piece: bytes) -> None:
        """Send a chunk."""
        self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self.wfile.flush()

    def stream(
        self, events: Iterator[tuple[str | None, str]], stream: str = "well", **_: object
    ) -> None:
        """Send server-sent events, each in two chunks."""
        self.begin("text/event-stream; charset=utf-8")
        for name, data in events:
            text = (f"event: {name}\n" if name else "") + f"data: {data}\n\n"
            self.chunk(text[:7].encode())
            self.chunk(text[7:].encode())
        if stream == "lost":
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Stay silent."""


class Server(ThreadingHTTPServer):
    """A server that takes many connections at once."""

    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent when a client goes away."""


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)  # noqa: T201 - this is how it tells
    server.serve_forever()
