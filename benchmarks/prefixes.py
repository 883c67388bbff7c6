"""Replay of a published trace of conversations: where prompts go, and what they wait.

``python -m benchmarks.prefixes TRACE [--load 1.5] [--most 3000]`` reads the trace of conversations
that comes with Mooncake (R. Qin et al., FAST 2025, ``conversation_trace.jsonl``), and prints the
mean time to first token of each strategy in a simulated fleet: 8 workers, each of which computes
one prompt at a time, in 10 ms and 1 s for 8,000 tokens that it has not cached. A worker keeps
2,000 blocks of 512 tokens, the least recently used go first, and has a prompt cached once it is
computed. Nothing else takes time, so what differs is the routing alone.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from loadwise import Balancer, InFlight, LeastLoad, RoundRobin, Strategy
from loadwise.llm import PrefixAffinity, PrefixIndex
from loadwise.testing import ManualClock

__all__ = ["FLEET", "STRATEGIES", "Asked", "Fleet", "read", "replay"]

_BLOCK = 512
"""Tokens of a block of the trace."""
_STEP = 3.0
_TEXT = 16
"""Characters that stand for a block, in the text that stands for a prompt."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of the trace.

    Attributes:
        at: When it came, in seconds.
        tokens: Of its prompt.
        blocks: Its blocks of 512 tokens; equal numbers mean equal blocks after equal blocks.
    """

    at: float
    tokens: int
    blocks: tuple[int, ...]

    @property
    def text(self) -> str:
        """A text that shares its beginning with those of others as the prompt does."""
        spelled = "".join(f"{block:0{_TEXT}d}" for block in self.blocks)
        return spelled[: max(1, self.tokens * _TEXT // _BLOCK)]


@dataclass(frozen=True, slots=True)
class Fleet:
    """Simulated fleet.

    Attributes:
        rates: Tokens a second of each worker.
        overhead: Seconds that each prompt takes besides.
        capacity: Blocks that a worker keeps.
    """

    rates: Sequence[float] = (8000.0,) * 8
    overhead: float = 0.010
    capacity: int = 2000


FLEET = Fleet()


def read(path: Path, most: int | None = None) -> list[Asked]:
    """Return the requests of a trace, or the first ``most`` of them.

    The trace tells times in steps of 3 s, so those of a step are spread over it evenly.
    """
    steps: dict[float, list[tuple[int, tuple[int, ...]]]] = {}
    with path.open(encoding="utf-8") as lines:
        for line in islice(lines, most):
            row = json.loads(line)
            asked = row["input_length"], tuple(row["hash_ids"])
            steps.setdefault(row["timestamp"] / 1000, []).append(asked)
    return [
        Asked(begins + _STEP * place / len(step), *asked)
        for begins, step in steps.items()
        for place, asked in enumerate(step)
    ]


class _Worker:
    """A worker: its queue, its clock and its cache."""

    def __init__(self, rate: float, fleet: Fleet) -> None:
        self.rate, self.fleet = rate, fleet
        self.queue: list[tuple[Asked, Any]] = []
        self.cache: OrderedDict[int, None] = OrderedDict()

    def seconds(self, asked: Asked) -> float:
        """Return how long a prompt takes that begins now."""
        hits = 0
        for block in asked.blocks:
            if block not in self.cache:
                break
            hits += 1
        return self.fleet.overhead + max(1, asked.tokens - hits * _BLOCK) / self.rate

    def keep(self, asked: Asked) -> None:
        """Cache a prompt that has been computed."""
        for block in reversed(asked.blocks):
            self.cache[block] = None
            self.cache.move_to_end(block)
        while len(self.cache) > self.fleet.capacity:
            self.cache.popitem(last=False)


def replay(
    requests: Iterable[Asked], strategy: Strategy[int], fleet: Fleet = FLEET, load: float = 1.0
) -> list[float]:
    """Return each request's seconds to its first token.

    Args:
        requests: In the order in which they come.
        strategy: What a balancer chooses by.
        fleet: What it chooses among.
        load: So many times as fast as in the trace they come.
    """
    clock = ManualClock()
    balancer = Balancer(range(len(fleet.rates)), strategy, clock=clock)
    workers = [_Worker(rate, fleet) for rate in fleet.rates]
    ends: list[tuple[float, int]] = []
    waits: list[float] = []

    def advance(until: float) -> None:
        while ends and ends[0][0] <= until:
            now, number = heapq.heappop(ends)
            clock.advance(now - clock())
            worker = workers[number]
            asked, lease = worker.queue.pop(0)
            worker.keep(asked)
            waits.append(now - asked.at / load)
            lease.first_byte()
            lease.success()
            if worker.queue:
                heapq.heappush(ends, (now + worker.seconds(worker.queue[0][0]), number))
        if until < float("inf"):
            clock.advance(until - clock())

    for asked in requests:
        advance(asked.at / load)
        lease = balancer.acquire(prompt=asked.text)
        worker = workers[lease.node]
        worker.queue.append((asked, lease))
        if len(worker.queue) == 1:
            heapq.heappush(ends, (clock() + worker.seconds(asked), lease.node))
    advance(float("inf"))
    return waits


def _index() -> PrefixIndex:
    return PrefixIndex(FLEET.capacity, _TEXT)


STRATEGIES: dict[str, Callable[[], Strategy[int]]] = {
    "round robin": RoundRobin,
    "least in flight": lambda: LeastLoad(InFlight(), Random(1)),
    "pending + 1 x new": lambda: PrefixAffinity(_index(), new_weight=1.0, rng=Random(1)),
    "pending + 3 x new": lambda: PrefixAffinity(_index(), rng=Random(1)),
}
"""What is compared."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prefixes", description=__doc__)
    parser.add_argument("trace", type=Path, help="conversation_trace.jsonl of Mooncake")
    parser.add_argument("--load", type=float, action="append", help="times the trace's rate")
    parser.add_argument("--most", type=int, help="only so many requests, from the first on")
    given = parser.parse_args(arguments)
    requests = read(given.trace, given.most)
    write = sys.stdout.write
    write(f"{len(requests)} requests; mean and 95th percentile of seconds to the first token\n")
    for load in given.load or [1.0, 1.5]:
        for name, make in STRATEGIES.items():
            waits = sorted(replay(requests, make(), load=load))
            high = waits[int(0.95 * len(waits))]
            write(f"load {load:g}  {name:20} {fmean(waits):7.2f} {high:8.2f}\n")


if __name__ == "__main__":
    main()
