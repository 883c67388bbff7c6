"""Worst-case-fair weighted scheduling, for weights that no short cycle can express.

Each pick is one slot of service. The node with weight w of a total W deserves a slot every
``period = W / w``; its pick number p (from 0) should not start before ``p * period`` and should be
done by ``(p + 1) * period``. WF2Q serves, among the nodes whose start has come, the one with the
earliest finish. Earliest-deadline-first without the start rule lets a heavy node run ahead in a
burst; with it, no node is ever as much as one pick ahead of its proportional share.

Who comes when depends on nothing but the weights, so the sequence is laid out some picks ahead: the
lock is taken and the heaps are fetched once for all of them.

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

_AHEAD = 64


class FairSchedule:
    """An endless sequence of indices in proportion to their weights.

    Args:
        eligible: Indices to choose from.
        weights: Weights by index, all of those in ``eligible`` positive and finite.

    Thread-safety: picks are popped off a list, which is atomic; a lock for every 64th, which lays
    out the next ones. Cost: O(n) to build, O(log n) amortised per pick.
    """

    __slots__ = ("_ahead", "_lock", "_periods", "_picks", "_ready", "_time", "_waiting")

    def __init__(self, eligible: Sequence[int], weights: Sequence[int | float]) -> None:
        largest = max(weights[i] for i in eligible)
        shares = {i: weights[i] / largest for i in eligible}
        total = sum(shares.values())
        self._periods = [inf] * len(weights)
        for i, share in shares.items():
            if share:
                self._periods[i] = total / share
        # Floats, like the time: exact up to 2^53, and quicker to multiply and compare with others.
        self._picks = [0.0] * len(weights)
        self._ready = [(self._periods[i], i) for i in eligible]
        heapify(self._ready)
        self._waiting: list[tuple[float, int]] = []
        self._time = 0.0
        self._ahead: list[int] = []  # the last one first
        self._lock = Lock()

    def pick(self) -> int:
        """Return the next index."""
        while True:
            try:
                return self._ahead.pop()
            except IndexError:
                self._lay_out()

    def _lay_out(self) -> None:
        with self._lock:
            if self._ahead:  # another thread was quicker
                return
            periods, picks, ready, waiting = self._periods, self._picks, self._ready, self._waiting
            chosen: list[int] = []
            now = self._time
            for _ in range(_AHEAD):
                while waiting and waiting[0][0] <= now:
                    _, index = heappop(waiting)
                    heappush(ready, ((picks[index] + 1.0) * periods[index], index))
                # Starts are rounded, so the one that is due may come out a hair after its slot.
                _, index = heappop(ready or waiting)
                picks[index] += 1.0
                heappush(waiting, (picks[index] * periods[index], index))
                chosen.append(index)
                now += 1.0
            self._time = now
            chosen.reverse()
            self._ahead.extend(chosen)

    def copy(self) -> FairSchedule:
        """Return a schedule that goes on from here on its own. O(n)."""
        twin = FairSchedule.__new__(FairSchedule)
        with self._lock:
            # Others may pick meanwhile, but lay out nothing: the rest fits whatever is left ahead.
            for name in ("_ahead", "_periods", "_picks", "_ready", "_waiting", "_time"):
                setattr(twin, name, copy(getattr(self, name)))
        twin._lock = Lock()  # noqa: SLF001 - building another instance of this class
        return twin
