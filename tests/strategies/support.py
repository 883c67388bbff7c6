"""What the tests of strategies compare against: references, statistics, and a case per strategy.

The references are written from the published descriptions, as plainly as can be, and share no
code with the library.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Sequence
from fractions import Fraction
from typing import Any

import xxhash

from loadwise import (
    BoundedLoads,
    ConsistentHash,
    FallbackChain,
    Filtered,
    InFlight,
    LeastLoad,
    Maglev,
    MostAvailable,
    PeakEwma,
    PowerOfTwoChoices,
    Random,
    Rendezvous,
    RoundRobin,
    SelectionContext,
    Split,
    Strategy,
    Tiers,
    WeightedRandom,
    WeightedRoundRobin,
    WithFallback,
    Zones,
)
from loadwise.strategies import ViewStrategy
from loadwise.strategies._ring import Ring


class Server:
    """A node that has all that any strategy asks for; everything may change, even the id."""

    def __init__(
        self, name: str, weight: float = 1, *, load: float = 0.0, left: float = 0.0
    ) -> None:
        self.id = name
        self.weight = weight
        self.load = load
        self.left = left
        self.priority = 0
        self.zone = f"zone-{name[-1:]}"

    def load_score(self) -> float:
        return self.load

    def remaining(self) -> float:
        return self.left


def any_server(_node: object) -> bool:
    """Accept every node."""
    return True


MAKERS: dict[str, Callable[[], ViewStrategy[Any]]] = {
    "RoundRobin": RoundRobin,
    "WeightedRoundRobin": WeightedRoundRobin,
    "Random": lambda: Random(rng=random.Random(1)),
    "WeightedRandom": lambda: WeightedRandom(rng=random.Random(2)),
    "LeastLoad": lambda: LeastLoad(rng=random.Random(3)),
    "LeastLoad-InFlight": lambda: LeastLoad(load=InFlight(), rng=random.Random(4)),
    "PowerOfTwoChoices": lambda: PowerOfTwoChoices(rng=random.Random(5)),
    "PowerOfTwoChoices-PeakEwma": lambda: PowerOfTwoChoices(load=PeakEwma(), rng=random.Random(6)),
    "ConsistentHash": lambda: ConsistentHash(virtual_nodes=3),
    "Maglev": lambda: Maglev(table_size=251),
    "Rendezvous": Rendezvous,
    "BoundedLoads": lambda: BoundedLoads(ConsistentHash(virtual_nodes=3)),
    "MostAvailable": lambda: MostAvailable(rng=random.Random(7)),
    "WithFallback": lambda: WithFallback(Filtered(RoundRobin(), lambda _: False), RoundRobin()),
    "FallbackChain": lambda: FallbackChain([WeightedRoundRobin(), RoundRobin()]),
    "Filtered": lambda: Filtered(WeightedRoundRobin(), any_server),
    "Tiers": lambda: Tiers(rng=random.Random(8)),
    "Zones": lambda: Zones(WeightedRoundRobin, rng=random.Random(9)),
    "Split": lambda: Split(
        {"even": 1, "odd": 2},
        by=lambda node: ("even", "odd")[len(node.id) % 2],
        make=lambda: LeastLoad(rng=random.Random(10)),
        rng=random.Random(11),
    ),
}
"""A new strategy of every kind, seeded where it is random, by name; all can work with `Server`."""


def picks(
    strategy: Strategy[Any],
    candidates: Sequence[Any],
    count: int,
    exclude: Iterable[int] = (),
) -> list[int | None]:
    """Return ``count`` successive choices; each has a hash key of its own."""
    excluded = frozenset(exclude)
    return [
        strategy.select(candidates, SelectionContext(f"key-{number}", excluded))
        for number in range(count)
    ]


def shares(chosen: Iterable[int | None], size: int) -> list[int]:
    """Return how often each index of ``size`` was chosen; no choice may be ``None``."""
    counts = [0] * size
    for index in chosen:
        assert index is not None
        counts[index] += 1
    return counts


def smooth_sequence(weights: Sequence[int], count: int, eligible: Iterable[int]) -> list[int]:
    """Return the first picks of nginx's smooth weighted round robin, one step at a time."""
    return [best for best, _ in smooth_steps(weights, count, eligible)]


def smooth_steps(
    weights: Sequence[int], count: int, eligible: Iterable[int]
) -> list[tuple[int, tuple[int, ...]]]:
    """Return nginx's picks, each with all current weights after it."""
    members = list(eligible)
    total = sum(weights[i] for i in members)
    current = [0] * len(weights)
    steps = []
    for _ in range(count):
        best = members[0]
        for i in members:
            current[i] += weights[i]
            if current[i] > current[best]:
                best = i
        current[best] -= total
        steps.append((best, tuple(current)))
    return steps


def furthest_from_proportional(
    chosen: Iterable[int], weights: Sequence[float]
) -> tuple[Fraction, Fraction]:
    """Return how many picks any node was behind and ahead of its share at worst, over all prefixes.

    Computed exactly. Between its picks a node only falls behind, so each node is looked at just
    before and just after each of its picks, and all of them at the end.
    """
    exact = [Fraction(weight) for weight in weights]
    unit = math.lcm(*(weight.denominator for weight in exact))
    scaled = [int(weight * unit) for weight in exact]
    total = sum(scaled)
    counts = [0] * len(scaled)
    behind = ahead = length = 0
    for index in chosen:
        behind = max(behind, length * scaled[index] - counts[index] * total)
        length += 1
        counts[index] += 1
        ahead = max(ahead, counts[index] * total - length * scaled[index])
    for weight, count in zip(scaled, counts, strict=True):
        behind = max(behind, length * weight - count * total)
    return Fraction(behind, total), Fraction(ahead, total)


def fair_sequence(weights: Sequence[float], count: int) -> list[int]:
    """Return the first picks of the fair schedule by its definition, one step at a time.

    Pick number p of a node has the slots from floor(p * period) until floor((p + 1) * period).
    The earliest deadline wins; then the latest release; then who has waited longest; then the
    lowest index.
    """
    largest = max(weights)
    total = math.fsum(weight / largest for weight in weights)
    periods = [total / (weight / largest) for weight in weights]
    nodes = range(len(weights))
    done, releases, last_slots = [0] * len(nodes), [0] * len(nodes), [-1] * len(nodes)
    chosen = []
    for slot in range(count):
        rank = [
            (math.floor((done[i] + 1) * periods[i]), -releases[i], last_slots[i]) for i in nodes
        ]
        best = min((i for i in nodes if releases[i] <= slot), key=rank.__getitem__)
        done[best] += 1
        releases[best] = max(math.floor(done[best] * periods[best]), slot + 1)
        last_slots[best] = slot
        chosen.append(best)
    return chosen


class ReferenceRing:
    """A hash ring by its definition: points sorted, searched and walked."""

    def __init__(self, ids: Sequence[object], counts: Sequence[int]) -> None:
        self.points = sorted(
            (xxhash.xxh64_intdigest(f"{identity}_{point}".encode()), index)
            for index, (identity, count) in enumerate(zip(ids, counts, strict=True))
            for point in range(count)
        )

    def owner(self, hashed: int, allowed: Collection[int]) -> int | None:
        """Return the first owner at or after ``hashed`` that is allowed, wrapping."""
        start = bisect_left(self.points, (hashed, -1))
        for _, index in self.points[start:] + self.points[:start]:
            if index in allowed:
                return index
        return None


def ring_entries(ring: Ring) -> list[tuple[int, int]]:
    """Return the points of a ring in order, each with the index of its owner."""
    index_of = {number: index for index, number in enumerate(ring.order)}
    cells = enumerate(zip(ring.points, ring.owners, strict=True))
    # A point that lies left of its home is a repetition, and 0 owns the end.
    return [
        (point, index_of[owner])
        for cell, (point, owner) in cells
        if owner and point >> ring.shift <= cell
    ]


def chi_square_tail(counts: Sequence[int], weights: Sequence[float]) -> float:
    """Return the chance of counts at least this far from proportional to ``weights``.

    Pearson's test. For an even number 2m of degrees of freedom the tail of the chi-square
    distribution is exp(-x/2) * sum of (x/2)^k / k! for k < m, so an odd number of categories makes
    the approximation of the test the only one.
    """
    assert len(counts) % 2 == 1
    total, scale = sum(counts), sum(weights)
    expected = [total * weight / scale for weight in weights]
    assert min(expected) >= 5, "too few samples for the approximation"
    half = sum((c - e) ** 2 / e for c, e in zip(counts, expected, strict=True)) / 2
    return math.exp(-half) * sum(half**k / math.factorial(k) for k in range(len(counts) // 2))


SIGNIFICANCE = 1e-4
"""Error probability of each statistical test, had its seed been drawn at random."""
