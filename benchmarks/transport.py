"""What the transports and the adapter add to a small GET on a keep-alive connection.

The same client package, the same server process, the same run: short batches through the bare
client and through the balanced one take turns, and the medians of their ratios are printed, of the
time that passes and of the client's own processor time. The balancer chooses among three nodes by
peak EWMA; all of them are the one server, so that balanced clients use one connection, those of
requests three.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

from benchmarks.model import Figure, Result, Scale, Table, show_seconds

from loadwise import Balancer, PeakEwma, PowerOfTwoChoices

__all__ = ["transport"]

_WARM_UP = 20
_BATCHES = 200
_REQUESTS = 20
"""Requests per batch."""
_NODES = 3

_SERVER = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *args):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@contextmanager
def _server() -> Iterator[str]:
    """Run a server in a process of its own, and give its address."""
    with subprocess.Popen(  # noqa: S603 - this interpreter, the script above
        [sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            if process.stdout is None:
                raise RuntimeError("the server has no output to tell its port by")
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


def _balanced(package: str, address: str) -> Any:  # noqa: ANN401 - a client of that package
    """Return a client that balances."""
    library = import_module(package)
    ours = import_module(f"loadwise.integrations.{package}")
    balancer = Balancer(range(_NODES), PowerOfTwoChoices(load=PeakEwma()))

    def url(_node: int) -> str:
        return address

    if package == "requests":
        session = library.Session()
        session.mount("http://service/", ours.LoadwiseAdapter(balancer, url=url))
        return session
    return library.Client(transport=ours.LoadwiseTransport(balancer, url=url))


class _Ratios:
    """How many times as much a balanced request takes, pair by pair."""

    def __init__(self) -> None:
        self.bare: list[float] = []
        self.wall: list[float] = []
        self.processor: list[float] = []

    def row(self, name: str) -> tuple[str, ...]:
        """Return a row of the table."""
        low, ratio, high = statistics.quantiles(self.wall, n=4)
        return (
            name,
            show_seconds(statistics.median(self.bare)),
            f"{ratio - 1:+.1%}",
            f"{low - 1:+.1%} to {high - 1:+.1%}",
            f"{statistics.median(self.processor) - 1:+.1%}",
        )


def _measure(package: str, address: str, batches: int) -> _Ratios:
    """Send batches of requests through a bare and a balanced client of a package, by turns."""
    library = import_module(package)
    ratios = _Ratios()
    with ExitStack() as clients:
        bare = library.Session() if package == "requests" else library.Client()
        plain = clients.enter_context(bare)
        balanced = clients.enter_context(_balanced(package, address))
        urls = {plain: f"{address}/small", balanced: "http://service/small"}
        for batch in range(-min(_WARM_UP, batches), batches):
            if not batch:
                # Full collections are to see what requests leave, not what was imported before.
                gc.collect()
                gc.freeze()
            times: dict[Any, float] = {}
            used: dict[Any, float] = {}
            # Who comes first takes turns, too: what a batch leaves in the caches helps the next.
            for client in (plain, balanced) if batch % 2 else (balanced, plain):
                began, url = time.process_time(), urls[client]
                start = time.perf_counter()
                for _ in range(_REQUESTS):
                    client.get(url)
                times[client] = (time.perf_counter() - start) / _REQUESTS
                used[client] = time.process_time() - began
            if batch >= 0:
                ratios.bare.append(times[plain])
                ratios.wall.append(times[balanced] / times[plain])
                ratios.processor.append(used[balanced] / used[plain])
    gc.unfreeze()
    return ratios


def transport(scale: Scale) -> Result:
    """Send small requests through bare and balanced clients, by turns."""
    rows: list[tuple[str, ...]] = []
    figures: list[Figure] = []
    batches = scale.portion(_BATCHES, least=2)
    with _server() as address:
        for package in ("httpx", "httpx2", "requests"):
            ratios = _measure(package, address, batches)
            bare = statistics.median(ratios.bare)
            rows.append(ratios.row(package))
            figures += [
                Figure(f"transport: {package}: bare", (bare,)),
                Figure(f"transport: {package}: balanced", (bare * statistics.median(ratios.wall),)),
            ]
    header = ("client", "bare request", "with loadwise", "quartiles", "processor time")
    note = "A small GET to a server on this machine, over a connection that is kept."
    return Result(
        (Table("transport", "The HTTP transport", header, tuple(rows), note),), tuple(figures)
    )
