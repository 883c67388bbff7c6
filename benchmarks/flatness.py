"""What a pick costs, and that it does not grow with the fleet.

Times ``select`` on a `NodeSet`, and ``acquire`` + ``success`` on a `Balancer`, for fleets of 10 to
10,000 nodes, and prints Markdown tables. All strategies and sizes are timed in turns within one
run, many times over, and the quickest turn of each counts: a machine that is busy with other
things slows some turns of everything down, and leaves some alone. Each turn is warmed up with two
picks per node, so that what is compared is the work, and not whose nodes happened to be in the
processor's cache.

    python benchmarks/flatness.py
    python benchmarks/flatness.py --json flatness.json --check
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from loadwise import (
    Balancer,
    ConsistentHash,
    FallbackChain,
    Filtered,
    HealthFilter,
    HealthTracker,
    InFlight,
    LeastLoad,
    MostAvailable,
    NodeSet,
    PeakEwma,
    PowerOfTwoChoices,
    Random,
    RoundRobin,
    SelectionContext,
    Strategy,
    WeightedRandom,
    WeightedRoundRobin,
    WithFallback,
)

SIZES = (10, 100, 1000, 10_000)
TURN_SECONDS = 0.003
"""How long one turn takes, about; a turn is at least one pick."""
MOST_RATIO = 1.5
MOST_RATIO_OF_RING = 2.5
MOST_NS_PER_NODE = 200.0

Batch = Callable[[int], float]
"""Makes so many picks and returns the seconds that they took."""


class Server:
    """A node that every strategy can work with."""

    __slots__ = ("id", "weight")

    def __init__(self, number: int, *, uneven: bool) -> None:
        self.id = f"10.0.{number // 256}.{number % 256}:8080"
        self.weight: float = 1 + number % 3
        if uneven:
            self.weight += random.Random(number).random()

    def load_score(self) -> float:
        """Return a load."""
        return 1.0

    def remaining(self) -> float:
        """Return a budget."""
        return 1.0


@dataclass(frozen=True)
class Subject:
    """A strategy to time.

    Attributes:
        name: What to call it.
        make: Makes it.
        most: The ratio of the largest to the smallest fleet that is expected of it; ``None`` for
            those whose cost grows by design.
        scans: Whether it looks at every node.
        uneven: Whether to give its nodes float weights.
    """

    name: str
    make: Callable[[], Strategy[Any]]
    most: float | None = MOST_RATIO
    scans: bool = False
    uneven: bool = False


SUBJECTS = [
    Subject("RoundRobin", RoundRobin),
    Subject("WeightedRoundRobin", WeightedRoundRobin),
    Subject("WeightedRoundRobin, floats: O(log n)", WeightedRoundRobin, most=None, uneven=True),
    Subject("Random", Random),
    Subject("WeightedRandom", WeightedRandom),
    Subject("PowerOfTwoChoices, own load", PowerOfTwoChoices),
    Subject("PowerOfTwoChoices, InFlight", lambda: PowerOfTwoChoices(load=InFlight())),
    Subject("PowerOfTwoChoices, PeakEwma", lambda: PowerOfTwoChoices(load=PeakEwma())),
    Subject("ConsistentHash", ConsistentHash, most=MOST_RATIO_OF_RING),
    Subject(
        "Filtered by health, RoundRobin",
        lambda: Filtered(RoundRobin(), HealthFilter.available(HealthTracker())),
    ),
    Subject("WithFallback, RoundRobin", lambda: WithFallback(RoundRobin(), Random())),
    Subject("FallbackChain, RoundRobin", lambda: FallbackChain([RoundRobin(), Random()])),
    Subject("LeastLoad, own load", LeastLoad, most=None, scans=True),
    Subject("LeastLoad, InFlight", lambda: LeastLoad(load=InFlight()), most=None, scans=True),
    Subject("MostAvailable", MostAvailable, most=None, scans=True),
]

KEYS = [f"user-{number}" for number in range(1000)]
CONTEXTS = [SelectionContext(hash_key=key) for key in KEYS]


def time_select(strategy: Strategy[Any], nodes: NodeSet[Any], picks: int) -> float:
    """Time ``select``, each with a key of its own."""
    select = strategy.select
    contexts = (CONTEXTS * (picks // len(CONTEXTS) + 1))[:picks]
    start = perf_counter()
    for context in contexts:
        select(nodes, context)
    return perf_counter() - start


def time_acquire(balancer: Balancer[Any], picks: int) -> float:
    """Time ``acquire`` and ``success``."""
    acquire = balancer.acquire
    start = perf_counter()
    for _ in range(picks):
        acquire().success()
    return perf_counter() - start


def time_acquire_by_key(balancer: Balancer[Any], picks: int) -> float:
    """Time ``acquire`` with a key, and ``success``."""
    acquire = balancer.acquire
    keys = (KEYS * (picks // len(KEYS) + 1))[:picks]
    start = perf_counter()
    for key in keys:
        acquire(hash_key=key).success()
    return perf_counter() - start


@dataclass(frozen=True)
class Row:
    """What was found of one subject.

    Attributes:
        subject: What was timed.
        ns: Nanoseconds per pick, by fleet size.
    """

    subject: Subject
    ns: dict[int, float]

    @property
    def ratio(self) -> float:
        """Cost on the largest fleet over that on the smallest."""
        return self.ns[SIZES[-1]] / self.ns[SIZES[0]]

    @property
    def ns_per_node(self) -> float:
        """Nanoseconds per pick and node on the largest fleet."""
        return self.ns[SIZES[-1]] / SIZES[-1]

    @property
    def is_as_expected(self) -> bool:
        """Whether it keeps within its limit."""
        if self.subject.scans:
            return self.ns_per_node <= MOST_NS_PER_NODE
        return self.subject.most is None or self.ratio <= self.subject.most

    def as_json(self) -> dict[str, object]:
        """Return it as plain values."""
        return {
            "strategy": self.subject.name,
            "ns": {str(size): round(ns, 1) for size, ns in self.ns.items()},
            "ratio": round(self.ratio, 3),
            "most_ratio": self.subject.most,
            "ns_per_node": round(self.ns_per_node, 1) if self.subject.scans else None,
            "as_expected": self.is_as_expected,
        }


def batches(subject: Subject) -> tuple[dict[int, Batch], dict[int, Batch]]:
    """Return what to time: ``select``, and ``acquire`` + ``success``, by fleet size."""
    selects: dict[int, Batch] = {}
    acquires: dict[int, Batch] = {}
    for size in SIZES:
        servers = [Server(number, uneven=subject.uneven) for number in range(size)]
        strategy = subject.make()
        selects[size] = partial(time_select, strategy, NodeSet(servers))
        balancer = Balancer(servers, subject.make() if strategy_feeds(strategy) else strategy)
        by_key = isinstance(strategy, ConsistentHash)
        acquires[size] = partial(time_acquire_by_key if by_key else time_acquire, balancer)
    return selects, acquires


def strategy_feeds(strategy: Strategy[Any]) -> bool:
    """Whether a strategy has a measure that a balancer would feed."""
    return bool(getattr(strategy, "measures", ()))


def picks_per_turn(batch: Batch) -> int:
    """Return how many picks make a turn; warms up as well."""
    batch(1)
    picks = 1
    while True:
        seconds = batch(picks)
        if seconds >= TURN_SECONDS / 2:
            return max(1, round(picks * TURN_SECONDS / seconds))
        picks *= 2


def measure(all_batches: list[dict[int, Batch]], turns: int) -> list[dict[int, list[float]]]:
    """Time all subjects in turns; return the seconds per pick of every turn."""
    counts = [
        {size: picks_per_turn(batch) for size, batch in by_size.items()} for by_size in all_batches
    ]
    times: list[dict[int, list[float]]] = [{size: [] for size in SIZES} for _ in all_batches]
    gc.collect()
    gc.disable()
    try:
        for _ in range(turns):
            for subject, by_size, count, found in zip(
                SUBJECTS, all_batches, counts, times, strict=True
            ):
                for size, batch in by_size.items():
                    batch(count[size] if subject.scans else max(count[size], 2 * size))
                    found[size].append(batch(count[size]) / count[size])
    finally:
        gc.enable()
    return times


def to_rows(times: list[dict[int, list[float]]]) -> list[Row]:
    """Work out what to show."""
    return [
        Row(subject, {size: min(seconds) * 1e9 for size, seconds in found.items()})
        for subject, found in zip(SUBJECTS, times, strict=True)
    ]


def show(title: str, rows: list[Row]) -> None:
    """Print a table."""
    print(f"\n### {title}: ns per pick\n")
    print(f"| strategy | {' | '.join(f'{size:,}' for size in SIZES)} | ratio | ns per node |")
    print(f"|---|{'---:|' * (len(SIZES) + 2)}")
    for row in rows:
        cells = " | ".join(f"{row.ns[size]:,.0f}" for size in SIZES)
        ratio = "scan" if row.subject.scans else f"{row.ratio:.2f}"
        per_node = f"{row.ns_per_node:.0f}" if row.subject.scans else ""
        mark = "" if row.is_as_expected else " (too much)"
        print(f"| {row.subject.name}{mark} | {cells} | {ratio} | {per_node} |")


def main() -> int:
    """Time, print, and return the exit code."""
    parser = argparse.ArgumentParser(
        description="Time select and acquire + release for fleets of 10 to 10,000 nodes.",
        epilog=f"Expected: a ratio of at most {MOST_RATIO}, {MOST_RATIO_OF_RING} for "
        f"ConsistentHash; at most {MOST_NS_PER_NODE:.0f} ns per node for those that scan.",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--turns", type=int, default=15, help="turns per figure (default: 15)")
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 if a figure is not as expected"
    )
    options = parser.parse_args()
    if options.turns < 1:
        parser.error(f"--turns is {options.turns}; it must be at least 1")
    pairs = [batches(subject) for subject in SUBJECTS]
    tables = {
        "select": to_rows(measure([selects for selects, _ in pairs], options.turns)),
        "acquire + release": to_rows(measure([acquires for _, acquires in pairs], options.turns)),
    }
    python = f"{platform.python_implementation()} {platform.python_version()}"
    print(f"{python}, quickest of {options.turns} turns; ratio: {SIZES[-1]:,} nodes to {SIZES[0]}")
    for title, rows in tables.items():
        show(title, rows)
    if options.json is not None:
        found: dict[str, object] = {"python": python, "turns": options.turns}
        found |= {title: [row.as_json() for row in rows] for title, rows in tables.items()}
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    expected = all(row.is_as_expected for rows in tables.values() for row in rows)
    return 1 if options.check and not expected else 0


if __name__ == "__main__":
    sys.exit(main())
