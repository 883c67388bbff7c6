"""Proportionate fair scheduling, for weights that no short cycle can express.

Each pick is one slot of service. The node with weight w of a total W deserves a slot every
``period = W / w``: its pick number p (from 0) has the *window* from slot ``floor(p * period)``, its
release, until before slot ``floor((p + 1) * period)``, its deadline. Of all that are released, the
one with the earliest deadline is served. That meets every deadline, because within any T slots lie
at most T windows. Without releases a heavy node would run ahead in a burst; with releases and
deadlines, no node is ever more than one pick from its proportional share.

A node's next release is the deadline of the pick before, and both are whole slots. So nodes are
kept in linked lists, one for each slot in which some are released and one for each deadline that
some have, and only the deadlines are in a heap. With one node to a list of its own that is still a
heap of plain ints, which is what makes large fleets quick.

Who comes when depends on nothing but the weights, so the sequence is laid out some picks ahead: the
lock is taken and everything is fetched once for all of them.

Source: S. Baruah, N. Cohen, C. Plaxton and D. Varvel, "Proportionate progress: a notion of fairness
in resource allocation", Algorithmica 15, 1996.
"""

from __future__ import annotations

from copy import copy
from heapq import heappop, heappush
from math import fsum, inf
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FairSchedule"]

_AHEAD = 64

_Position = tuple[int, list[float], list[int | None], dict[int, int], dict[int, int], list[int]]
"""How far a sequence is.

The slot that is next, and by index the number of picks with the next one and which node follows in
the list that this one is in; the first node of the lists of those released already, by deadline,
and of those that are not, by slot; and the heap of those deadlines.
"""


class FairSchedule:
    """An endless sequence of indices in proportion to their weights.

    Of nodes with the same deadline the one released last is served first, and of those released
    together the one that has waited longest.

    Args:
        eligible: Indices to choose from.
        weights: Weights by index, all of those in ``eligible`` positive and finite.

    Thread-safety: picks are popped off a list, which is atomic; a lock for every 64th, which lays
    out the next ones. Cost: O(n) to build, O(log n) amortised per pick.
    """

    __slots__ = ("_ahead", "_lock", "_periods", "_position")

    def __init__(self, eligible: Sequence[int], weights: Sequence[int | float]) -> None:
        largest = max(weights[i] for i in eligible)
        shares = {i: weights[i] / largest for i in eligible}
        # Exactly, so that it takes some 2^52 picks until rounding leaves a slot to nobody.
        total = fsum(shares.values())
        self._periods = [inf] * len(weights)  # whose period is infinite never has a turn
        for i, share in shares.items():
            if share:
                self._periods[i] = total / share
        self._position: _Position | None = self._begin()
        self._ahead: list[int] = []  # the last one first
        self._lock = Lock()

    def pick(self) -> int:
        """Return the next index."""
        while True:
            try:
                return self._ahead.pop()
            except IndexError:
                self._lay_out()

    def _begin(self) -> _Position:
        following: list[int | None] = [None] * len(self._periods)
        due: dict[int, int] = {}
        for index in reversed(range(len(following))):
            period = self._periods[index]
            if period < inf:
                deadline = int(period)
                following[index] = due.get(deadline)
                due[deadline] = index
        # Floats are quicker to multiply with floats, and whole ones are exact up to 2^53.
        return 0, [1.0] * len(following), following, due, {}, sorted(due)

    def _lay_out(self) -> None:
        with self._lock:
            if self._ahead:  # another thread was quicker
                return
            # Ctrl-C in the middle leaves the lists broken, so after one it begins anew.
            start, picks, following, due, released, deadlines = self._position or self._begin()
            self._position = None
            periods = self._periods
            chosen: list[int] = []
            for slot in range(start + 1, start + 1 + _AHEAD):
                deadline = deadlines[0]
                served = due[deadline]
                chosen.append(served)
                after = following[served]
                if after is None:
                    del due[heappop(deadlines)]
                else:
                    due[deadline] = after
                # Rounded periods may be missed by a slot. (max() would cost a call per pick.)
                if deadline < slot:  # noqa: PLR1730
                    deadline = slot
                following[served] = released.get(deadline)
                released[deadline] = served

                index = released.pop(slot, None)
                while index is not None:
                    after = following[index]
                    picks[index] = pick = picks[index] + 1.0
                    deadline = int(pick * periods[index])
                    following[index] = other = due.get(deadline)
                    due[deadline] = index
                    if other is None:
                        heappush(deadlines, deadline)
                    index = after
            self._position = start + _AHEAD, picks, following, due, released, deadlines
            chosen.reverse()
            self._ahead.extend(chosen)

    def copy(self) -> FairSchedule:
        """Return a schedule that goes on from here on its own. O(n)."""
        twin = FairSchedule.__new__(FairSchedule)
        with self._lock:
            # Others may pick meanwhile, but lay out nothing: the rest fits whatever is left ahead.
            ahead, position = self._ahead.copy(), self._position or self._begin()
            slot, *tables = position
            own = {"_ahead": ahead, "_position": (slot, *map(copy, tables))}
        for name, value in {**own, "_periods": self._periods, "_lock": Lock()}.items():
            setattr(twin, name, value)
        return twin
