"""Replay of a published trace of conversations: where prompts go, and what they wait.

``python -m benchmarks.prefixes TRACE [--load 1.5] [--most 3000] [--uneven]`` reads the trace of
conversations that comes with Mooncake (R. Qin et al., FAST 2025, ``conversation_trace.jsonl``), and
prints the time to first token of each strategy in a simulated fleet: 8 workers, each of which
computes one prompt at a time, in 10 ms and 1 s for 8,000 tokens that it has not cached. A worker
keeps 2,000 blocks of 512 tokens, the least recently used go first, and has a prompt cached once it
is computed. Then it writes the answer, 30 ms a token, beside all else. With ``--uneven`` half of
the workers compute 12,000 tokens a second, and the others 4,000.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from loadwise import Balancer, InFlight, LeastLoad, RoundRobin, Strategy
from loadwise.llm import (
    CacheAware,
    DualMap,
    LMetric,
    PendingTokens,
    PrefixAffinity,
    PrefixIndex,
    ScoredPrefix,
)
from loadwise.testing import ManualClock

__all__ = [
    "FLEET",
    "STRATEGIES",
    "UNEVEN",
    "Asked",
    "Fleet",
    "Played",
    "read",
    "replay",
    "replay_by",
]

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
        answer: Tokens of the answer.
    """

    at: float
    tokens: int
    blocks: tuple[int, ...]
    answer: int = 0

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
        per_token: Seconds that each token of an answer takes.
        capacity: Blocks that a worker keeps.
    """

    rates: Sequence[float] = (8000.0,) * 8
    overhead: float = 0.010
    per_token: float = 0.030
    capacity: int = 2000


FLEET = Fleet()
UNEVEN = Fleet((12_000.0,) * 4 + (4000.0,) * 4)


@dataclass(slots=True)
class Played:
    """What a replay came to.

    Attributes:
        waits: Each request's seconds to its first token, in the order in which those came.
        tokens: Of all prompts.
        hits: Of those, how many were found in a cache.
    """

    waits: list[float] = field(default_factory=list[float])
    tokens: int = 0
    hits: int = 0

    def line(self) -> str:
        """Return the figures of a table."""
        waits = sorted(self.waits)
        high = waits[int(0.99 * len(waits))]
        return f"{fmean(waits):7.2f} {high:8.2f} {100 * self.hits / self.tokens:7.1f} %"


def read(path: Path, most: int | None = None) -> list[Asked]:
    """Return the requests of a trace, or the first ``most`` of them.

    The trace tells times in steps of 3 s, so those of a step are spread over it evenly.
    """
    steps: dict[float, list[tuple[int, tuple[int, ...], int]]] = {}
    with path.open(encoding="utf-8") as lines:
        for line in islice(lines, most):
            row = json.loads(line)
            asked = row["input_length"], tuple(row["hash_ids"]), row["output_length"]
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

    def hits(self, asked: Asked) -> int:
        """Return how many tokens of a prompt are cached."""
        hits = 0
        for block in asked.blocks:
            if block not in self.cache:
                break
            hits += 1
        return min(asked.tokens - 1, hits * _BLOCK)

    def keep(self, asked: Asked) -> None:
        """Cache a prompt that has been computed."""
        for block in reversed(asked.blocks):
            self.cache[block] = None
            self.cache.move_to_end(block)
        while len(self.cache) > self.fleet.capacity:
            self.cache.popitem(last=False)


def replay(
    requests: Iterable[Asked], strategy: Strategy[int], fleet: Fleet = FLEET, load: float = 1.0
) -> Played:
    """Return each request's seconds to its first token, and what was cached.

    Args:
        requests: In the order in which they come.
        strategy: What a balancer chooses by.
        fleet: What it chooses among.
        load: So many times as fast as in the trace they come.
    """
    clock = ManualClock()
    balancer = Balancer(range(len(fleet.rates)), strategy, clock=clock)
    return replay_by(requests, [balancer], clock, fleet, load)


def replay_by(
    requests: Iterable[Asked],
    balancers: Sequence[Balancer[int]],
    clock: ManualClock,
    fleet: Fleet = FLEET,
    load: float = 1.0,
) -> Played:
    """Return what `replay` does where each request comes to any of several clients.

    Args:
        requests: In the order in which they come.
        balancers: The clients', of nodes numbered as the workers are.
        clock: What they go by.
        fleet: What they choose among.
        load: So many times as fast as in the trace they come.
    """
    draw = Random(1)
    workers = [_Worker(rate, fleet) for rate in fleet.rates]
    played = Played()
    order = count()
    # By time and order: the worker whose prompt is computed, or the lease whose answer is written.
    ends: list[tuple[float, int, int | None, Any]] = []

    def start(number: int) -> None:
        worker = workers[number]
        asked = worker.queue[0][0]
        hits = worker.hits(asked)
        played.tokens += asked.tokens
        played.hits += hits
        seconds = fleet.overhead + (asked.tokens - hits) / worker.rate
        heapq.heappush(ends, (clock() + seconds, next(order), number, None))

    def advance(until: float) -> None:
        while ends and ends[0][0] <= until:
            now, _, number, answering = heapq.heappop(ends)
            clock.advance(now - clock())
            if number is None:
                answering.success()
                continue
            worker = workers[number]
            asked, lease = worker.queue.pop(0)
            worker.keep(asked)
            played.waits.append(now - asked.at / load)
            lease.first_byte()
            heapq.heappush(ends, (now + fleet.per_token * asked.answer, next(order), None, lease))
            if worker.queue:
                start(number)
        if until < float("inf"):
            clock.advance(until - clock())

    for asked in requests:
        advance(asked.at / load)
        lease = draw.choice(balancers).acquire(prompt=asked.text)
        worker = workers[lease.node]
        worker.queue.append((asked, lease))
        if len(worker.queue) == 1:
            start(lease.node)
    advance(float("inf"))
    return played


def _index() -> PrefixIndex:
    return PrefixIndex(FLEET.capacity, _TEXT)


STRATEGIES: dict[str, Callable[[], Strategy[int]]] = {
    "round robin": RoundRobin,
    "least in flight": lambda: LeastLoad(InFlight(), Random(1)),
    "least pending": lambda: LeastLoad(PendingTokens(), Random(1)),
    "CacheAware": lambda: CacheAware(_index(), rng=Random(1)),
    "LMetric": lambda: LMetric(_index(), rng=Random(1)),
    "DualMap": lambda: DualMap(2 * _TEXT, rng=Random(1)),
    "ScoredPrefix": lambda: ScoredPrefix(_index(), rng=Random(1)),
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
    parser.add_argument("--uneven", action="store_true", help="workers of two speeds")
    given = parser.parse_args(arguments)
    requests = read(given.trace, given.most)
    fleet = UNEVEN if given.uneven else FLEET
    write = sys.stdout.write
    write(f"{len(requests)} requests; seconds to the first token, mean and 99th percentile; hits\n")
    for load in given.load or [1.0, 1.5]:
        for name, make in STRATEGIES.items():
            write(f"load {load:g}  {name:20} {replay(requests, make(), fleet, load).line()}\n")


if __name__ == "__main__":
    main()
