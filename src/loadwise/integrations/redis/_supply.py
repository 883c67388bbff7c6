"""What a process holds ready of a quota that it leases by slices."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from loadwise.integrations.redis._limits import needs
from loadwise.integrations.redis._stake import Charge
from loadwise.quota import QuotaDimension

__all__ = ["Purse", "Supply", "life_of"]

_LONGEST_LIFE = 5.0
_LEAST_PAUSE = 0.01


def life_of(dimensions: Iterable[QuotaDimension]) -> float:
    """Return how long a slice may be used: a tenth of the shortest window, at most 5 s."""
    return min(_LONGEST_LIFE, *(dimension.window / 10 for dimension in dimensions))


class Supply:
    """What a process holds of one dimension of a node. Not thread-safe: the core holds a lock.

    Attributes:
        slices: What was granted, the oldest first.
        target: Units to hold ready.
        drawn: Units used since it was last renewed.
        short: The most that a request could not get since then.
        typical: About what a request takes; less and less while there are none.
    """

    __slots__ = ("dimension", "drawn", "short", "slices", "target", "typical")

    def __init__(self, dimension: QuotaDimension, share: float) -> None:
        self.dimension = dimension
        self.slices: deque[Charge] = deque()
        self.drawn: float = 0
        self.short: float = 0
        self.typical: float = 0
        self.target = self._bounded(share * dimension.limit)

    def left(self, after: float) -> float:
        """Return the units that may still be used at ``after``."""
        return sum(charge.left for charge in self.slices if charge.expires > after)

    def draw(self, amount: float, now: float) -> Iterator[tuple[Charge, float]]:
        """Take out units, the oldest first, as far as there are any."""
        self.drawn += amount
        self.typical = max(amount, 0.9 * self.typical)
        for charge in self.slices:
            part = min(charge.left, amount) if charge.expires > now else 0
            if part > 0:
                charge.left -= part
                amount -= part
                yield charge, part

    def wanted(self, now: float, life: float) -> float:
        """Return how much to take; 0 if what is there will do for a while."""
        fresh = self.left(now + life / 2)
        if fresh > 0 and fresh >= max(self.target / 2, self.short):
            return 0
        return max(self.target, self.short) - fresh

    def ask(self, now: float, life: float) -> float:
        """Return how much to take, and hold more from then on if much was used, less if nothing."""
        if not self.wanted(now, life):
            return 0
        if self.drawn >= self.target / 2:
            self.target = self._bounded(2 * self.target)
        elif self.slices and not self.drawn:
            self.typical /= 2
            self.target = self._bounded(self.target / 2)
        wanted = self.wanted(now, life)
        self.drawn = self.short = 0
        return wanted

    def stale(self, now: float) -> Iterator[tuple[Charge, float]]:
        """Take out the slices that may be used no longer than ``now``, with what is left."""
        for charge in [charge for charge in self.slices if charge.expires <= now]:
            self.slices.remove(charge)
            left, charge.left, charge.expires = charge.left, 0, -math.inf
            if left > 0:
                yield charge, left

    def _bounded(self, target: float) -> float:
        dimension = self.dimension
        least = max(dimension.default_cost, self.typical, dimension.limit / 100)
        target = max(least, min(target, dimension.limit / 2))
        return math.ceil(target) if target > 1 else target


class Purse:
    """What a process holds of one node.

    Attributes:
        life: Seconds that a slice may be used.
        pause: Seconds after which to ask again when there was not enough.
        ask_at: When to ask again.
    """

    __slots__ = ("ask_at", "life", "pause", "supplies")

    def __init__(self, dimensions: Mapping[str, QuotaDimension], share: float) -> None:
        self.supplies = {name: Supply(each, share) for name, each in dimensions.items()}
        self.life = life_of(dimensions.values())
        self.pause = max(self.life / 4, _LEAST_PAUSE)
        self.ask_at = -math.inf

    def covers(self, amounts: Mapping[str, float], now: float) -> bool:
        """Whether such a request can be served from what is there."""
        return all(
            supply.left(now) >= needs(supply.dimension, amounts)
            for supply in self.supplies.values()
        )

    def is_low(self, now: float) -> bool:
        """Whether the server should be asked for more."""
        return now >= self.ask_at and any(
            supply.wanted(now, self.life) > 0 for supply in self.supplies.values()
        )

    def empty(self) -> None:
        """Let go of everything without giving it back, as the child of a fork does."""
        for supply in self.supplies.values():
            supply.slices.clear()
