"""The program of one HTTP server of the demo.

It uses the standard library only, so that it starts quickly. Its parent talks to it through pipes:

- It writes ``port N`` to standard output once it listens, then one line ``STATUS REQUEST`` per
  answer, before it sends it: a pipe outlives the process, so even a server that is killed leaves a
  complete account of what it served.
- It exits when its standard input ends, so it cannot outlive its parent.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

HOST = "127.0.0.1"
_BIND_TRIES = 50
_BIND_PAUSE = 0.1


class DemoServer(ThreadingHTTPServer):
    """Answers every GET with its own name and the number of the request.

    Args:
        name: What it calls itself.
        port: Where to listen; 0 for any free port.
        seconds: The least and the most time that an answer takes.
        failing: The chance that it answers a request with 503.
        seed: Seed of the time that each answer takes, and of its failures.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, name: str, port: int, seconds: tuple[float, float], failing: float, seed: int
    ) -> None:
        super().__init__((HOST, port), Handler)
        self.name = name
        self._failing = failing
        self._seconds = seconds
        self._random = random.Random(f"{name} {seed}")

    def work(self) -> None:
        """Take as long as an answer takes."""
        time.sleep(self._random.uniform(*self._seconds))

    def fails(self) -> bool:
        """Return whether to fail this time."""
        return self._random.random() < self._failing

    def handle_error(self, request: object, client_address: object) -> None:
        """Report the error, unless it is only that a client has left."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # passed on


class Handler(BaseHTTPRequestHandler):
    """One connection, kept open for many requests."""

    protocol_version = "HTTP/1.1"
    # Head and body leave in one packet, at once.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer, or fail if so told."""
        server = cast("DemoServer", self.server)
        server.work()
        number = self.path.rpartition("/")[2]
        status = HTTPStatus.SERVICE_UNAVAILABLE if server.fails() else HTTPStatus.OK
        body = answer_to(server.name, number)
        say(f"{status.value} {number}")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by the base
        """Leave the log to `do_GET`."""


def answer_to(server: str, request: str) -> bytes:
    """Return the body that answers a request: the names of the server and the request."""
    return json.dumps({"server": server, "request": request}).encode()


def say(line: str) -> None:
    """Tell the parent something, in one write: lines of several threads do not mix."""
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def listen(
    name: str, port: int, seconds: tuple[float, float], failing: float, seed: int
) -> DemoServer:
    """Return a server that listens; wait a little for a port that is still taken."""
    for _ in range(_BIND_TRIES):
        try:
            return DemoServer(name, port, seconds, failing, seed)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            time.sleep(_BIND_PAUSE)
    return DemoServer(name, port, seconds, failing, seed)


def leave_with_parent() -> None:
    """Exit when there is no parent any more."""
    sys.stdin.read()
    # At once, whatever the other threads are at.
    os._exit(0)


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description="One HTTP server of the loadwise demo.")
    parser.add_argument("name")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seconds", type=float, nargs=2, required=True)
    parser.add_argument("--failing", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    low, high = given.seconds
    server = listen(given.name, given.port, (low, high), given.failing, given.seed)
    threading.Thread(target=leave_with_parent, daemon=True).start()
    say(f"port {server.server_port}")
    server.serve_forever()


if __name__ == "__main__":
    main()
