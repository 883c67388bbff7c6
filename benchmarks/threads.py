"""What two threads get done in the time of one."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from functools import partial
from threading import Barrier, Thread
from time import perf_counter

from benchmarks.fleets import servers
from benchmarks.model import Figure, Result, Scale, Table, Target, show_seconds
from benchmarks.strategies import time_acquire, time_select
from benchmarks.timing import Batch, calls

from loadwise import Balancer, NodeSet, PeakEwma, PowerOfTwoChoices, RoundRobin

__all__ = ["threads"]

_NODES = 10
_TURNS = 11
_TURN_SECONDS = 0.2
_LEAST_THROUGHPUT = 0.9


def threads(scale: Scale) -> Result:
    """Have one thread and two do the same number of operations, by turns."""
    nodes = servers(_NODES, alike=True)
    members = NodeSet(nodes)
    ewma = Balancer(nodes, PowerOfTwoChoices(load=PeakEwma()))
    works: dict[str, Batch] = {
        "a bare `random.random()`": calls(random.random),
        "RoundRobin `select`": partial(time_select, RoundRobin(), members),
        "PowerOfTwoChoices, PeakEwma `select`": partial(
            time_select, PowerOfTwoChoices(load=PeakEwma()), members
        ),
        "`acquire` and release, the default": partial(time_acquire, Balancer(nodes)),
        "`acquire` and release, P2C by peak EWMA": partial(time_acquire, ewma),
    }
    rows: list[tuple[str, ...]] = []
    figures: list[Figure] = []
    targets: list[Target] = []
    for name, work in works.items():
        one, two = _by_turns(work, scale)
        ratios = [single / double for single, double in zip(one, two, strict=True)]
        ratio = statistics.median(ratios)
        rows.append(
            (
                name,
                show_seconds(statistics.median(one)),
                show_seconds(statistics.median(two)),
                f"{ratio:.2f}",
                f"{min(ratios):.2f} to {max(ratios):.2f}",
            )
        )
        figures += [
            Figure(f"threads: {name}: one", tuple(one)),
            Figure(f"threads: {name}: two", tuple(two)),
        ]
        if name.startswith("`acquire`"):
            what = f"two threads' throughput to one's: {name}"
            hoped = f"at least {_LEAST_THROUGHPUT}"
            targets.append(Target(what, hoped, f"{ratio:.2f}", ratio >= _LEAST_THROUGHPUT))
    header = ("what", "one thread", "two threads", "throughput, two to one", "from turn to turn")
    note = "Time per operation, counting those of both threads; medians."
    table = Table("threads", "Two threads and one", header, tuple(rows), note)
    return Result((table,), tuple(figures), tuple(targets))


def _by_turns(work: Batch, scale: Scale) -> tuple[list[float], list[float]]:
    """Return the seconds per operation of every turn, of one thread and of two."""
    operations = 2
    while scale.share and work(operations) < _TURN_SECONDS / 2:
        operations *= 2
    one: list[float] = []
    two: list[float] = []
    for _ in range(scale.portion(_TURNS, least=3)):
        one.append(_run(work, operations, 1) / operations)
        two.append(_run(work, operations, 2) / operations)
    return one, two


def _run(work: Callable[[int], object], operations: int, count: int) -> float:
    """Return the seconds from when all threads are ready until all are done."""
    ready = Barrier(count + 1)

    def run() -> None:
        ready.wait()
        work(operations // count)

    pool = [Thread(target=run) for _ in range(count)]
    for thread in pool:
        thread.start()
    ready.wait()
    start = perf_counter()
    for thread in pool:
        thread.join()
    return perf_counter() - start
