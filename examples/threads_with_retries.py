"""Threads that send HTTP requests, and try another server where one fails.

Three servers run in this program. One works, one answers 503 to every fifth request, and one is
shut down half way. Every request is answered all the same.

    python examples/threads_with_retries.py
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Thread

from loadwise import Balancer

REQUESTS = 120
OK, SERVICE_UNAVAILABLE = 200, 503


class Backend(ThreadingHTTPServer):
    """A small HTTP server on a free port, in a thread of its own."""

    def __init__(self, fail_every: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.id = f"127.0.0.1:{self.server_port}"
        self.fail_every = fail_every
        self.numbers = count(1)
        self._thread = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        """Stop answering: from now on, connections are refused."""
        self.shutdown()
        self.server_close()
        self._thread.join()


class Handler(BaseHTTPRequestHandler):
    """Answers GET requests."""

    server: Backend

    def do_GET(self) -> None:
        """Answer, or fail if it is this request's turn to."""
        every = self.server.fail_every
        status = SERVICE_UNAVAILABLE if every and next(self.server.numbers) % every == 0 else OK
        body = f"{self.path} from {self.server.id}".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
        """Keep quiet."""


class BadAnswer(Exception):  # noqa: N818 - an answer that is no good, not a fault in the program
    """The server answered with a status that another server may better."""


def fetch(address: str, path: str) -> str:
    """Send one request to one server."""
    with closing(HTTPConnection(address, timeout=5)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        if response.status >= SERVICE_UNAVAILABLE:
            raise BadAnswer(f"status {response.status}")
        return body.decode()


def main() -> None:
    """Send requests from eight threads, and stop a server half way."""
    steady, flaky, doomed = backends = [Backend(), Backend(fail_every=5), Backend()]
    names = {steady.id: "steady", flaky.id: "flaky", doomed.id: "doomed"}
    balancer = Balancer(names)  # iterating over a dict gives its keys: the addresses
    tries: list[int] = []

    def request(number: int) -> str:
        for attempt in balancer.attempts(3, retry_on=(OSError, HTTPException, BadAnswer)):
            with attempt as lease:
                answer = fetch(lease.node, f"/item/{number}")
        tries.append(attempt.number)
        return answer

    try:
        with ThreadPoolExecutor(max_workers=8) as threads:
            answers = list(threads.map(request, range(REQUESTS // 2)))
            doomed.stop()
            backends.remove(doomed)
            answers += threads.map(request, range(REQUESTS // 2, REQUESTS))
    finally:
        for backend in backends:
            backend.stop()

    retries = sum(tries) - len(tries)
    print(f"{len(answers)} of {REQUESTS} requests were answered, with {retries} retries")
    for name, status in zip(names.values(), balancer.status(), strict=True):
        reason = status.health_reason or "no failure of late"
        print(f"  {name}: {status.picks} requests, {status.health.name} ({reason})")


if __name__ == "__main__":
    main()
