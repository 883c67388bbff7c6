"""Deadlines of requests, by the balancer's clock."""

from __future__ import annotations

from math import inf

from loadwise.clock import Clock

__all__ = ["Deadline"]


class Deadline:
    """Moment by which a request has to end, if there is one.

    Args:
        clock: The balancer's clock.
        ends: The moment; ``None`` without one.

    Attributes:
        clock: The balancer's clock.
        ends: The moment; ``None`` without one.
    """

    __slots__ = ("clock", "ends")

    def __init__(self, clock: Clock, ends: float | None) -> None:
        self.clock = clock
        self.ends = ends

    def seconds_left(self) -> float:
        """Return the seconds until then; infinite without a deadline."""
        return inf if self.ends is None else self.ends - self.clock()

    @property
    def has_passed(self) -> bool:
        """True if no time is left."""
        return self.ends is not None and self.ends <= self.clock()
