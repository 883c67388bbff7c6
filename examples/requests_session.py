"""A session of requests over four servers: one is down, one fails, and every page is fetched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import requests

from loadwise import Balancer, RoundRobin
from loadwise.integrations.requests import LoadwiseAdapter, route_of


class Page(BaseHTTPRequestHandler):
    """A page, or a refusal."""

    status = 200

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Stay silent."""


class Failing(Page):
    """A server that fails."""

    status = 503


@contextmanager
def serving(kind: type[Page]) -> Iterator[str]:
    """Serve in a thread; yield the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def main() -> None:
    """Fetch a hundred pages."""
    with serving(Page) as down:
        pass  # it was there, and is no more
    with (
        serving(Page) as one,
        serving(Page) as another,
        serving(Failing) as failing,
        requests.Session() as session,
    ):
        balancer = Balancer([down, failing, one, another], RoundRobin(start=0))
        session.mount("http://service/", LoadwiseAdapter(balancer))
        pages = [session.get(f"http://service/{number}", timeout=5) for number in range(100)]
        print("answers:", dict(Counter(page.status_code for page in pages)))
        print(
            "from those that are well:",
            {route_of(page)["node"] for page in pages} == {one, another},
        )
        unwell = [status for status in balancer.status() if status.health_reason is not None]
        print("known to be unwell:", len(unwell))


if __name__ == "__main__":
    main()
