"""Server of a language model that keeps a cache of prefixes, in a process of its own.

``python -m benchmarks.prefix_server RATE CAPACITY`` prints its port. It computes one prompt at a
time, RATE tokens a second of those that are not cached, and keeps CAPACITY blocks of 64 characters,
the least recently used go first. A token is four characters. It speaks as much of OpenAI's chat
completions, streamed, and of Anthropic's messages, streamed, as their SDKs need. A GET tells the
tokens of all prompts, and how many were cached.
"""

from __future__ import annotations

import json
import sys
import time
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

__all__ = ["main"]

_BLOCK = 64
_PER_TOKEN = 4
_WORDS = ("The ", "sea ", "is ", "deep.")


class _Model:
    """A model: its cache, and who computes."""

    def __init__(self, rate: float, capacity: int) -> None:
        self.rate, self.capacity = rate, capacity
        self.cache: OrderedDict[str, None] = OrderedDict()
        self.computing = Lock()
        self.prompts = self.cached = 0

    def read(self, text: str) -> tuple[int, int]:
        """Compute a prompt; return its tokens, and how many of those were cached."""
        starts = [text[:end] for end in range(_BLOCK, len(text) + 1, _BLOCK)]
        with self.computing:
            hits = 0
            while hits < len(starts) and starts[hits] in self.cache:
                hits += 1
            tokens, cached = len(text) // _PER_TOKEN, hits * _BLOCK // _PER_TOKEN
            if self.rate:
                time.sleep((tokens - cached) / self.rate)
            for start in reversed(starts):
                self.cache[start] = None
                self.cache.move_to_end(start)
            while len(self.cache) > self.capacity:
                self.cache.popitem(last=False)
            self.prompts += tokens
            self.cached += cached
        return tokens, cached


def _text_of(request: dict[str, Any]) -> str:
    said = [str(request.get("system", ""))]
    said += [f"<{each['role']}> {each['content']}" for each in request["messages"]]
    return "\n".join(said)


def _chat(tokens: int, cached: int) -> list[tuple[str, dict[str, Any]]]:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "sea"}
    words = [{"index": 0, "delta": {"role": "assistant", "content": word}} for word in _WORDS]
    usage = {
        "prompt_tokens": tokens,
        "completion_tokens": len(_WORDS),
        "total_tokens": tokens + len(_WORDS),
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    events = [{**head, "choices": [{**word, "finish_reason": None}]} for word in words]
    events.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return [("", event) for event in (*events, {**head, "choices": [], "usage": usage})]


def _messages(tokens: int, cached: int) -> list[tuple[str, dict[str, Any]]]:
    usage = {
        "input_tokens": tokens - cached,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": 1,
    }
    message = {"id": "m", "type": "message", "role": "assistant", "model": "sea", "content": []}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**message, "stop_reason": None, "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ]
    events += [
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": word},
        }
        for word in _WORDS
    ]
    events += [
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": len(_WORDS)},
        },
        {"type": "message_stop"},
    ]
    return [(str(event["type"]), event) for event in events]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model: _Model

    def do_GET(self) -> None:
        """Tell the tokens of all prompts, and how many were cached."""
        model = self.model
        self._answer(json.dumps({"tokens": model.prompts, "cached": model.cached}).encode())

    def do_POST(self) -> None:
        """Answer a prompt by a stream."""
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        tokens, cached = self.model.read(_text_of(request))
        is_chat = self.path.endswith("/chat/completions")
        events = (_chat if is_chat else _messages)(tokens, cached)
        lines = [
            (f"event: {kind}\n" if kind else "") + f"data: {json.dumps(event)}\n\n"
            for kind, event in events
        ]
        self._answer("".join([*lines, "data: [DONE]\n\n" * is_chat]).encode(), "text/event-stream")

    def _answer(self, body: bytes, kind: str = "application/json") -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def main(rate: str, capacity: str) -> None:
    """Serve until killed."""
    _Handler.model = _Model(float(rate), int(capacity))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
