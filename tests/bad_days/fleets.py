"""Fleets on bad days, and the share of requests that balancers answer well there."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from loadwise import Balancer, InFlight, NoNodeAvailable, PowerOfTwoChoices
from loadwise.testing import ManualClock

__all__ = [
    "DEATHS",
    "FLEETS",
    "BadDay",
    "best_possible",
    "default",
    "lost_in_death",
    "share",
    "without_health",
    "without_panic",
]

RATE = 100
SECONDS = 120
SECONDS_OF_DEATH = 60

Make = Callable[[list[str], ManualClock, random.Random], Balancer[str]]


@dataclass(frozen=True)
class BadDay:
    """A fleet of which each node fails by itself, from the first request on.

    Attributes:
        name: Says what is wrong with it.
        failing: The share of requests that each node fails; 1 for a dead node.
        published: The share of good answers that the design promises, at one try and at three.
    """

    name: str
    failing: tuple[float, ...]
    published: tuple[float, float]


FLEETS = (
    BadDay("5 nodes fail 20 % each", (0.2,) * 5, (0.80, 0.99)),
    BadDay("5 nodes fail 30 % each", (0.3,) * 5, (0.70, 0.97)),
    BadDay("5 nodes fail 50 % each", (0.5,) * 5, (0.50, 0.88)),
    BadDay("10 nodes fail 60 % each", (0.6,) * 10, (0.40, 0.78)),
    BadDay("1 node fails 30 %", (0.3,), (0.70, 0.70)),
    BadDay("2 of 3 are dead", (1.0, 1.0, 0.0), (0.998, 1.0)),
    BadDay("4 of 5 are dead", (1.0,) * 4 + (0.0,), (0.995, 0.999)),
    BadDay("3 of 5 are dead, the others fail 20 %", (1.0,) * 3 + (0.2,) * 2, (0.79, 0.96)),
    BadDay("4 of 10 are dead, the others fail 50 %", (1.0,) * 4 + (0.5,) * 6, (0.50, 0.87)),
)

DEATHS = {(2, 3): 16, (4, 5): 32, (6, 10): 48}
"""Of so many nodes so many die under load, and this many of 6,000 requests may be lost."""


def best_possible(failing: tuple[float, ...], tries: int) -> float:
    """Return the share of good answers of one who knows all, and asks no node twice."""
    lost = 1.0
    for share_failed in sorted(failing)[:tries]:
        lost *= share_failed
    return 1.0 - lost


def share(failing: tuple[float, ...], tries: int, make: Make, seed: int = 1) -> float:
    """Return the share of good answers: 100 requests a second for two minutes, at once answered."""
    names = [f"n{number}" for number in range(len(failing))]
    rng, clock = random.Random(seed), ManualClock()
    balancer = make(names, clock, random.Random(seed + 1))
    fails = dict(zip(names, failing, strict=True))
    good = sum(_ask(balancer, tries, clock, rng, fails) for _ in _requests(RATE * SECONDS))
    return good / (RATE * SECONDS)


def lost_in_death(dying: int, nodes: int, make: Make, seed: int = 1) -> int:
    """Return how many of 6,000 requests are lost when nodes that were well die under load."""
    names = [f"n{number}" for number in range(nodes)]
    rng, clock = random.Random(seed), ManualClock()
    balancer = make(names, clock, random.Random(seed + 1))
    for _ in _requests(RATE * 10):
        assert _ask(balancer, 1, clock, rng, dict.fromkeys(names, 0.0))
    fails = {name: float(number < dying) for number, name in enumerate(names)}
    requests = RATE * SECONDS_OF_DEATH
    return requests - sum(_ask(balancer, 1, clock, rng, fails) for _ in _requests(requests))


def _requests(number: int) -> Iterator[int]:
    return iter(range(number))


def _ask(
    balancer: Balancer[str],
    tries: int,
    clock: ManualClock,
    rng: random.Random,
    fails: dict[str, float],
) -> bool:
    """Send one request, with so many tries, and tell whether it had a good answer."""
    clock.advance(1 / RATE)
    try:
        for attempt in balancer.attempts(tries):
            with attempt as lease:
                if rng.random() >= fails[lease.node]:
                    lease.success()
                    return True
                lease.failure("status 503")
    except NoNodeAvailable:
        return False
    return False


def default(names: list[str], clock: ManualClock, rng: random.Random) -> Balancer[str]:
    """Make a balancer as it comes."""
    return Balancer(names, _strategy(rng), clock=clock)


def without_panic(names: list[str], clock: ManualClock, rng: random.Random) -> Balancer[str]:
    """Make a balancer that gives UNHEALTHY nodes nothing but their probes."""
    return Balancer(names, _strategy(rng), clock=clock, panic_threshold=None)


def without_health(names: list[str], clock: ManualClock, rng: random.Random) -> Balancer[str]:
    """Make a balancer that keeps no health."""
    return Balancer(names, _strategy(rng), clock=clock, health=False)


def _strategy(rng: random.Random) -> PowerOfTwoChoices[str]:
    return PowerOfTwoChoices(load=InFlight(), rng=rng)
