"""A window that slides, counted in buckets.

A bucket opens with the first use after the one before it closed, takes in use for
``window / resolution`` seconds, and is forgotten whole ``window`` seconds after its *last* use.
So nothing is forgotten early, and no stretch of ``window`` seconds, wherever it begins, holds more
than the limit; a calendar minute would allow twice that around its boundary.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadwise.quota.config import QuotaDimension

__all__ = ["Bucket", "SlidingWindow"]


class Bucket:
    """Use between two moments."""

    __slots__ = ("amount", "closes", "last")

    def __init__(self, now: float, width: float) -> None:
        self.closes = now + width
        self.last = now
        self.amount: float = 0


class SlidingWindow:
    """What was used in the last ``window`` seconds. Not thread-safe: the tracker holds a lock.

    Cost: O(1) amortised to charge, O(resolution) to read.
    """

    __slots__ = ("_closed", "buckets", "dimension", "used")

    def __init__(self, dimension: QuotaDimension) -> None:
        self.dimension = dimension
        self.buckets: deque[Bucket] = deque()
        self.used: float = 0
        # What the buckets hold that are closed: all but the last.
        self._closed: float = 0

    def slide(self, now: float) -> None:
        """Forget what has left the window."""
        buckets, window = self.buckets, self.dimension.window
        if buckets and buckets[0].last + window <= now:
            while buckets and buckets[0].last + window <= now:
                buckets.popleft()
            self.recount()

    def recount(self) -> None:
        """Add up the buckets, always in the same order, so that sums can be foretold exactly."""
        amounts = [bucket.amount for bucket in self.buckets]
        self._closed = sum(amounts[:-1])
        self.used = _total(amounts)

    def fits(self, amount: float) -> bool:
        """Whether ``amount`` more stays within the limit."""
        return self.used + amount <= self.dimension.limit

    def charge(self, amount: float, now: float) -> Bucket:
        """Add ``amount``, and return the bucket that holds it."""
        if self.buckets and now < self.buckets[-1].closes:
            bucket = self.buckets[-1]
        else:
            bucket = Bucket(now, self.dimension.window / self.dimension.resolution)
            self.buckets.append(bucket)
            self.recount()
        bucket.amount += amount
        bucket.last = max(bucket.last, now)  # the clock may have gone back
        self.used = self._closed + bucket.amount
        return bucket

    def free_at(self, amount: float, now: float) -> float:
        """Return when ``amount`` will fit if nothing more is used: ``now`` at best, inf never."""
        limit = self.dimension.limit
        if amount > limit:
            return inf
        if self.used + amount <= limit:
            return now
        amounts = [bucket.amount for bucket in self.buckets]
        for position, bucket in enumerate(self.buckets, start=1):
            if _total(amounts[position:]) + amount <= limit:
                return bucket.last + self.dimension.window
        return inf


def _total(amounts: list[float]) -> float:
    """Add up the amounts in buckets as `SlidingWindow.charge` does, the open one last."""
    return sum(amounts[:-1]) + amounts[-1] if amounts else 0
