"""Load as expected waiting: a moving average of latency that follows peaks at once.

An average of latencies tells too late that a node has become slow. This one jumps to a peak and
comes down from it gently, so one slow answer is enough to turn traffic away, and it takes several
fast ones, or time, to win it back.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from math import exp, inf, log
from threading import Lock
from typing import Final
from weakref import WeakValueDictionary

from loadwise._fork import ForkAware, reset_in_child
from loadwise._gil import HAS_GIL
from loadwise._native import mypyc_attr
from loadwise._numbers import finite
from loadwise.clock import Clock, check_clock
from loadwise.load._measure import Cell
from loadwise.outcome import Outcome

__all__ = ["PeakEwma"]

_SUCCESS: Final = Outcome.SUCCESS
_FAILURE: Final = Outcome.FAILURE
_UNMEASURED_PENALTY: Final = 1e100
_TABLED: Final = 256
# Whether samples go without a lock: see PeakEwma.observe.
_LOCK_FREE: Final = HAS_GIL
# What the requests in flight add to a rank, by their number.
_MEASURED: Final[list[float]] = [log(pending + 1) for pending in range(_TABLED)]
_UNMEASURED: Final[list[float]] = [-inf] + [
    _UNMEASURED_PENALTY * pending for pending in range(1, _TABLED)
]


class _Gauge:
    """What was measured of one node.

    The time is written before the cost and read after it: who reads in between sees the old cost
    as of now, which errs on the side of the peak.

    Attributes:
        cost: In seconds; 0 before the first sample.
        stamp: The time of the last sample.
        score: The logarithm of the cost that it would have had at time 0; see `PeakEwma.rank`.
        weights: What the requests in flight add to it, by their number; `_UNMEASURED` before the
            first sample.
    """

    # No more than four: with them it fills one line of the processor's cache.
    __slots__ = ("cost", "score", "stamp", "weights")

    def __init__(self) -> None:
        self.cost = 0.0
        self.stamp = 0.0
        self.score = 0.0
        self.weights = _UNMEASURED


@mypyc_attr(native_class=False)  # as a subclass of list must be
class _EwmaCell(Cell):
    """A counter with a gauge beside it, and a lock for samples where there is no GIL."""

    __slots__ = ("gauge", "lock")

    def __init__(self) -> None:
        super().__init__()
        self.gauge = _Gauge()
        self.lock = Lock()


@mypyc_attr(allow_interpreted_subclasses=True)
class PeakEwma(ForkAware):
    """Load as ``cost * (in flight + 1)``, the cost a peak-sensitive moving average of latency.

    Use it where nodes or requests differ in speed. A latency above the cost becomes the cost; a
    lower one pulls it down with weight ``1 - exp(-dt / tau)`` for the dt seconds since the last
    sample. Between samples the cost decays by ``exp(-dt / tau)``, so a node that was slow once is
    tried again. A node never measured is taken for idle until a first request is in flight there;
    then it carries a large penalty until that one is answered: probed once, not flooded.

    Args:
        tau: Seconds in which a peak fades to 1/e; finite and > 0.
        failure_factor: What a failure multiplies the cost by, at least; finite and >= 1. Without
            it a node that fails fast looks fast.
        clock: Source of monotonic seconds; ``None`` for that of the Balancer that feeds it.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: ``tau`` or ``failure_factor`` is out of range.

    A node that is found UNHEALTHY is forgotten, and comes back like one never measured.

    Rate-limited and cancelled requests leave the cost as it is: they tell nothing of how fast the
    node works.

    Thread-safety: no sample is lost, reads take no lock. In a forked child it begins anew.

    Cost: O(1) to read and to feed.

    Source: Finagle's PeakEwma load metric; tower's ``load::PeakEwma``.

    Example:
        >>> from loadwise import Balancer, PowerOfTwoChoices
        >>> balancer = Balancer(["a", "b"], PowerOfTwoChoices(load=PeakEwma(tau=5.0)))
        >>> with balancer.acquire() as lease:
        ...     lease.node in ("a", "b")
        True
    """

    def __init__(
        self,
        tau: float = 10.0,
        *,
        failure_factor: float = 2.0,
        clock: Clock | None = None,
    ) -> None:
        self._tau = finite("tau", tau)
        if not self._tau > 0:
            raise ValueError(f"tau is {tau!r}; it must be a finite number of seconds above 0")
        self._failure_factor = finite("failure_factor", failure_factor)
        if not self._failure_factor >= 1:
            raise ValueError(
                f"failure_factor is {failure_factor!r}; it must be a finite number, at least 1"
            )
        if clock is not None:
            check_clock(clock)
        self._clock_given = clock is not None
        self._clock: Clock = time.monotonic if clock is None else clock
        self._after_fork()
        reset_in_child(self)

    def _after_fork(self) -> None:
        self._lock = Lock()
        self._cells: WeakValueDictionary[Hashable, _EwmaCell] = WeakValueDictionary()

    @property
    def clock(self) -> Clock:
        """The clock that it takes the time from."""
        return self._clock

    def use_clock(self, clock: Clock) -> None:
        """Take the time from ``clock``, unless a clock was given at construction."""
        if not self._clock_given:
            self._clock = clock

    def cell(self, node_id: Hashable) -> _EwmaCell:
        """Return the entry of one node."""
        with self._lock:
            return self._cells.setdefault(node_id, _EwmaCell())

    def _fade(self, since: float, now: float) -> float:
        """Return what is left of a cost; all of it where a clock has gone back."""
        return 1.0 if now <= since else exp((since - now) / self._tau)

    def cost(self, cell: Cell) -> float | None:
        """Return the present cost in seconds, or ``None`` for a node never measured."""
        measured: _EwmaCell = cell  # type: ignore[assignment]  # as made by cell()
        gauge = measured.gauge
        if gauge.weights is _UNMEASURED:
            return None
        return gauge.cost * self._fade(gauge.stamp, self._clock())

    def load(self, cell: Cell) -> float:
        """Return ``cost * (in flight + 1)``, in seconds."""
        measured: _EwmaCell = cell  # type: ignore[assignment]  # as made by cell()
        gauge = measured.gauge
        pending = len(cell)
        if gauge.weights is _UNMEASURED:
            return _UNMEASURED_PENALTY * pending
        return gauge.cost * self._fade(gauge.stamp, self._clock()) * (pending + 1)

    @staticmethod
    def rank(cell: _EwmaCell) -> float:
        """Return a number that orders cells as their `load` does, without asking what time it is.

        All costs decay by the same factor, so which of two is higher does not depend on when one
        looks: it is settled by ``log(cost) + stamp / tau``, kept with each sample, and
        ``log(in flight + 1)``, from a table.
        """
        gauge = cell.gauge
        requests: list[None] = cell
        try:
            return gauge.score + gauge.weights[len(requests)]
        except IndexError:
            pending = len(requests)
            more = (
                _UNMEASURED_PENALTY * pending if gauge.weights is _UNMEASURED else log(pending + 1)
            )
            return gauge.score + more

    def observe(self, cell: Cell, latency: float, outcome: Outcome, now: float) -> None:
        """Take a sample, if the outcome tells how fast the node is."""
        if outcome is not _SUCCESS and outcome is not _FAILURE:
            return
        if self._clock_given:
            now = self._clock()
        measured: _EwmaCell = cell  # type: ignore[assignment]  # as made by cell()
        gauge = measured.gauge
        if _LOCK_FREE:
            # A lock would have threads queue for it: one that is suspended while it holds it stops
            # all that want the same, and each hand-over costs far more than a sample.
            while not self._sample(gauge, latency, outcome, now):
                pass
        else:
            with measured.lock:
                self._sample(gauge, latency, outcome, now)

    def _sample(self, gauge: _Gauge, latency: float, outcome: Outcome, now: float) -> bool:
        """Work a sample in, unless another thread was quicker; return whether it was done."""
        cost, stamp, weights = gauge.cost, gauge.stamp, gauge.weights
        if weights is _MEASURED:
            # What is left of the cost; all of it where a clock has gone back.
            kept = exp((stamp - now) / self._tau) if now > stamp else 1.0
            if outcome is _FAILURE:
                latency = max(latency, cost * kept * self._failure_factor)
            elif latency <= cost:
                latency += (cost - latency) * kept
        score = log(latency) + now / self._tau if latency > 0.0 else -inf
        # From here on nothing is called, so under the GIL no other thread comes in between.
        # (What is no number, by a broken clock, differs from itself; it is overwritten.)
        if (
            (gauge.cost != cost and cost == cost)  # noqa: PLR0124
            or (gauge.stamp != stamp and stamp == stamp)  # noqa: PLR0124
            or gauge.weights is not weights
        ):
            return False
        gauge.stamp = now
        gauge.cost = latency
        gauge.score = score
        gauge.weights = _MEASURED
        return True

    def forget(self, cell: Cell) -> None:
        """Take a node for never measured: what was known of it holds no more.

        A Balancer does so with a node that is found UNHEALTHY. Otherwise the cost of its failures
        would keep the strategy from it long after its probe is due.
        """
        measured: _EwmaCell = cell  # type: ignore[assignment]  # as made by cell()
        gauge = measured.gauge
        with measured.lock:
            # Nothing is called here either: see _sample. The cost stays for who is reading it now.
            gauge.weights = _UNMEASURED
            gauge.score = 0.0
