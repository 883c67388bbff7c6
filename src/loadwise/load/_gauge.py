"""Gauge of one node, for `PeakEwma`: its cost, and the requests that have no first byte yet."""

from __future__ import annotations

from math import inf, log
from threading import RLock
from typing import Final

from loadwise._native import mypyc_attr
from loadwise.load._measure import Cell
from loadwise.outcome import Outcome

__all__ = [
    "GIVEN_UP",
    "MEASURED",
    "TOO_QUICK",
    "UNMEASURED",
    "UNMEASURED_PENALTY",
    "EwmaCell",
    "Gauge",
    "oldest_waiting",
    "weights_after",
]

_SUCCESS: Final = Outcome.SUCCESS
_CANCELLED: Final = Outcome.CANCELLED
UNMEASURED_PENALTY: Final = 1e100
_TABLED: Final = 256
# What the requests in flight add to a rank, by their number.
MEASURED: Final[list[float]] = [log(pending + 1) for pending in range(_TABLED)]
UNMEASURED: Final[list[float]] = [-inf] + [
    UNMEASURED_PENALTY * pending for pending in range(1, _TABLED)
]
# Never measured, but given up by a caller: the time that this took is the cost while it is idle.
GIVEN_UP: Final[list[float]] = [0.0, *UNMEASURED[1:]]
# All answers have been too quick for the clock: idle it is free, and it costs a tick with each
# request in flight.
TOO_QUICK: Final[list[float]] = [-inf, *MEASURED[1:]]


class Gauge:
    """Measurements of one node.

    The time is written before the cost and read after it: who reads in between sees the old cost
    as of now, which errs on the side of the peak.

    Attributes:
        cost: In seconds; 0 before the first sample.
        stamp: The time of the last sample.
        score: The logarithm of the cost that it would have had at time 0; see `PeakEwma.rank`.
        weights: What the requests in flight add to it, by their number; `UNMEASURED` before the
            first sample.
    """

    # No more than four: with them it fills one line of the processor's cache.
    __slots__ = ("cost", "score", "stamp", "weights")

    def __init__(self) -> None:
        self.cost = 0.0
        self.stamp = 0.0
        self.score = 0.0
        self.weights = UNMEASURED


@mypyc_attr(native_class=False)  # as a subclass of list must be
class EwmaCell(Cell):
    """A counter with a gauge beside it, and a lock for samples where there is no GIL.

    Attributes:
        waiting: When each request that has no first byte yet began, by its token, the oldest first.
            To put something into a dict, and to take it out, is one step in C: it is done by one
            thread at a time, and Ctrl-C finds it done or not begun.
    """

    __slots__ = ("gauge", "lock", "waiting")

    def __init__(self) -> None:
        super().__init__()
        self.gauge = Gauge()
        self.lock = RLock()
        self.waiting: dict[int, float] = {}


def weights_after(weights: list[float], latency: float, outcome: Outcome) -> list[float]:
    """Return the weights of a node that had these before such a sample."""
    if outcome is _CANCELLED:
        return GIVEN_UP if weights is UNMEASURED or weights is GIVEN_UP else MEASURED
    if outcome is _SUCCESS and latency <= 0.0 and weights is not MEASURED:
        return MEASURED if weights is GIVEN_UP else TOO_QUICK
    return MEASURED


def oldest_waiting(cell: EwmaCell) -> float:
    """Return when the oldest request without a first byte began; infinity if there is none."""
    waiting = cell.waiting
    try:
        for oldest in waiting.values():
            return oldest
    except RuntimeError:
        # Without the GIL another thread came in between.
        return min(list(waiting.values()), default=inf)
    return inf
