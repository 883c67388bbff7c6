"""Virtual time: a queue of what happens next."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any

__all__ = ["Action", "Loop"]

Action = Callable[[Any], None]
"""Carried out at its time with one argument, whatever that is."""


class Loop:
    """Carries out actions at their times, in order; ties go by the order of planning.

    Not thread-safe. Cost: O(log n) per action, for n that are planned.

    Attributes:
        now: Seconds of virtual time.

    Example:
        >>> loop = Loop()
        >>> loop.at(2.0, print, "two")
        >>> loop.at(1.0, print, "one")
        >>> loop.advance(5.0)
        one
        two
        >>> loop.now
        5.0
    """

    __slots__ = ("_order", "_plan", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._plan: list[tuple[float, int, Action, object]] = []
        self._order = count()

    def clock(self) -> float:
        """Return the time, for whoever takes a clock."""
        return self.now

    def at(self, time: float, action: Action, argument: object) -> None:
        """Plan an action for a time that is not past."""
        heappush(self._plan, (time, next(self._order), action, argument))

    def advance(self, until: float) -> None:
        """Carry out what is planned up to a time, and go there."""
        plan = self._plan
        while plan and plan[0][0] <= until:
            self.now, _, action, argument = heappop(plan)
            action(argument)
        self.now = until

    def finish(self) -> None:
        """Carry out all that is planned and all that follows from it."""
        plan = self._plan
        while plan:
            self.now, _, action, argument = heappop(plan)
            action(argument)

    def withdraw(self, action: Action) -> list[tuple[float, Any]]:
        """Take back all that is planned of one action: times and arguments, in order. O(n)."""
        taken = sorted(entry for entry in self._plan if entry[2] == action)
        self._plan[:] = [entry for entry in self._plan if entry[2] != action]
        heapify(self._plan)
        return [(entry[0], entry[3]) for entry in taken]
