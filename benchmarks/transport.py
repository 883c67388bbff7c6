"""What the transport adds to a small GET on a keep-alive connection.

The same client package, the same server process, the same run: short batches through the bare
client and through the balanced one take turns, and the medians of their ratios are printed. The
balancer chooses among three nodes by peak EWMA; all of them are the one server, so that both
clients use one connection each.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

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
            yield f"127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


def _measure(package: str, address: str, batches: int) -> tuple[float, list[float]]:
    """Return the seconds of a bare request, and the quartiles of how many times a balanced one."""
    library = import_module(package)
    ours = import_module(f"loadwise.integrations.{package}")
    balancer = Balancer(range(_NODES), PowerOfTwoChoices(load=PeakEwma()))
    transport = ours.LoadwiseTransport(balancer, url=lambda _: f"http://{address}")
    bare: list[float] = []
    ratios: list[float] = []
    with (
        library.Client(base_url=f"http://{address}") as plain,
        library.Client(base_url="http://service", transport=transport) as balanced,
    ):
        for batch in range(-_WARM_UP, batches):
            if not batch:
                # Full collections are to see what requests leave, not what was imported before.
                gc.collect()
                gc.freeze()
            times = {}
            # Who comes first takes turns, too: what a batch leaves in the caches helps the next.
            for client in (plain, balanced) if batch % 2 else (balanced, plain):
                start = time.perf_counter()
                for _ in range(_REQUESTS):
                    client.get("/small")
                times[client] = (time.perf_counter() - start) / _REQUESTS
            if batch >= 0:
                bare.append(times[plain])
                ratios.append(times[balanced] / times[plain])
    gc.unfreeze()
    return statistics.median(bare), statistics.quantiles(ratios, n=4)


def transport(scale: Scale) -> Result:
    """Send small requests through bare and balanced clients, by turns."""
    rows: list[tuple[str, ...]] = []
    figures: list[Figure] = []
    batches = scale.portion(_BATCHES, least=2)
    with _server() as address:
        for package in ("httpx", "httpx2"):
            bare, (low, ratio, high) = _measure(package, address, batches)
            spread = f"{low - 1:+.1%} to {high - 1:+.1%}"
            rows.append((package, show_seconds(bare), f"{ratio - 1:+.1%}", spread))
            figures += [
                Figure(f"transport: {package}: bare", (bare,)),
                Figure(f"transport: {package}: balanced", (bare * ratio,)),
            ]
    header = ("client", "bare request", "with the transport", "quartiles")
    note = "A small GET to a server on this machine, over a connection that is kept."
    return Result(
        (Table("transport", "The HTTP transport", header, tuple(rows), note),), tuple(figures)
    )
