"""A crawler behind outgoing proxies: one proxy is down, and the site blocks another one.

The proxies are the nodes, and the URL stays the site's. A proxy that cannot be reached has failed.
One that the site refuses (403, 429) is well, but on cooldown for a minute: the site asks for it.

Real proxies and a real site run in threads of this program, so it ends by itself.

    pip install httpx loadwise
    python examples/outgoing_proxies.py
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar

import httpx

from loadwise import Balancer, Lease, PerNode

PAGES = 40
BLOCKED = (403, 429)


def connect(proxy: str) -> httpx.Client:
    """Return a client that goes through a proxy."""
    return httpx.Client(proxy=proxy)


class Crawler:
    """Fetches pages through whichever proxy has the least to do."""

    def __init__(self, proxies: list[str]) -> None:
        self.balancer = Balancer(proxies, max_in_flight=4, name="proxies")
        # One client per proxy, made at its first use and closed when the proxy is removed.
        self.clients = PerNode(connect, close=httpx.Client.close)

    def fetch(self, url: str) -> str:
        """Return a page; from another proxy where one fails, after a wait where all are busy."""

        def get(_: str, lease: Lease[str]) -> httpx.Response:
            answer = self.clients(lease).get(url)
            if answer.status_code in BLOCKED:
                lease.rate_limited(60.0, reason=f"{answer.status_code} from the site")
            return answer

        answer = self.balancer.call(
            get, attempts=4, retry_on=httpx.TransportError, with_lease=True, timeout=5.0
        )
        return answer.raise_for_status().text


class Quiet(BaseHTTPRequestHandler):
    """A handler of the servers below."""

    def reply(self, status: int, body: str) -> None:
        """Send a response."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Stay silent."""


class Site(Quiet):
    """The site that is crawled: it blocks the second proxy after three pages."""

    seen: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        """Answer, or refuse."""
        via = self.headers["Via"]
        self.seen[via] += 1
        blocked = via == "proxy-1" and self.seen[via] > 3
        self.reply(403 if blocked else 200, "go away" if blocked else f"page {self.path}")


class Proxy(Quiet):
    """A forward proxy: the request line holds the whole URL."""

    server: Named

    def do_GET(self) -> None:
        """Fetch the URL for the client."""
        answer = httpx.get(self.path, headers={"Via": self.server.name}, trust_env=False)
        self.reply(answer.status_code, answer.text)


class Named(ThreadingHTTPServer):
    """A server with a name, in a thread."""

    def __init__(self, name: str, handler: type[Quiet]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.name = name
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        Thread(target=self.serve_forever, args=(0.01,)).start()

    def stop(self) -> None:
        """Stop, and close the port."""
        self.shutdown()
        self.server_close()


def main() -> None:
    """Crawl through four proxies, of which the first is down."""
    with ExitStack() as stack:
        site = Named("site", Site)
        stack.callback(site.stop)
        proxies = [Named(f"proxy-{number}", Proxy) for number in range(4)]
        proxies[0].stop()
        for proxy in proxies[1:]:
            stack.callback(proxy.stop)
        crawler = Crawler([proxy.url for proxy in proxies])
        stack.enter_context(crawler.clients)

        urls = [f"{site.url}/{number}" for number in range(PAGES)]
        with ThreadPoolExecutor(8) as threads:
            pages = list(threads.map(crawler.fetch, urls))
        print(f"{len(pages)} pages, each once: {len(set(pages)) == PAGES}")
        for proxy, status in zip(proxies, crawler.balancer.status(), strict=True):
            print(f"{proxy.name}: {status.health.name}, {status.cooldown or 'no cooldown'}")


if __name__ == "__main__":
    main()
