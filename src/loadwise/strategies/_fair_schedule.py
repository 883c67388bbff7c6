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

Who begins with a claim (picks that it is behind, or ahead where negative) has windows that are so
much earlier, or later. Claims are taken from their mean, so that windows and slots are as many.

Source: S. Baruah, N. Cohen, C. Plaxton and D. Varvel, "Proportionate progress: a notion of fairness
in resource allocation", Algorithmica 15, 1996.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import fsum, inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FairSchedule"]

_AHEAD = 64

_Position = tuple[int, list[float], list[int | None], dict[int, int], dict[int, int], list[int]]
"""Position in a sequence.

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
        claims: How many picks each of ``eligible`` is behind its share; ``None`` for none.

    Thread-safety: none; for one thread at a time. Cost: O(n) to build, O(log n) per pick.
    """

    __slots__ = ("_claims", "_eligible", "_mean", "_periods", "_position")

    def __init__(
        self,
        eligible: Sequence[int],
        weights: Sequence[int | float],
        claims: Sequence[float] | None = None,
    ) -> None:
        largest = max(weights[i] for i in eligible)
        shares = {i: weights[i] / largest for i in eligible}
        # Exactly, so that it takes some 2^52 picks until rounding leaves a slot to nobody.
        total = fsum(shares.values())
        self._eligible = eligible
        self._periods = [inf] * len(weights)  # whose period is infinite never has a turn
        for i, share in shares.items():
            if share:
                self._periods[i] = total / share
        self._claims = [0.0] * len(weights)
        self._mean = 0.0
        if claims is not None:
            self._mean = fsum(claims) / len(eligible)
            for i, claim in zip(eligible, claims, strict=True):
                self._claims[i] = claim - self._mean
        self._position: _Position | None = self._begin()

    def _begin(self) -> _Position:
        following: list[int | None] = [None] * len(self._periods)
        # Floats are quicker to multiply with floats, and whole ones are exact up to 2^53.
        picks = [1.0] * len(following)
        due: dict[int, int] = {}
        released: dict[int, int] = {}
        for index in reversed(range(len(following))):
            period, claim = self._periods[index], self._claims[index]
            if period == inf:
                continue
            lists, picks[index] = due, 1.0 - claim
            slot = int(picks[index] * period)
            if claim < 0 and int(-claim * period):
                lists, picks[index] = released, -claim
                slot = int(-claim * period)
            following[index] = lists.get(slot)
            lists[slot] = index
        return 0, picks, following, due, released, sorted(due)

    def chunk(self) -> list[int]:
        """Return the next 64 indices, in order."""
        # Ctrl-C in the middle leaves the lists broken, so after one it begins again.
        start, picks, following, due, released, deadlines = self._position or self._begin()
        self._position = None
        periods = self._periods
        chosen: list[int] = []
        for slot in range(start + 1, start + 1 + _AHEAD):
            if not deadlines:  # periods are rounded: whoever comes next comes early
                released[slot - 1] = released.pop(min(released))
                _release(slot - 1, periods, picks, following, due, released, deadlines)
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
            if slot in released:
                _release(slot, periods, picks, following, due, released, deadlines)
        self._position = start + _AHEAD, picks, following, due, released, deadlines
        return chosen

    def claims(self) -> list[float]:
        """Return how many picks each eligible node is behind its share by now. O(n)."""
        slot, picks, following, _, released, _ = self._position or self._begin()
        behind = [slot / period - pick for period, pick in zip(self._periods, picks, strict=True)]
        waiting = [False] * len(behind)
        for first in released.values():
            index: int | None = first
            while index is not None:
                waiting[index] = True
                index = following[index]
        # The pick that one who is released will have is counted among its picks.
        return [behind[i] + self._mean + (not waiting[i]) for i in self._eligible]


def _release(
    slot: int,
    periods: list[float],
    picks: list[float],
    following: list[int | None],
    due: dict[int, int],
    released: dict[int, int],
    deadlines: list[int],
) -> None:
    """Have those who may be served from ``slot`` on wait for their next turn."""
    index: int | None = released.pop(slot)
    while index is not None:
        after = following[index]
        picks[index] = pick = picks[index] + 1.0
        deadline = int(pick * periods[index])
        following[index] = other = due.get(deadline)
        due[deadline] = index
        if other is None:
            heappush(deadlines, deadline)
        index = after
