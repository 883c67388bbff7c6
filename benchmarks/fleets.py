"""The nodes and the requests that the benchmarks use."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from loadwise import (
    ConsistentHash,
    FallbackChain,
    Filtered,
    HealthFilter,
    HealthTracker,
    InFlight,
    JumpHash,
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

__all__ = ["CONTEXTS", "KEYS", "RULES", "Rule", "Server", "contexts", "keys", "servers"]

KEYS = [f"user-{number}" for number in range(1000)]
CONTEXTS = [SelectionContext(hash_key=key) for key in KEYS]


def contexts(count: int) -> list[SelectionContext]:
    """Return so many contexts, each with another key, from the beginning again after 1,000."""
    return (CONTEXTS * (count // len(CONTEXTS) + 1))[:count]


def keys(count: int) -> list[str]:
    """Return so many keys, from the beginning again after 1,000."""
    return (KEYS * (count // len(KEYS) + 1))[:count]


class Server:
    """A node that every strategy can work with."""

    __slots__ = ("id", "priority", "weight", "zone")

    def __init__(self, number: int, *, uneven: bool = False, alike: bool = False) -> None:
        self.id = f"10.0.{number // 256}.{number % 256}:8080"
        self.priority = number % 2
        self.zone = "ab"[number % 2]
        self.weight: float = 1 if alike else 1 + number % 3
        if uneven:
            self.weight += random.Random(number).random()

    def load_score(self) -> float:
        """Return a load."""
        return 1.0

    def remaining(self) -> float:
        """Return a budget."""
        return 1.0


def servers(count: int, *, uneven: bool = False, alike: bool = False) -> list[Server]:
    """Return so many nodes: weights 1, 2 and 3 by turns, ``uneven`` floats, or all ``alike``."""
    return [Server(number, uneven=uneven, alike=alike) for number in range(count)]


@dataclass(frozen=True)
class Rule:
    """A strategy to time.

    Attributes:
        name: What to call it.
        make: Makes it.
        most: How much more it may cost on the largest fleet than on the smallest; ``None`` for
            those that look at every node.
        scans: Whether it looks at every node.
        uneven: Whether its nodes have float weights.
        alike: Whether its nodes have the same weight.
        keyed: Whether requests need a key.
        numbered: Whether its nodes have numbers for ids.
        round: Picks whose work one of them does.
    """

    name: str
    make: Callable[[], Strategy[Any]]
    most: float | None = 1.4
    scans: bool = False
    uneven: bool = False
    alike: bool = False
    keyed: bool = False
    numbered: bool = False
    round: int = 1

    def servers(self, count: int) -> list[Server]:
        """Return so many nodes to time it with."""
        nodes = servers(count, uneven=self.uneven, alike=self.alike)
        if self.numbered:
            for number, node in enumerate(nodes):
                node.id = f"shard-{number}"
        return nodes


RULES = (
    Rule("RoundRobin", RoundRobin),
    Rule("WeightedRoundRobin", WeightedRoundRobin),
    Rule("WeightedRoundRobin, float weights", WeightedRoundRobin, uneven=True, round=64),
    Rule("Random", Random),
    Rule("WeightedRandom", WeightedRandom),
    Rule("PowerOfTwoChoices, own load", PowerOfTwoChoices, alike=True),
    Rule("PowerOfTwoChoices, InFlight", lambda: PowerOfTwoChoices(load=InFlight()), alike=True),
    Rule("PowerOfTwoChoices, PeakEwma", lambda: PowerOfTwoChoices(load=PeakEwma()), alike=True),
    Rule("ConsistentHash", ConsistentHash, most=2.5, keyed=True),
    Rule("Maglev", Maglev, most=2.5, keyed=True),
    Rule("Rendezvous", Rendezvous, most=None, scans=True, alike=True, keyed=True),
    Rule("JumpHash", JumpHash, most=3.5, alike=True, keyed=True, numbered=True),
    Rule(
        "Filtered by health, RoundRobin",
        lambda: Filtered(RoundRobin(), HealthFilter.available(HealthTracker())),
    ),
    Rule("WithFallback, RoundRobin", lambda: WithFallback(RoundRobin(), Random())),
    Rule("FallbackChain, RoundRobin", lambda: FallbackChain([RoundRobin(), Random()])),
    Rule("Tiers, RoundRobin", lambda: Tiers(RoundRobin)),
    Rule("Zones, RoundRobin", lambda: Zones(RoundRobin, local="a")),
    Rule(
        "Split, RoundRobin",
        lambda: Split({0: 95, 1: 5}, attrgetter("priority"), RoundRobin, rng=random.Random(1)),
    ),
    Rule("LeastLoad, own load", LeastLoad, most=None, scans=True, alike=True),
    Rule(
        "LeastLoad, InFlight", lambda: LeastLoad(load=InFlight()), most=None, scans=True, alike=True
    ),
    Rule("MostAvailable", MostAvailable, most=None, scans=True),
)
