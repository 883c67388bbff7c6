"""Leased mode: slices of the quota are taken in the background, and requests use those.

A slice is charged on the server when it is taken, and counted there as if it were used at the
very end of its life. So whenever its units are really used, the server remembers them for a whole
window after: no stretch of ``window`` seconds holds more than the limit, in all processes together,
just as in strict mode. The price is that units come back up to one life of a slice later, and that
what lies unused in one process is, for so long, of no use to the others.

How much a process holds ready follows its demand: twice as much when more than half was used
before it was renewed, half as much when nothing was. What was not used is given back.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from loadwise.integrations.redis._account import Granted, SharedBucket
from loadwise.integrations.redis._quota_protocol import QuotaCall
from loadwise.quota import QuotaDimension
from loadwise.quota.counts import need

__all__ = ["NodeSlices", "Part", "Parts", "Slice", "SlicePool"]

_LONGEST_LIFE = 5.0
_LEAST_PAUSE = 0.01


class Slice:
    """Units that were taken at once.

    Attributes:
        bucket: Where the server counts them.
        left: Units not used yet.
        expires: Until when they may be used.
    """

    __slots__ = ("bucket", "expires", "left")

    def __init__(self, bucket: SharedBucket, left: float, expires: float) -> None:
        self.bucket = bucket
        self.left = left
        self.expires = expires


Part = tuple[Slice | SharedBucket, float]
"""Units that a request was given, and where they came from."""

Parts = Mapping[str, Sequence[Part]]
"""The same, by dimension."""


class SlicePool:
    """Slices that a process holds of one dimension. Not thread-safe: the counts hold a lock.

    Attributes:
        slices: What was taken, the oldest first.
        target: Units to hold ready.
        drawn: Units used since it was last renewed.
        short: The most that a request could not get since then.
        typical: About what a request takes; less and less while there are none.
    """

    __slots__ = ("dimension", "drawn", "short", "slices", "target", "typical")

    def __init__(self, dimension: QuotaDimension, share: float) -> None:
        self.dimension = dimension
        self.slices: deque[Slice] = deque()
        self.drawn: float = 0
        self.short: float = 0
        self.typical: float = 0
        self.target = self._bounded(share * dimension.limit)

    def left(self, after: float) -> float:
        """Return the units that may still be used at ``after``."""
        return sum([each.left for each in self.slices if each.expires > after])

    def draw(self, amount: float, now: float) -> list[Part]:
        """Take out units, the oldest first, as far as there are any."""
        self.drawn += amount
        self.typical = max(amount, 0.9 * self.typical)
        parts: list[Part] = []
        for each in self.slices:
            part = min(each.left, amount) if each.expires > now else 0
            if part > 0:
                each.left -= part
                amount -= part
                parts.append((each, part))
        return parts

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

    def take_out(self, end: float) -> Iterator[Part]:
        """Take out the slices that may be used no longer than ``end``, with what is left."""
        for each in [each for each in self.slices if each.expires <= end]:
            self.slices.remove(each)
            left, each.left, each.expires = each.left, 0, -math.inf
            if left > 0:
                yield each, left

    def _bounded(self, target: float) -> float:
        dimension = self.dimension
        least = max(dimension.default_cost, self.typical, dimension.limit / 100)
        target = max(least, min(target, dimension.limit / 2))
        return math.ceil(target) if target > 1 else target


class NodeSlices:
    """Slices that a process holds of one node.

    Args:
        dimensions: What the node limits.
        share: Of each limit, how much to hold ready before the demand is known.

    Attributes:
        life: Seconds that a slice may be used: a tenth of the shortest window, at most 5 s.
        pause: Seconds after which to ask again when there was not enough.
        begun: Whether this process has taken any yet. It does not before it needs some: else
            processes that are only waiting for work would hold the whole limit.
    """

    __slots__ = ("_ask_at", "begun", "life", "pause", "pools")

    def __init__(self, dimensions: Iterable[QuotaDimension], share: float) -> None:
        self.pools = {each.name: SlicePool(each, share) for each in dimensions}
        self.life = min(
            _LONGEST_LIFE, *(pool.dimension.window / 10 for pool in self.pools.values())
        )
        self.pause = max(self.life / 4, _LEAST_PAUSE)
        self.begun = False
        self._ask_at = -math.inf

    def covers(self, amounts: Mapping[str, float], now: float) -> bool:
        """Tell whether such a request can be served from what is there."""
        pools = self.pools.values()
        return all(pool.left(now) >= need(pool.dimension, amounts) for pool in pools)

    def draw(self, amounts: Mapping[str, float], now: float) -> dict[str, list[Part]]:
        """Take out what a request is charged."""
        return {name: pool.draw(amounts[name], now) for name, pool in self.pools.items()}

    def miss(self, amounts: Mapping[str, float]) -> None:
        """Record a request that was not covered, so that enough is taken."""
        for pool in self.pools.values():
            pool.short = max(pool.short, need(pool.dimension, amounts))

    def is_low(self, now: float) -> bool:
        """Tell whether the server should be asked for more."""
        if not self.begun:
            return False
        pools = self.pools.values()
        return now >= self._ask_at and any(pool.wanted(now, self.life) > 0 for pool in pools)

    def ask(self, now: float) -> dict[str, float]:
        """Return how much to take, by dimension."""
        return {name: pool.ask(now, self.life) for name, pool in self.pools.items()}

    def stock(self, granted: Granted, call: QuotaCall, now: float) -> Iterator[tuple[str, Part]]:
        """Hold what a call was granted, and take out what it replaces."""
        self.begun = enough = True
        for name, parts in granted.items():
            pool = self.pools.get(name)
            if pool is None:
                continue
            enough = enough and sum([part for _, part in parts]) >= call.amounts[name]
            if parts:
                yield from ((name, part) for part in pool.take_out(now + self.life / 2))
            pool.slices.extend(Slice(bucket, part, call.sent + self.life) for bucket, part in parts)
        self._ask_at = now if enough else now + self.pause

    def take_out(self, end: float) -> Iterator[tuple[str, Part]]:
        """Take out what may be used no longer than ``end``, by dimension."""
        for name, pool in self.pools.items():
            yield from ((name, part) for part in pool.take_out(end))

    def drop(self) -> None:
        """Let go of everything without giving it back, as the child of a fork does."""
        self.begun, self._ask_at = False, -math.inf
        for pool in self.pools.values():
            pool.slices.clear()
