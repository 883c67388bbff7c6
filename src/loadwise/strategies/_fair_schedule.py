"""Worst-case-fair weighted scheduling, for weights that no short cycle can express.

Each pick is one slot of service. The node with weight w of a total W deserves a slot every
``period = W / w``; its pick number p (from 0) should not start before ``p * period`` and should be
done by ``(p + 1) * period``. WF2Q serves, among the nodes whose start has come, the one with the
earliest finish. Earliest-deadline-first without the start rule lets a heavy node run ahead in a
burst; with it, no node is ever as much as one pick ahead of its proportional share.

Source: J. Bennett and H. Zhang, "WF2Q: Worst-case Fair Weighted Fair Queueing", INFOCOM 1996.
"""

from __future__ import annotations

from copy import copy
from heapq import heapify, heappop, heappush
from math import inf
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FairSchedule"]


class FairSchedule:
    """An endless sequence of indices in proportion to their weights.

    Args:
        eligible: Indices to choose from.
        weights: Weights by index, all of those in ``eligible`` positive and finite.

    Thread-safety: a lock. Cost: O(n) to build, O(log n) amortised per pick.
    """

    __slots__ = ("_lock", "_period", "_picks", "_ready", "_time", "_waiting")

    def __init__(self, eligible: Sequence[int], weights: Sequence[int | float]) -> None:
        largest = max(weights[i] for i in eligible)
        shares = {i: weights[i] / largest for i in eligible}
        total = sum(shares.values())
        self._period = {i: total / share if share else inf for i, share in shares.items()}
        self._picks = dict.fromkeys(eligible, 0)
        self._ready = [(period, i) for i, period in self._period.items()]
        heapify(self._ready)
        self._waiting: list[tuple[float, int]] = []
        self._time = 0
        self._lock = Lock()

    def pick(self) -> int:
        """Return the next index."""
        with self._lock:
            ready, waiting = self._ready, self._waiting
            while waiting and waiting[0][0] <= self._time:
                _, index = heappop(waiting)
                heappush(ready, ((self._picks[index] + 1) * self._period[index], index))
            # Starts are rounded, so the one that is due may come out a hair after its slot.
            _, index = heappop(ready or waiting)
            self._picks[index] += 1
            heappush(waiting, (self._picks[index] * self._period[index], index))
            self._time += 1
            return index

    def copy(self) -> FairSchedule:
        """Return a schedule that goes on from here on its own. O(n)."""
        twin = FairSchedule.__new__(FairSchedule)
        with self._lock:
            for name in ("_period", "_picks", "_ready", "_waiting", "_time"):
                setattr(twin, name, copy(getattr(self, name)))
        twin._lock = Lock()  # noqa: SLF001 - building another instance of this class
        return twin
