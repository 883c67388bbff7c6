"""What the balanced channel adds to a small unary call of gRPC.

The same server process, the same run: short batches through grpcio's own channel and through the
balanced one take turns, and the medians of their ratios are printed. The balancer chooses among
three nodes by peak EWMA; all of them are the one server.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
from benchmarks.model import Figure, Result, Scale, Table, show_seconds

from loadwise import Balancer, PeakEwma, PowerOfTwoChoices
from loadwise.integrations.grpc import Channel
from loadwise.integrations.grpc.aio import Channel as AioChannel

__all__ = ["grpc_calls"]

_WARM_UP = 20
_BATCHES = 200
_CALLS = 20
"""Calls per batch."""
_NODES = 3
_METHOD = "/bench.Service/Echo"

_SERVER = """
from concurrent.futures import ThreadPoolExecutor
import grpc

server = grpc.server(ThreadPoolExecutor(2))
handlers = {"Echo": grpc.unary_unary_rpc_method_handler(lambda request, context: request)}
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench.Service", handlers)])
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
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


def _balancer() -> Balancer[int]:
    return Balancer(range(_NODES), PowerOfTwoChoices(load=PeakEwma()))


class _Comparison:
    """Times of bare and balanced batches, by turns."""

    def __init__(self) -> None:
        self.bare: list[float] = []
        self.ratios: list[float] = []

    def add(self, batch: int, bare: float, balanced: float) -> None:
        """Take in a pair of batches; those of the warm-up do not count."""
        if batch >= 0:
            self.bare.append(bare / _CALLS)
            self.ratios.append(balanced / bare)

    def row(self, name: str) -> tuple[str, ...]:
        """Return a row of the table."""
        low, ratio, high = statistics.quantiles(self.ratios, n=4)
        spread = f"{low - 1:+.1%} to {high - 1:+.1%}"
        return name, show_seconds(statistics.median(self.bare)), f"{ratio - 1:+.1%}", spread

    def figures(self, name: str) -> list[Figure]:
        """Return what is kept of it."""
        bare, ratio = statistics.median(self.bare), statistics.median(self.ratios)
        return [
            Figure(f"grpc: {name}: bare", (bare,)),
            Figure(f"grpc: {name}: balanced", (bare * ratio,)),
        ]


def _in_thread(address: str, batches: int) -> _Comparison:
    comparison = _Comparison()

    def batch_of(method: Any) -> float:  # noqa: ANN401 - a multi-callable of either channel
        start = time.perf_counter()
        for _ in range(_CALLS):
            method(b"small")
        return time.perf_counter() - start

    with (
        grpc.insecure_channel(address) as plain,
        Channel(_balancer(), target=lambda _: address) as balanced,
    ):
        methods: Any = plain.unary_unary(_METHOD), balanced.unary_unary(_METHOD)
        for batch in range(-_WARM_UP, batches):
            if batch % 2:
                bare = batch_of(methods[0])
                comparison.add(batch, bare, batch_of(methods[1]))
            else:
                ours = batch_of(methods[1])
                comparison.add(batch, batch_of(methods[0]), ours)
    return comparison


async def _in_loop(address: str, batches: int) -> _Comparison:
    comparison = _Comparison()

    async def batch_of(method: Any) -> float:  # noqa: ANN401 - as above
        start = time.perf_counter()
        for _ in range(_CALLS):
            await method(b"small")
        return time.perf_counter() - start

    async with (
        grpc.aio.insecure_channel(address) as plain,
        AioChannel(_balancer(), target=lambda _: address) as balanced,
    ):
        methods: Any = plain.unary_unary(_METHOD), balanced.unary_unary(_METHOD)
        for batch in range(-_WARM_UP, batches):
            if batch % 2:
                bare = await batch_of(methods[0])
                comparison.add(batch, bare, await batch_of(methods[1]))
            else:
                ours = await batch_of(methods[1])
                comparison.add(batch, await batch_of(methods[0]), ours)
    return comparison


def grpc_calls(scale: Scale) -> Result:
    """Make small unary calls through bare and balanced channels, by turns."""
    batches = scale.portion(_BATCHES, least=2)
    gc.collect()
    with _server() as address:
        compared = {
            "in threads": _in_thread(address, batches),
            "with asyncio": asyncio.run(_in_loop(address, batches)),
        }
    rows = tuple(each.row(name) for name, each in compared.items())
    figures = [figure for name, each in compared.items() for figure in each.figures(name)]
    header = ("channel", "bare call", "balanced", "quartiles")
    note = "A small unary call to a server on this machine, over a connection that is kept."
    return Result((Table("grpc", "gRPC", header, rows, note),), tuple(figures))
