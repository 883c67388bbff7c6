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
    from loadwise.quota.protocol import Left

__all__ = ["SlidingWindow", "UsageBucket"]


class UsageBucket:
    """Use between two moments."""

    __slots__ = ("amount", "closes", "held", "last")

    def __init__(self, now: float, width: float) -> None:
        self.closes = now + width
        self.last = now
        self.amount: float = 0
        # How much of it is reserved by requests whose use is not known yet.
        self.held: float = 0


class SlidingWindow:
    """Use of the last ``window`` seconds. Not thread-safe: the tracker holds a lock.

    Cost: O(1) amortised to charge, O(resolution) to read.
    """

    __slots__ = ("_closed", "buckets", "dimension", "held", "reserved", "used")

    def __init__(self, dimension: QuotaDimension) -> None:
        self.dimension = dimension
        self.buckets: deque[UsageBucket] = deque()
        self.used: float = 0
        # What is reserved now, and all that ever was.
        self.held: float = 0
        self.reserved: float = 0
        # What the buckets hold that are closed: all but the last.
        self._closed: float = 0

    def slide(self, now: float) -> None:
        """Forget what has left the window."""
        buckets, window = self.buckets, self.dimension.window
        if buckets and buckets[0].last + window <= now:
            while buckets and buckets[0].last + window <= now:
                self.held = max(0, self.held - buckets[0].held)
                buckets.popleft().held = 0
            self.recount()

    def hold(self, amount: float, now: float) -> UsageBucket:
        """Add ``amount`` for a request whose use is not known yet, and return its bucket."""
        bucket = self.charge(amount, now)
        bucket.held += amount
        self.held += amount
        self.reserved += amount
        return bucket

    def let_go(self, bucket: UsageBucket, amount: float) -> None:
        """The use of a request is known that was held."""
        freed = min(amount, bucket.held)
        bucket.held -= freed
        self.held = max(0, self.held - freed)

    def correct(self, left: Left, unseen: float, now: float) -> None:
        """Let there be as much left as the upstream says.

        It may be less than was known, because others use it, too. It may be more, because estimates
        are careful; but what the upstream had not seen when it said so is still to come.

        Args:
            left: What the upstream says.
            unseen: How much of what was reserved here it may not have seen.
            now: The time.
        """
        limit, free = self.dimension.limit, self.dimension.limit - self.used
        if left.amount < free:
            self._charge_for(free - left.amount, left.reset, now)
        elif left.limit is None or left.limit <= limit:  # else this is a share of its limit
            self._give_back(min(left.amount, limit) - unseen - free)

    def _charge_for(self, amount: float, seconds: float | None, now: float) -> None:
        """Charge ``amount`` for some seconds, a window at most."""
        window = self.dimension.window
        bucket = UsageBucket(now - window + min(window, window if seconds is None else seconds), 0)
        bucket.amount = amount
        place = len(self.buckets)
        while place and self.buckets[place - 1].last > bucket.last:
            place -= 1
        self.buckets.insert(place, bucket)
        self.recount()

    def _give_back(self, amount: float) -> None:
        """Take away as much of what was used, the oldest first, and nothing of what is held."""
        for bucket in self.buckets:
            if amount <= 0:
                break
            part = max(0, min(amount, bucket.amount - bucket.held))
            bucket.amount -= part
            amount -= part
        self.recount()

    def recount(self) -> None:
        """Add up the buckets, always in the same order, so that sums can be foretold exactly."""
        amounts = [bucket.amount for bucket in self.buckets]
        self._closed = sum(amounts[:-1])
        self.used = _total(amounts)

    def fits(self, amount: float) -> bool:
        """Tell whether ``amount`` more stays within the limit."""
        return self.used + amount <= self.dimension.limit

    def charge(self, amount: float, now: float) -> UsageBucket:
        """Add ``amount``, and return the bucket that holds it."""
        buckets = self.buckets
        bucket = buckets[-1] if buckets else None
        if bucket is None or now >= bucket.closes:
            bucket = UsageBucket(now, self.dimension.window / self.dimension.resolution)
            buckets.append(bucket)
            self.recount()
        bucket.amount += amount
        # The clock may have gone back. A call of max would take as long as the rest of this.
        if now > bucket.last:  # noqa: PLR1730 - see above
            bucket.last = now
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
