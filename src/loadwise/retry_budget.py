"""A budget for retries, so that they cannot turn a failure into a storm.

When every client retries what fails, an overloaded fleet is given a multiple of the load that
overloaded it. A budget lets retries be only a share of the requests there are anyway: an odd
failure is retried, a general one is not.
"""

from __future__ import annotations

import time
from threading import RLock

from loadwise._fork import ForkAware, reset_in_child
from loadwise._numbers import finite
from loadwise.clock import Clock, check_clock
from loadwise.quota.config import QuotaDimension
from loadwise.quota.window import SlidingWindow

__all__ = ["RetryBudget"]

_RESOLUTION = 10
_MOST_BUCKETS = _RESOLUTION + 2


class RetryBudget(ForkAware):
    """Allows retries up to a share of the recent requests, plus a floor.

    Args:
        ratio: Retries per request, finite and >= 0; 0.2 allows one retry for five requests.
        floor: Retries per second that are always allowed, finite and >= 0, so that a client with
            few requests may retry at all.
        window: Seconds of requests that are remembered, finite and > 0.
        clock: Source of monotonic seconds.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range.

    Thread-safety: a lock. In a forked child it goes on with a copy of its own.

    Cost: O(1) for each method.

    Source: Finagle's ``RetryBudget``, here over a window that slides by tenths.

    Example:
        >>> budget = RetryBudget(ratio=0.5, floor=0.0)
        >>> for _ in range(4):
        ...     budget.deposit()
        >>> [budget.try_withdraw() for _ in range(3)]
        [True, True, False]
    """

    def __init__(
        self,
        ratio: float = 0.2,
        floor: float = 10.0,
        window: float = 10.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self._ratio = finite("ratio", ratio)
        least = finite("floor", floor)
        for name, value, plain in (("ratio", ratio, self._ratio), ("floor", floor, least)):
            if not plain >= 0:
                raise ValueError(f"{name} is {value!r}; it must be finite and at least 0")
        seconds = finite("window", window)
        if not seconds > 0:
            raise ValueError(f"window is {window!r}; it must be a finite number of seconds above 0")
        check_clock(clock)
        self._reserve = least * seconds
        self._clock = clock
        # The limit of these windows is not used: they only count.
        self._requests = SlidingWindow(
            QuotaDimension("requests", 1, seconds, resolution=_RESOLUTION)
        )
        self._retries = SlidingWindow(QuotaDimension("retries", 1, seconds, resolution=_RESOLUTION))
        self._after_fork()
        reset_in_child(self)

    def _after_fork(self) -> None:
        self._lock = RLock()

    def deposit(self) -> None:
        """Count a request that is not a retry."""
        with self._lock:
            now = self._clock()
            self._requests.charge(1, now)
            # Forgetting what is old can wait until there is more of it than ever counts.
            if len(self._requests.buckets) > _MOST_BUCKETS:
                self._requests.slide(now)

    def try_withdraw(self) -> bool:
        """Count a retry if the budget allows it, and return whether it does."""
        with self._lock:
            now = self._slide()
            if self._left() < 1:
                return False
            self._retries.charge(1, now)
            return True

    def balance(self) -> float:
        """Return how many retries are allowed now."""
        with self._lock:
            self._slide()
            return max(0.0, self._left())

    def _left(self) -> float:
        return self._reserve + self._ratio * self._requests.used - self._retries.used

    def _slide(self) -> float:
        now = self._clock()
        self._requests.slide(now)
        self._retries.slide(now)
        return now
