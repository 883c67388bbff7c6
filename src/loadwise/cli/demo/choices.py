"""The strategies that the demo can run, by the names that it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random as RandomSource
from types import MappingProxyType

from loadwise.errors import nearest
from loadwise.load import InFlight, PeakEwma
from loadwise.nodes import Endpoint
from loadwise.strategies import (
    ConsistentHash,
    LeastLoad,
    PowerOfTwoChoices,
    Random,
    RoundRobin,
    Strategy,
    WeightedRandom,
    WeightedRoundRobin,
)

__all__ = ["CHOICES", "DEFAULTS", "Choice", "choose"]

DEFAULTS = ("round-robin", "random", "p2c", "p2c-peak-ewma", "least-load")


def _peak_ewma() -> PeakEwma:
    # A run lasts seconds, so a peak is remembered for one.
    return PeakEwma(tau=1.0)


@dataclass(frozen=True, slots=True)
class Choice:
    """A strategy of the demo: how it chooses, in words, and how to make it."""

    about: str
    make: Callable[[RandomSource], Strategy[Endpoint]]


CHOICES: Mapping[str, Choice] = MappingProxyType(
    {
        "round-robin": Choice("each server in turn", lambda _: RoundRobin()),
        "weighted-round-robin": Choice(
            "each server in turn, the slow one a tenth as often", lambda _: WeightedRoundRobin()
        ),
        "random": Choice("each server with the same chance", Random),
        "weighted-random": Choice(
            "by chance, the slow server a tenth as likely as another", WeightedRandom
        ),
        "least-load": Choice(
            "the server with the fewest requests under way", lambda rng: LeastLoad(InFlight(), rng)
        ),
        "least-load-peak-ewma": Choice(
            "the server with the least latency times requests under way",
            lambda rng: LeastLoad(_peak_ewma(), rng),
        ),
        "p2c": Choice(
            "of two servers drawn at random, the one with fewer requests under way",
            lambda rng: PowerOfTwoChoices(InFlight(), rng),
        ),
        "p2c-peak-ewma": Choice(
            "of two servers drawn at random, the one with less latency times requests under way",
            lambda rng: PowerOfTwoChoices(_peak_ewma(), rng),
        ),
        "consistent-hash": Choice(
            "each request has its own server by its hash, the slow one a tenth as often",
            lambda _: ConsistentHash(),
        ),
    }
)

_ALIASES = MappingProxyType({"poweroftwochoices": "p2c"})


def choose(name: str) -> str:
    """Return the demo's name for what may be a class's name, in any spelling.

    Raises:
        ValueError: There is no such choice.

    Example:
        >>> choose("RoundRobin"), choose("least_load")
        ('round-robin', 'least-load')
    """
    by_plain_name = {_plain(known): known for known in CHOICES} | _ALIASES
    known = by_plain_name.get(_plain(name))
    if known is None:
        raise ValueError(
            f"{name!r} is not a strategy that the demo can run"
            f"{nearest(name.lower(), CHOICES) or '.'} It can run: {', '.join(CHOICES)}."
        )
    return known


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()
