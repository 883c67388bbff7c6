"""What the servers of these tests have in common: HTTP, a state, and orders by their input.

It is run in a process of its own, and imports nothing of loadwise.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class State:
    """What is served, and a condition that tells of changes."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.requests: list[dict[str, Any]] = []
        self.fault: list[Any] = []


class Handler(BaseHTTPRequestHandler):
    """Speaks HTTP; what a GET is answered is for each server to say."""

    protocol_version = "HTTP/1.1"
    state: State

    def answer(self, path: str, query: dict[str, str]) -> None:
        """Answer a request; for each server to say."""
        raise NotImplementedError

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        told = {"path": parts.path, "query": query, "headers": dict(self.headers.items())}
        with self.state.changed:
            self.state.requests.append(told)
            fault = self.state.fault.pop(0) if self.state.fault else None
        if fault is None:
            self.answer(parts.path, query)
        elif fault == "reset":
            self.close_connection = True
        else:
            self.send_body(*fault)

    def send_body(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        """Answer with JSON, or with text as it stands."""
        content = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """A server whose clients may leave as they like."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing."""


def serve(handler: type[Handler], orders: dict[str, Callable[..., Any]]) -> None:
    """Serve until the input ends, and obey it: each line is the name of an order and its words."""
    state = handler.state

    def fault(*faults: Any) -> None:
        state.fault.extend(faults)

    known: dict[str, Callable[..., Any]] = {
        "fault": fault,
        "requests": lambda: state.requests,
        **orders,
    }
    server = Server(("127.0.0.1", int(sys.argv[1])), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        name, *words = json.loads(line)
        with state.changed:
            answer = known[name](*words)
            state.changed.notify_all()
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()
