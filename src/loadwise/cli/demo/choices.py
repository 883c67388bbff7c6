"""The strategies that the demo can run, by the names that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random as RandomSource
from types import MappingProxyType

from loadwise.errors import nearest
from loadwise.nodes import Endpoint
from loadwise.strategies import Strategy
from loadwise.strategies.catalogue import STRATEGIES, known_name

__all__ = ["CHOICES", "DEFAULTS", "choose", "make"]

DEFAULTS = ("round-robin", "random", "p2c", "p2c-peak-ewma", "least-load")
# A run lasts seconds, so a peak is remembered for one.
_TAU = 1.0

CHOICES: Mapping[str, str] = MappingProxyType(
    {
        "round-robin": "each server in turn",
        "weighted-round-robin": "each server in turn, the slow one a tenth as often",
        "random": "each server with the same chance",
        "weighted-random": "by chance, the slow server a tenth as likely as another",
        "least-load": "the server with the fewest requests under way",
        "least-load-peak-ewma": "the server with the least latency times requests under way",
        "p2c": "of two servers drawn at random, the one with fewer requests under way",
        "p2c-peak-ewma": (
            "of two servers drawn at random, the one with less latency times requests under way"
        ),
        "consistent-hash": (
            "each request has its own server by its hash, the slow one a tenth as often"
        ),
    }
)
"""The rule of each strategy of the demo, in words, by its name."""


def choose(name: str) -> str:
    """Return the demo's name for what may be a class's name, in any spelling.

    Raises:
        ValueError: There is no such choice.

    Example:
        >>> choose("RoundRobin"), choose("least_load")
        ('round-robin', 'least-load')
    """
    known = known_name(name)
    if known is None or known not in CHOICES:
        raise ValueError(
            f"{name!r} is not a strategy that the demo can run"
            f"{nearest(name.lower(), CHOICES) or '.'} It can run: {', '.join(CHOICES)}."
        )
    return known


def make(choice: str, rng: RandomSource) -> Strategy[Endpoint]:
    """Make the strategy of a choice."""
    return STRATEGIES[choice](rng, _TAU)
