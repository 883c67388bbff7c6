"""A clock that goes when told."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakMethod

from loadwise._numbers import finite, number

__all__ = ["ManualClock"]


class ManualClock:
    """A clock that goes when told.

    Args:
        start: Its first reading, in seconds.

    Thread-safety: one thread may advance it while others read.

    Example:
        >>> from loadwise import HealthTracker
        >>> clock = ManualClock()
        >>> health = HealthTracker(clock=clock)
        >>> for _ in range(3):
        ...     health.report_failure("a")
        >>> health.should_probe("a")
        False
        >>> clock.advance(10.0)
        >>> health.should_probe("a")
        True
    """

    def __init__(self, start: float = 0.0) -> None:
        self.now = float(number("start", start))
        self._listeners: list[WeakMethod[Callable[[], None]]] = []

    def on_advance(self, listener: Callable[[], None]) -> None:
        """Have a bound method called after every `advance`, for as long as its object lives.

        With it whoever waits by this clock is woken: a balancer's ``acquire(timeout=...)`` is.
        """
        alive = [each for each in self._listeners if each() is not None]
        self._listeners = [*alive, WeakMethod(listener)]

    def __call__(self) -> float:
        """Return the present reading, in seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass, and wake those who wait for it.

        Raises:
            ValueError: ``seconds`` is negative, NaN or infinite: monotonic clocks never go back.
        """
        step = finite("seconds", seconds)
        if not step >= 0:
            raise ValueError(f"seconds is {seconds!r}; it must be finite and at least 0")
        self.now += step
        for each in self._listeners:
            listener = each()
            if listener is not None:
                listener()
