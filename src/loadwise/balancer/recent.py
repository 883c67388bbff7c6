"""Counts of the last minute, kept in buckets of a few seconds.

A bucket is begun by the first result after the one before is over. So no result of a bucket is
more than its width younger than its beginning, and a node without requests costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import Final

from loadwise._counter import upcoming

__all__ = ["KEPT", "WIDTH", "WINDOW", "Bucket", "sums"]

WINDOW: Final = 60.0
"""Seconds that are always counted in full."""

WIDTH: Final = 10.0
"""Seconds of a bucket: so much more than the window may be counted."""

KEPT: Final = int(WINDOW / WIDTH) + 1
"""Buckets beside the newest that may be within the window."""


class Bucket:
    """Count of a node's results in a few seconds.

    Attributes:
        began: When, by the balancer's clock.
        successes: Counts requests that ended well.
        failures: How many failed; whoever adds to it holds a lock.

    Thread-safety: successes, by far the most, are counted exactly without a lock.
    """

    __slots__ = ("began", "failures", "successes")

    def __init__(self, began: float) -> None:
        self.began = began
        self.successes = count()
        self.failures = 0


def sums(buckets: Iterable[Bucket], now: float) -> tuple[int, int]:
    """Return the successes and failures of the last `WINDOW` seconds, and a little more.

    All results of the window are counted, and none that is more than `WINDOW` + `WIDTH` old.

    Example:
        >>> old, new = Bucket(10.0), Bucket(20.0)
        >>> [next(bucket.successes) for bucket in (old, new, new)]
        [0, 0, 1]
        >>> sums([old, new], 79.9), sums([old, new], 80.1), sums([old, new], 90.0)
        ((3, 0), (2, 0), (0, 0))
    """
    within = [bucket for bucket in buckets if bucket.began + WIDTH > now - WINDOW]
    return (
        sum(upcoming(bucket.successes) for bucket in within),
        sum(bucket.failures for bucket in within),
    )
