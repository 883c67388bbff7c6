"""Counts of the last minute, kept in buckets of a few seconds.

A bucket is begun by the first result after the one before is over. So no result of a bucket is
more than its width younger than its beginning, and a node without requests costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

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
        earlier: How many requests had ended well before.
        failures: How many failed; whoever adds to it holds a lock.
    """

    __slots__ = ("began", "earlier", "failures")

    def __init__(self, began: float, earlier: int) -> None:
        self.began = began
        self.earlier = earlier
        self.failures = 0


def sums(buckets: Iterable[Bucket], successes: int, now: float) -> tuple[int, int]:
    """Return the successes and failures of the last `WINDOW` seconds, and a little more.

    All results of the window are counted, and none that is more than `WINDOW` + `WIDTH` old.

    Args:
        buckets: The counts of the last minute, the newest last.
        successes: How many requests have ever ended well.
        now: The time, by the balancer's clock.

    Example:
        >>> buckets = [Bucket(10.0, 0), Bucket(20.0, 1)]
        >>> sums(buckets, 3, 79.9), sums(buckets, 3, 80.1), sums(buckets, 3, 90.0)
        ((3, 0), (2, 0), (0, 0))
    """
    within = [bucket for bucket in buckets if bucket.began + WIDTH > now - WINDOW]
    return (
        successes - within[0].earlier if within else 0,
        sum(bucket.failures for bucket in within),
    )
