"""Strategies by name, as files call them, with options; or classes of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from random import Random
from types import MappingProxyType
from typing import Any

from loadwise._callables import refuse_async
from loadwise.errors import nearest
from loadwise.llm import (
    CacheAware,
    LMetric,
    PendingTokens,
    PrefixAffinity,
    PrefixIndex,
    ScoredPrefix,
)
from loadwise.load import InFlight
from loadwise.strategies import LeastLoad, PowerOfTwoChoices, Split, Strategy, Tiers, Zones
from loadwise.strategies.catalogue import STRATEGIES as UNGROUPED
from loadwise.strategies.catalogue import Maker, known_name

__all__ = ["STRATEGIES", "Contender", "Recipe", "Seat", "contender"]

AnyStrategy = Strategy[Any]  # of whatever nodes
Recipe = str | type[AnyStrategy] | Callable[[], AnyStrategy]
"""A contender's name, or what makes a strategy: one is made for each client."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Place of one client: what a strategy by groups of servers depends on.

    Attributes:
        rng: Source of all chance; ``None`` for the shared one.
        tau: Seconds in which peak EWMA forgets a peak.
        zone: Where the client stands, if anywhere.
        shares: Shares of the groups of servers.
        blocks: Blocks of prompts that it takes a server's cache for.
        block_chars: Characters of such a block.
        group_of: Tells the group of a server.
    """

    rng: Random | None
    tau: float = 10.0
    zone: str | None = None
    shares: Mapping[str, float] = field(default_factory=dict[str, float])
    blocks: int = 8192
    block_chars: int = 256
    group_of: Callable[[Any], Any] = attrgetter("group")

    def index(self) -> PrefixIndex:
        """Return an index of the prefixes that servers have cached."""
        return PrefixIndex(self.blocks, self.block_chars)


Seated = Callable[[Seat], AnyStrategy]


def _p2c(seat: Seat) -> Callable[[], AnyStrategy]:
    return lambda: PowerOfTwoChoices(InFlight(), seat.rng)


def _tiers(seat: Seat) -> AnyStrategy:
    return Tiers(_p2c(seat), rng=seat.rng)


def _zones(seat: Seat) -> AnyStrategy:
    return Zones(_p2c(seat), local=seat.zone, rng=seat.rng)


def _split(seat: Seat) -> AnyStrategy:
    return Split(seat.shares, by=seat.group_of, make=_p2c(seat), rng=seat.rng)


def _prefix_affinity(seat: Seat) -> AnyStrategy:
    return PrefixAffinity(seat.index(), rng=seat.rng)


def _lmetric(seat: Seat) -> AnyStrategy:
    return LMetric(seat.index(), rng=seat.rng)


def _cache_aware(seat: Seat) -> AnyStrategy:
    return CacheAware(seat.index(), rng=seat.rng)


def _scored_prefix(seat: Seat) -> AnyStrategy:
    return ScoredPrefix(seat.index(), rng=seat.rng)


def _ungrouped(make: Maker) -> Seated:
    return lambda seat: make(seat.rng, seat.tau)


_SEATED: dict[str, Seated] = {
    "tiers": _tiers,
    "zones": _zones,
    "split": _split,
    "prefix-affinity": _prefix_affinity,
    "lmetric": _lmetric,
    "cache-aware": _cache_aware,
    "scored-prefix": _scored_prefix,
}

STRATEGIES: Mapping[str, Seated] = MappingProxyType(
    {name: _ungrouped(make) for name, make in UNGROUPED.items()} | _SEATED
)
"""Makers of strategies by the names that files call them by."""

_BY_PENDING: dict[str, Seated] = {
    "p2c": lambda seat: PowerOfTwoChoices(PendingTokens(), seat.rng),
    "least-load": lambda seat: LeastLoad(PendingTokens(), seat.rng),
}
_PENDING = "pending-tokens"
_FORGETFUL = "-peak-ewma"
_OPTIONS = (_PENDING, "no-health", "outliers", "slow-start")


@dataclass(frozen=True, slots=True)
class Contender:
    """A strategy that takes part in a comparison.

    Attributes:
        name: Its name in results.
        make: Makes a strategy for a client.
        health: Whether the health of servers is tracked, where it is at all.
        outliers: Whether outliers are ejected.
        slow_start: Whether the weight of servers that join grows.
        forgets: Whether it goes by peak EWMA, whose tau says how soon a peak is forgotten.
    """

    name: str
    make: Seated
    health: bool = True
    outliers: bool = False
    slow_start: bool = False
    forgets: bool = False


def contender(recipe: Recipe) -> Contender:
    """Return who is meant by a name, in any spelling, or by a strategy class.

    A name may be followed by options, in any order: ``/no-health`` runs it without health tracking,
    ``/outliers`` with outlier ejection, ``/slow-start`` with slow start; ``/pending-tokens`` has
    ``p2c`` and ``least-load`` go by the prompt tokens that wait for their first byte.

    Raises:
        ValueError: There is no such strategy or option.
        TypeError: It is neither a name nor callable.

    Example:
        >>> contender("PowerOfTwoChoices").name, contender("least_load/no-health").name
        ('p2c', 'least-load/no-health')
        >>> contender("p2c/slow-start/outliers").name
        'p2c/outliers/slow-start'
    """
    if isinstance(recipe, str):
        return _by_name(recipe)
    if not callable(recipe):
        raise TypeError(
            f"strategy is {recipe!r}; it must be a name, a strategy class or a function that "
            f"returns a strategy"
        )
    refuse_async("strategy", recipe, "give a plain function that returns a strategy")
    return Contender(getattr(recipe, "__name__", type(recipe).__name__), lambda _: recipe())


def _by_name(text: str) -> Contender:
    name, *given = text.split("/")
    plain = name.lower().replace("_", "-")
    known = plain if plain in STRATEGIES else known_name(name)
    if known is None:
        raise ValueError(
            f"{name!r} is not a strategy{nearest(name.lower(), STRATEGIES)} "
            f"(the strategies are {', '.join(STRATEGIES)})"
        )
    for option in given:
        if option not in _OPTIONS:
            raise ValueError(
                f"{text!r} has an unknown option, {option!r}{nearest(option, _OPTIONS)} (the "
                f"options are {', '.join(f'/{each}' for each in _OPTIONS)})"
            )
    make = STRATEGIES[known]
    if _PENDING in given:
        if known not in _BY_PENDING:
            raise ValueError(
                f"{text!r}: /{_PENDING} is a load to choose by, for {' and '.join(_BY_PENDING)}"
            )
        make = _BY_PENDING[known]
    return Contender(
        "/".join([known, *(option for option in _OPTIONS if option in given)]),
        make,
        health="no-health" not in given,
        outliers="outliers" in given,
        slow_start="slow-start" in given,
        forgets=known.endswith(_FORGETFUL) and _PENDING not in given,
    )
