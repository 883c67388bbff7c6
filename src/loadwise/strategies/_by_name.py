"""Strategies by the names that commands and scenarios call them by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random as RandomSource
from types import MappingProxyType
from typing import Any

from loadwise.load import InFlight, PeakEwma
from loadwise.strategies.consistent_hash import ConsistentHash
from loadwise.strategies.least_load import LeastLoad
from loadwise.strategies.most_available import MostAvailable
from loadwise.strategies.power_of_two_choices import PowerOfTwoChoices
from loadwise.strategies.protocols import Strategy
from loadwise.strategies.round_robin import RoundRobin
from loadwise.strategies.uniform_random import Random
from loadwise.strategies.weighted_random import WeightedRandom
from loadwise.strategies.weighted_round_robin import WeightedRoundRobin

__all__ = ["STRATEGIES", "Maker", "known_name"]

Maker = Callable[[RandomSource, float], Strategy[Any]]  # of whatever nodes
"""Makes a strategy from a random source and the tau of peak EWMA, in seconds."""

STRATEGIES: Mapping[str, Maker] = MappingProxyType(
    {
        "round-robin": lambda _, __: RoundRobin(),
        "round-robin-random-start": lambda rng, _: RoundRobin(start=rng.randrange(1 << 16)),
        "weighted-round-robin": lambda _, __: WeightedRoundRobin(),
        "random": lambda rng, _: Random(rng),
        "weighted-random": lambda rng, _: WeightedRandom(rng),
        "least-load": lambda rng, _: LeastLoad(InFlight(), rng),
        "least-load-peak-ewma": lambda rng, tau: LeastLoad(PeakEwma(tau=tau), rng),
        "p2c": lambda rng, _: PowerOfTwoChoices(InFlight(), rng),
        "p2c-peak-ewma": lambda rng, tau: PowerOfTwoChoices(PeakEwma(tau=tau), rng),
        "consistent-hash": lambda _, __: ConsistentHash(),
        "most-available": lambda rng, _: MostAvailable(rng=rng),
    }
)

_ALIASES = MappingProxyType({"poweroftwochoices": "p2c"})


def known_name(text: str) -> str | None:
    """Return the name that is meant by one in any spelling, or a class's; ``None`` for no other.

    Example:
        >>> known_name("PowerOfTwoChoices"), known_name("least_load"), known_name("best")
        ('p2c', 'least-load', None)
    """
    plain_names = {_plain(known): known for known in STRATEGIES} | _ALIASES
    return plain_names.get(_plain(text))


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()
