"""Ejection of one node, its length, and the times of sweeps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

__all__ = ["Ejection", "EjectionTimes", "Grid"]


@dataclass(frozen=True, slots=True)
class Ejection:
    """Time for which a node is out because it did worse than the rest.

    Attributes:
        since: When it began, in seconds of the balancer's clock.
        until: When it may end; it does at the first sweep from then on.
        count: How many it is in a row.
        reason: Why, in words, as in the node's health.
        rule: The name of the argument of `OutlierDetection` that is its rule, such as
            ``"success_rate"``.
    """

    since: float
    until: float
    count: int
    reason: str
    rule: str


class EjectionTimes:
    """Length of ejections in a row: longer each time, up to a maximum.

    Args:
        base: Seconds of the first, > 0.
        most: Seconds that none exceeds, >= ``base``.
        jitter: Seconds by which each is lengthened at random, at most.
        rng: Source of that.

    Source: Envoy, ``outlier_detection_impl.cc``.

    Example:
        >>> times = EjectionTimes(30.0, 300.0, 0.0, Random(1))
        >>> [times.seconds(count) for count in (1, 2, 10, 11)]
        [30.0, 60.0, 300.0, 300.0]
        >>> [times.next(count) for count in (0, 1, 10, 11)]
        [1, 2, 11, 11]
    """

    __slots__ = ("_base", "_jitter", "_most", "_rng")

    def __init__(self, base: float, most: float, jitter: float, rng: Random) -> None:
        self._base = base
        self._most = most
        self._jitter = jitter
        self._rng = rng

    def next(self, count: int) -> int:
        """Return the number in a row of the next ejection, after one of number ``count``.

        It grows no more when the time does not, so that it soon falls when the node is well.
        """
        return count + 1 if count * self._base < self._most + self._base else count

    def seconds(self, count: int) -> float:
        """Return how long the ejection of this number in a row lasts."""
        more = self._rng.uniform(0.0, self._jitter) if self._jitter else 0.0
        return min(self._base * count, self._most) + more


class Grid:
    """Grid of times at which sweeps are due: every ``interval`` seconds from ``origin`` on.

    Attributes:
        origin: The time of number 0, in seconds of the clock.
        interval: Seconds from one to the next, > 0.

    Example:
        >>> grid = Grid(100.0, 10.0)
        >>> grid.number(129.9), grid.time(3), grid.first_from(121.0)
        (2, 130.0, 3)
    """

    __slots__ = ("interval", "origin")

    def __init__(self, origin: float, interval: float) -> None:
        self.origin = origin
        self.interval = interval

    def time(self, number: int) -> float:
        """Return the time of a number."""
        return self.origin + number * self.interval

    def number(self, now: float) -> int:
        """Return the number of the last time up to ``now``."""
        return math.floor((now - self.origin) / self.interval)

    def first_from(self, when: float) -> int:
        """Return the number of the first time that is not before ``when``."""
        return math.ceil((when - self.origin) / self.interval)
