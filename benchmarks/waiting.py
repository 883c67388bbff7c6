"""Costs of limits, and of a node that is handed from one request to another that waits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from threading import Thread
from time import perf_counter, sleep

from benchmarks.fleets import Server, servers
from benchmarks.grid import by_size, times
from benchmarks.model import Result, Scale, Target
from benchmarks.strategies import time_acquire
from benchmarks.timing import Batch, Case, calls, measure

from loadwise import Balancer, Lease, NoNodeAvailable, RoundRobin, Strategy

__all__ = ["waiting"]

_UNLIMITED = "`acquire` and release, the default, without a limit"
_ROOM = "... with a limit that is not reached"
_PLENTY = 1000
_MOST_TIMES_UNLIMITED = 1.5
_MOST_GROWTH = 2.0


def waiting(scale: Scale) -> Result:
    """Time requests for nodes that are limited, by how many are full."""
    held: list[Lease[Server]] = []
    cases = (case for size in scale.sizes for case in _cases(size, held))
    found = measure("waiting", cases, scale)
    for lease in held:
        lease.success()
    title = "Limits and waiting"
    result = by_size(found, scale, title, first="operation", limit=lambda _row: _MOST_GROWTH)
    smallest = str(scale.sizes[0])
    ratio = found.seconds(_ROOM, smallest) / found.seconds(_UNLIMITED, smallest)
    target = Target(
        "`acquire` and release with a limit that is not reached: times those without a limit",
        f"at most {_MOST_TIMES_UNLIMITED:g}",
        times(ratio),
        ratio <= _MOST_TIMES_UNLIMITED,
    )
    return Result(result.tables, result.figures, (target, *result.targets))


def _cases(size: int, held: list[Lease[Server]]) -> Iterator[Case]:
    nodes = servers(size, alike=True)

    def case(row: str, batch: Batch, warm: int = 0, each: int = 1) -> Case:
        return Case(row, str(size), batch, warm, each)

    def one_free(strategy: Strategy[Server] | None = None) -> Balancer[Server]:
        """Return a balancer of which all nodes but one are full."""
        balancer = Balancer(nodes, strategy, max_in_flight=1)
        leases = [balancer.acquire() for _ in nodes]
        leases.pop(size // 2).success()
        held.extend(leases)
        return balancer

    roomy = Balancer(nodes, max_in_flight=_PLENTY)
    yield case(_UNLIMITED, partial(time_acquire, Balancer(nodes)), 2 * size)
    yield case(_ROOM, partial(time_acquire, roomy), 2 * size)
    yield case("... with all nodes full but one", partial(time_acquire, one_free()))
    yield case("... the same, RoundRobin", partial(time_acquire, one_free(RoundRobin())))
    full = one_free()
    held.append(full.acquire())
    yield case("... refused, all full", calls(partial(_refused, full)))
    yield case("a hand-over from task to task", partial(_between_tasks, one_free()), each=2)
    yield case("a hand-over from thread to thread", partial(_between_threads, one_free()), each=2)


def _refused(balancer: Balancer[Server]) -> None:
    with suppress(NoNodeAvailable):
        balancer.acquire()


def _between_tasks(balancer: Balancer[Server], loops: int) -> float:
    async def take() -> None:
        for _ in range((loops + 1) // 2):
            async with balancer.acquire_async(timeout=None):
                pass

    async def both() -> float:
        with balancer.acquire():
            tasks = [asyncio.create_task(take()) for _ in range(2)]
            await asyncio.sleep(0)
            start = perf_counter()
        # From here on each of them waits for the other.
        await asyncio.gather(*tasks)
        return perf_counter() - start

    return asyncio.run(both())


def _between_threads(balancer: Balancer[Server], loops: int) -> float:
    def take() -> None:
        for _ in range((loops + 1) // 2):
            with balancer.acquire(timeout=None):
                pass

    threads = [Thread(target=take) for _ in range(2)]
    with balancer.acquire():
        for thread in threads:
            thread.start()
        while balancer.waiting < len(threads):
            sleep(0)
        start = perf_counter()
    for thread in threads:
        thread.join()
    return perf_counter() - start
