"""A clock that goes when told."""

from __future__ import annotations

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

    def __call__(self) -> float:
        """Return the present reading, in seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Raises:
            ValueError: ``seconds`` is negative, NaN or infinite: monotonic clocks never go back.
        """
        step = finite("seconds", seconds)
        if not step >= 0:
            raise ValueError(f"seconds is {seconds!r}; it must be finite and at least 0")
        self.now += step
