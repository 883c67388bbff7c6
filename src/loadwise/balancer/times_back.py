"""Times when nodes that cannot be given now are back, remembered from request to request."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from heapq import heapify, heapreplace
from typing import Final

from loadwise.quota import QuotaSource, QuotaTracker

__all__ = ["NEVER", "Cost", "Journal", "Waits", "cost_of", "journal_of"]

Ask = Callable[[int], float]
Cost = frozenset[tuple[str, float]]

NEVER: Final = math.inf


class Journal:
    """Journal of nodes that may have got room, or lost it, by more than time and reservations.

    Args:
        quota: Whose changes it tells.

    Immutable, so thread-safe.
    """

    __slots__ = ("_quota",)

    def __init__(self, quota: QuotaTracker) -> None:
        self._quota = quota

    @property
    def mark(self) -> int:
        """Position at which it stands now."""
        return self._quota.changes

    def since(self, mark: int) -> tuple[int, list[Hashable] | None]:
        """Return where it stands, and whose changes it got since; ``None`` for too many."""
        return self._quota.changed_since(mark)


def journal_of(quota: QuotaSource) -> Journal | None:
    """Return what tells of a source's changes; ``None`` for a source that does not tell.

    A subclass may answer from elsewhere, so it does not count as one that tells.
    """
    return Journal(quota) if type(quota) is QuotaTracker else None


def cost_of(amounts: Mapping[str, float]) -> Cost | None:
    """Return a cost as a key to remember things by; ``None`` if it cannot be one."""
    try:
        return frozenset(amounts.items())
    except TypeError:
        return None


class Waits:
    """Times at which some nodes are back, by index, as they were when last asked for.

    Args:
        times: The times, in seconds of the clock; not to be changed any more.
        mark: Where the journal stood before they were asked for.
        first: Index of the earliest, where it is known.

    Attributes:
        due: The earliest of them.

    A reservation only ever makes a node wait longer. So an earliest time that is still the same
    when asked for again is the earliest of all.

    Immutable, so thread-safe. O(n) to make.
    """

    __slots__ = ("_first", "due", "mark", "times")

    def __init__(self, times: dict[int, float], mark: int, first: int | None = None) -> None:
        self.times = times
        self.mark = mark
        self._first = min(times, key=times.__getitem__, default=-1) if first is None else first
        self.due = times[self._first] if times else NEVER

    @staticmethod
    def asked(indices: Iterable[int], ask: Ask, mark: int) -> Waits:
        """Return the times of these nodes. O(n)."""
        return Waits({index: ask(index) for index in indices}, mark)

    def fresh(
        self, journal: Journal, index_of: Callable[[Hashable], int | None], ask: Ask
    ) -> Waits:
        """Return the times with those that a change may have made earlier. O(changes) without any.

        Args:
            journal: Tells of changes.
            index_of: Gives a node's index.
            ask: Gives the time of a node.
        """
        if journal.mark == self.mark:
            return self
        mark, ids = journal.since(self.mark)
        if ids is None:
            return Waits.asked(self.times, ask, mark)
        found = {index_of(identity) for identity in ids}
        changed = {i: ask(i) for i in found if i is not None and i in self.times}
        if all(self.times[i] == at for i, at in changed.items()):
            return Waits(self.times, mark, self._first)
        return Waits({**self.times, **changed}, mark)

    def settled(self, now: float, ask: Ask) -> Waits:
        """Return the times with the earliest of them brought up to date. O(1) if it holds."""
        if not self.times or self.due <= now:
            return self
        at = ask(self._first)
        if at == self.due or at <= now:
            return self if at == self.due else Waits({**self.times, self._first: at}, self.mark)
        times = dict(self.times)
        queue = [(at, index) for index, at in times.items()]
        heapify(queue)
        asked: set[int] = set()
        while queue[0][1] not in asked:
            index = queue[0][1]
            asked.add(index)
            times[index] = at = ask(index)
            heapreplace(queue, (at, index))
        return Waits(times, self.mark)
