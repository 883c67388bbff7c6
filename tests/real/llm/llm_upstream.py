"""A language model's provider, as far as its clients can tell, in a process of its own.

It speaks enough of OpenAI's chat completions and responses and of Anthropic's messages, streamed
or not, to satisfy their SDKs. It knows its keys, allows each so many requests and tokens in any
window of so many seconds, and answers 429 with a Retry-After beyond that.

Run as a script with a JSON object: ``limits`` (by key: requests and tokens), ``window`` and
``retry_after``. It prints its port.

A prompt costs a token per word, and the answer as many as it has words: five, or ``max_tokens`` if
that is less. A prompt that begins with "hold" is answered in part, until told to go on.
"""

import gzip
import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock
from typing import Any

RULES = json.loads(sys.argv[1])
GO_ON = Event()
WORDS = ("one", "two", "three", "four", "five")


class Account:
    """What a key has used in the window that ends now."""

    def __init__(self, limits: dict[str, int]) -> None:
        self.limits = limits
        self.used: deque[tuple[float, int]] = deque()
        self.refused = 0
        self.paths: list[str] = []

    def admit(self, path: str, tokens: int) -> bool:
        """Charge a request if the limits allow it."""
        now = time.monotonic()
        while self.used and self.used[0][0] + RULES["window"] <= now:
            self.used.popleft()
        full = len(self.used) >= self.limits["requests"]
        if full or sum(each for _, each in self.used) + tokens > self.limits["tokens"]:
            self.refused += 1
            return False
        self.used.append((now, tokens))
        self.paths.append(path)
        return True


ACCOUNTS = {key: Account(limits) for key, limits in RULES["limits"].items()}
LOCK = Lock()


def words_in(value: Any) -> int:
    """Count the words of all texts in a prompt."""
    if isinstance(value, str):
        return len(value.split())
    if isinstance(value, list):
        return sum(map(words_in, value))
    if isinstance(value, dict):
        return sum(words_in(value[name]) for name in ("content", "text") if name in value)
    return 0


def events_of(kind: str, asked: dict[str, Any], words: list[str], prompt: int) -> Iterator[Any]:
    """Return a stream's events; the first of them tells no more than that it has begun."""
    total = prompt + len(words)
    if kind == "chat/completions":
        base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        for word in words:
            choice = {"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}
            yield {**base, "choices": [choice]}
        if asked.get("stream_options", {}).get("include_usage"):
            usage = {"prompt_tokens": prompt, "completion_tokens": len(words)}
            yield {**base, "choices": [], "usage": {**usage, "total_tokens": total}}
    elif kind == "responses":
        whole = response_of(kind, words, prompt)
        yield {"type": "response.created", "response": {**whole, "output": [], "usage": None}}
        place = {"item_id": "i", "output_index": 0, "content_index": 0}
        for word in words:
            yield {"type": "response.output_text.delta", "delta": f"{word} ", **place}
        yield {"type": "response.completed", "response": whole}
    else:
        usage = {"input_tokens": prompt, "output_tokens": 1}
        whole = {**response_of(kind, words, prompt), "content": [], "usage": usage}
        yield {"type": "message_start", "message": whole}
        yield {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        }
        for word in words:
            delta = {"type": "text_delta", "text": f"{word} "}
            yield {"type": "content_block_delta", "index": 0, "delta": delta}
        yield {"type": "content_block_stop", "index": 0}
        end = {"stop_reason": "end_turn", "stop_sequence": None}
        usage = {"output_tokens": len(words)}
        yield {"type": "message_delta", "delta": end, "usage": usage}
        yield {"type": "message_stop"}


def response_of(kind: str, words: list[str], prompt: int) -> dict[str, Any]:
    """Return an answer in one piece."""
    text, used = " ".join(words), {"input_tokens": prompt, "output_tokens": len(words)}
    if kind == "chat/completions":
        message = {"role": "assistant", "content": text}
        return {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": len(words),
                "total_tokens": prompt + len(words),
            },
        }
    if kind == "responses":
        content = [{"type": "output_text", "text": text, "annotations": []}]
        output = {
            "id": "i",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": content,
        }
        return {
            "id": "r",
            "object": "response",
            "created_at": 1,
            "model": "m",
            "status": "completed",
            "output": [output],
            "parallel_tool_calls": False,
            "tool_choice": "auto",
            "tools": [],
            "usage": {**used, "total_tokens": prompt + len(words)},
        }
    return {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": used,
    }


class Handler(BaseHTTPRequestHandler):
    """Answers prompts."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Tell what each key has used."""
        with LOCK:
            told = {
                key: {
                    "requests": len(account.used),
                    "tokens": sum(each for _, each in account.used),
                    "refused": account.refused,
                    "paths": account.paths,
                }
                for key, account in ACCOUNTS.items()
            }
        self.reply(200, told)

    def do_POST(self) -> None:
        """Answer a prompt."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/_go_on":
            GO_ON.set()
            self.reply(200, {})
            return
        kind = self.path.partition("/v1/")[2]
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        account = ACCOUNTS.get(self.headers.get("X-Api-Key", bearer))
        if account is None:
            self.reply(401, {"type": "error", "error": {"message": "no such key"}})
            return
        asked = json.loads(body)
        most = asked.get("max_tokens") or asked.get("max_output_tokens") or len(WORDS)
        words = list(WORDS[:most])
        prompt = words_in(asked.get("messages", asked.get("input")))
        with LOCK:
            admitted = account.admit(self.path, prompt + len(words))
        if not admitted:
            error = {"type": "rate_limit_error", "message": "slow down"}
            self.reply(429, {"type": "error", "error": error}, str(RULES["retry_after"]))
        elif asked.get("stream"):
            self.stream(kind, events_of(kind, asked, words, prompt), hold=b'"hold' in body)
        else:
            self.reply(200, response_of(kind, words, prompt))

    def reply(self, status: int, body: dict[str, Any], retry_after: str | None = None) -> None:
        """Send a whole response, packed if that is welcome."""
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            data = gzip.compress(data)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(data)))
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(data)

    def stream(self, kind: str, events: Iterator[dict[str, Any]], *, hold: bool) -> None:
        """Send server-sent events."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, event in enumerate(events):
            if hold and number == 1:
                GO_ON.wait(30)
            name = f"event: {event['type']}\n" if "type" in event else ""
            self.send(f"{name}data: {json.dumps(event)}\n\n".encode())
        if kind == "chat/completions":
            self.send(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def send(self, piece: bytes) -> None:
        """Send a chunk, cut in two to make life hard for those who read it."""
        for half in (piece[:9], piece[9:]):
            self.wfile.write(f"{len(half):x}\r\n".encode() + half + b"\r\n")
            self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Stay silent."""


class Server(ThreadingHTTPServer):
    """A server that takes many connections at once."""

    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent when a client goes away."""


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)  # noqa: T201 - this is how it tells
    server.serve_forever()
