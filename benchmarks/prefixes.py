"""Replay of a published trace of conversations by several clients: what prompts wait.

The trace is that of conversations which comes with Mooncake (R. Qin et al., FAST 2025,
``conversation_trace.jsonl``). The fleet has 8 workers, each of which computes one prompt at a time,
in 10 ms and 1 s for 8,000 tokens that it has not cached. A worker keeps 2,000 blocks of 512 tokens,
the least recently used go first, and has a prompt cached once it is computed. Then it writes the
answer, 30 ms a token, beside all else.

It is played by `benchmarks.prefix_hosts`. Strategies are compared by the simulator that ships: see
`benchmarks.prompt_rules`.
"""

from __future__ import annotations

import heapq
import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from loadwise import Balancer
from loadwise.testing import ManualClock

__all__ = ["FLEET", "Asked", "Fleet", "Played", "read", "replay_by"]

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


def replay_by(
    requests: Iterable[Asked],
    balancers: Sequence[Balancer[int]],
    clock: ManualClock,
    fleet: Fleet = FLEET,
    load: float = 1.0,
) -> Played:
    """Return what comes of it where each request comes to any of several clients.

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
