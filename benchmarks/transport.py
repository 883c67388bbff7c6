"""What the transport adds to a small GET on a keep-alive connection.

The same client package, the same server process, the same run: short batches through the bare
client and through the balanced one take turns, and the medians of their ratios are printed. The
balancer chooses among three nodes by peak EWMA; all of them are the one server, so that both
clients use one connection each. With ``--nodes 1`` there is no choice, which costs more: power of
two choices is quickest where there are two.

    python benchmarks/transport.py [--nodes 3] [--batches 400] [--requests 20] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from loadwise import Balancer, PeakEwma, PowerOfTwoChoices

_WARM_UP = 20

SERVER = """
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
def server() -> Iterator[str]:
    """Run a server in a process of its own, and give its address."""
    with subprocess.Popen(  # noqa: S603 - this interpreter, the script above
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            if process.stdout is None:
                raise RuntimeError("the server has no output to tell its port by")
            yield f"127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


def measure(
    package: str, address: str, nodes: int, batches: int, requests: int
) -> dict[str, float]:
    """Return the time of a bare request and what the transport adds to it."""
    library = import_module(package)
    ours = import_module(f"loadwise.integrations.{package}")
    balancer = Balancer(range(nodes), PowerOfTwoChoices(load=PeakEwma()))
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
                for _ in range(requests):
                    client.get("/small")
                times[client] = (time.perf_counter() - start) / requests
            if batch >= 0:
                bare.append(times[plain])
                ratios.append(times[balanced] / times[plain])
    gc.unfreeze()
    quartiles = statistics.quantiles(ratios, n=4)
    return {
        "bare_us": statistics.median(bare) * 1e6,
        "ratio": statistics.median(ratios),
        "ratio_q1": quartiles[0],
        "ratio_q3": quartiles[2],
    }


def main() -> None:
    """Measure both packages and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=3, help="nodes to choose among")
    parser.add_argument("--batches", type=int, default=400, help="pairs of batches to compare")
    parser.add_argument("--requests", type=int, default=20, help="requests per batch")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    for name, least in (("nodes", 1), ("batches", 2), ("requests", 1)):
        given = getattr(options, name)
        if given < least:
            parser.error(f"--{name} is {given}; it must be at least {least}")
    results = {}
    print("| package | bare request | with the transport | quartiles |")
    print("|---|---|---|---|")
    with server() as address:
        for package in ("httpx", "httpx2"):
            result = measure(package, address, options.nodes, options.batches, options.requests)
            results[package] = result
            print(
                f"| {package} | {result['bare_us']:.0f} us | {result['ratio'] - 1:+.1%} "
                f"| {result['ratio_q1'] - 1:+.1%} to {result['ratio_q3'] - 1:+.1%} |"
            )
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
