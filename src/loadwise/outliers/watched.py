"""Member of a fleet as outlier detection sees it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import count
from typing import Any, Protocol

from loadwise._counter import upcoming
from loadwise.load import Cell
from loadwise.outcome import Outcome
from loadwise.outliers.ejection import Ejection
from loadwise.outliers.rules import Sample
from loadwise.outliers.sharing import SharedResults

__all__ = ["EjectorMember", "WatchedMember"]

Observers = tuple[tuple[Callable[[Any, float, Outcome, float], None], Cell], ...]


class EjectorMember(Protocol):
    """Member of a balancer, as far as outlier detection knows it."""

    id: Hashable
    alive: bool
    successes: count[int]
    observers: Observers
    latency: float | None
    succeeded_at: float | None


class WatchedMember:
    """Record of one member: its results since the last sweep, and its ejections.

    Attributes:
        member: The member; another one, where a node has left and come back.
        failures: How many of its requests have failed since the last sweep.
        run: How many in a row.
        before: Its results in the interval before the last sweep.
        ejection: Why and until when it is ejected; ``None`` if it is not.
        is_told: Whether the health tracker knows of the ejection.
        count: How many ejections it has had in a row, less one for each interval that it was well.
        returned: The number of the sweep at which it was back from the last, or would have been;
            ``None`` while that is to be found out.
        slow: An entry for each slow answer since the last sweep.
        shared: Its results in other processes; ``None`` where they are not shared.
        judges: Which processes had any in the interval before the last sweep, as bits.

    Not thread-safe: the ejector holds a lock.
    """

    __slots__ = (
        "_seen",
        "_seen_at_failure",
        "before",
        "count",
        "ejection",
        "failures",
        "is_told",
        "judges",
        "member",
        "returned",
        "run",
        "shared",
        "slow",
    )

    def __init__(self, member: EjectorMember, shared: SharedResults | None = None) -> None:
        self.member = member
        self.shared = shared
        self.judges = 0
        self.failures = self.run = self.count = 0
        self.before = Sample(0, 0)
        self.ejection: Ejection | None = None
        self.is_told = False
        self.returned: int | None = None
        self.slow: Cell | None = None
        # Its successes ever, as of the last sweep and as of its last failure.
        self._seen = self._seen_at_failure = 0

    def fail(self) -> None:
        """Count a failure. It begins a new run if there was a success since the one before."""
        self.failures += 1
        successes = upcoming(self.member.successes)
        self.run = self.run + 1 if successes == self._seen_at_failure else 1
        self._seen_at_failure = successes

    def results(self) -> Sample:
        """Return its results since the last sweep."""
        good = upcoming(self.member.successes) - self._seen
        return Sample(good, self.failures, 0 if self.slow is None else len(self.slow))

    def take(self) -> Sample:
        """Return its results since the last sweep, and begin the next interval.

        Where they are shared, those are in that other processes have told since.
        """
        taken = self.results()
        self._seen += taken.good
        self.failures = 0
        if self.slow is not None:
            del self.slow[: taken.slow]
        if self.shared is not None:
            others, self.judges = self.shared.pool(taken)
            taken = Sample(*map(sum, zip(taken, others, strict=True)))
        self.before = taken
        return taken

    def forget(self) -> None:
        """Have all results so far count for nothing."""
        self.take()
        self.before, self.run = Sample(0, 0), 0

    def adopt(self, member: EjectorMember) -> None:
        """Go on as the same node with nothing counted, for the child of a fork."""
        self.member = member
        self.failures = self.run = self._seen = self._seen_at_failure = 0
        self.slow = None
