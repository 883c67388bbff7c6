"""Load as expected waiting: a moving average of latency that follows peaks at once.

An average of latencies tells too late that a node has become slow. This one jumps to a peak and
comes down from it gently, so one slow answer is enough to turn traffic away, and it takes several
fast ones, or time, to win it back.

A node that hangs gives no answers to learn from. So the age of what it has not answered yet is news
as well: the load is never below it.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from math import exp, inf, log
from threading import RLock
from typing import Final
from weakref import WeakValueDictionary

from loadwise._fork import ForkAware, reset_in_child
from loadwise._gil import HAS_GIL
from loadwise._native import mypyc_attr
from loadwise._numbers import finite
from loadwise.clock import Clock, check_clock
from loadwise.load._gauge import (
    GIVEN_UP,
    MEASURED,
    TOO_QUICK,
    UNMEASURED,
    UNMEASURED_PENALTY,
    EwmaCell,
    Gauge,
    oldest_waiting,
    weights_after,
)
from loadwise.load._measure import Cell
from loadwise.outcome import Outcome

__all__ = ["PeakEwma"]

_SUCCESS: Final = Outcome.SUCCESS
_FAILURE: Final = Outcome.FAILURE
_CANCELLED: Final = Outcome.CANCELLED
# What a latency of 0 counts as: the clock is too coarse to tell, and a cost of 0 would hide
# whatever is in flight.
_ONE_TICK: Final = 0.001
# What is left of a cost at least, lest a load with requests in flight come to 0.
_LEAST_KEPT: Final = 1e-280
# Whether samples go without a lock: see PeakEwma.observe.
_LOCK_FREE: Final = HAS_GIL


@mypyc_attr(allow_interpreted_subclasses=True)
class PeakEwma(ForkAware):
    """Load as ``cost * (in flight + 1)``, or the age of the oldest request in flight if higher.

    Use it where nodes or requests differ in speed. The cost is a peak-sensitive moving average of
    latency. A latency above the cost becomes the cost; a lower one pulls it down with weight
    ``1 - exp(-dt / tau)`` for the dt seconds since the last sample. Between samples the cost decays
    by ``exp(-dt / tau)``, so a node that was slow once is tried again.

    A request ages until its first byte, which is its end unless `Lease.first_byte` tells sooner. So
    a node that stops answering is left alone as soon as it is later than the others.

    A node never measured is taken for idle until a first request is in flight there; then it
    carries a large penalty until that one is answered: probed once, not flooded.

    Args:
        tau: Seconds in which a peak fades to 1/e; finite and > 0. It sets how soon a node that was
            slow is tried again, and need not fit the number of clients.
        failure_factor: What a failure multiplies the cost by, at least; finite and >= 1. Without
            it a node that fails fast looks fast.
        clock: Source of monotonic seconds; ``None`` for that of the Balancer that feeds it.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: ``tau`` or ``failure_factor`` is out of range.

    A node that is found UNHEALTHY is forgotten, and comes back like one never measured.

    A cancelled request that was under way for longer than the cost raises the cost to that time;
    otherwise it leaves it as it is, as a rate-limited one does.

    A latency of 0 tells of a coarse clock. A node that has shown no other costs 0 while it is idle;
    with requests in flight, and beside other latencies, 0 counts as 1 ms. A clock that steps back
    is taken for one that stood still for a moment, and goes on from there.

    Thread-safety: no sample and no request is lost, reads take no lock. In a forked child it
    starts from nothing.

    Cost: O(1) to read and to feed.

    Source: Finagle's PeakEwma load metric; tower's ``load::PeakEwma``; for the age, ServiceTalk's
    ``DefaultRequestTracker``.

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
        # Whether it asks its clock, because what it is told may be of another one.
        self._asks = clock is not None
        # Its own time is the clock's, plus what the clock has gone back by, so it never goes back.
        # The bound is the latest moment for as long as nothing is to be added, nor the clock to be
        # asked; then it is infinity, and the moment is kept beside it. So the usual case is told
        # by one comparison.
        self._bound = inf if self._asks else -inf
        self._latest = -inf
        self._skew = 0.0
        self._after_fork()
        reset_in_child(self)

    def _after_fork(self) -> None:
        self._lock = RLock()
        self._cells: WeakValueDictionary[Hashable, EwmaCell] = WeakValueDictionary()

    @property
    def clock(self) -> Clock:
        """The clock that it takes the time from."""
        return self._clock

    @property
    def settings(self) -> tuple[float, float]:
        """Its ``tau`` and ``failure_factor``."""
        return self._tau, self._failure_factor

    def use_clock(self, clock: Clock) -> None:
        """Take the time from ``clock``, unless there is a clock by now.

        The first balancer's stays; one that goes by another clock refuses the measure.
        """
        if not self._clock_given:
            self._clock_given = True
            self._clock = clock

    def cell(self, node_id: Hashable) -> EwmaCell:
        """Return the entry of one node."""
        with self._lock:
            return self._cells.setdefault(node_id, EwmaCell())

    def _now(self) -> float:
        """Return its own time."""
        now = self._clock()
        if now >= self._bound:
            self._bound = now
            return now
        return self._placed(now)

    def _placed(self, moment: float) -> float:
        """Return a reading of a clock, of a moment ago at most, in its own time.

        A thread may hand in what it read before another one did, so the clock is asked again: what
        it says after the latest moment became known is before it only if the clock has gone back.
        """
        latest = self._bound
        if latest < inf:
            now = self._clock()
            if not now < latest:
                return moment if moment < latest else now
            self._latest, self._skew = latest, latest - now
            self._bound = inf
            return latest
        if self._asks:
            moment = self._clock()
        latest, skew = self._latest, self._skew
        moment += skew
        if moment >= latest:
            self._latest = moment
            return moment
        now = self._clock() + skew
        if not now < latest:
            return moment if moment < latest else now
        self._skew = skew + (latest - now)
        return latest

    def _faded(self, gauge: Gauge, now: float) -> float:
        """Return the cost as of ``now``."""
        # The cost is read before the time: see Gauge.
        cost, stamp = gauge.cost, gauge.stamp
        return cost * max(exp((stamp - now) / self._tau), _LEAST_KEPT) if now > stamp else cost

    def cost(self, cell: Cell) -> float | None:
        """Return the present cost in seconds, or ``None`` for a node never measured."""
        measured: EwmaCell = cell  # type: ignore[assignment]  # as made by cell()
        gauge = measured.gauge
        if gauge.weights is UNMEASURED:
            return None
        return 0.0 if gauge.weights is TOO_QUICK else self._faded(gauge, self._now())

    def load(self, cell: Cell) -> float:
        """Return ``cost * (in flight + 1)`` or the age of the oldest request, in seconds."""
        measured: EwmaCell = cell  # type: ignore[assignment]  # as made by cell()
        gauge = measured.gauge
        pending = len(cell)
        weights = gauge.weights
        now = self._now()
        if weights is UNMEASURED or weights is (GIVEN_UP if pending else TOO_QUICK):
            load = UNMEASURED_PENALTY * pending
        else:
            load = self._faded(gauge, now) * (pending + 1)
        age = now - oldest_waiting(measured)
        return age if age > load else load  # noqa: FURB136 - a load that is no number stays

    @staticmethod
    def rank(cell: EwmaCell) -> float:
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
            if gauge.weights is UNMEASURED or gauge.weights is GIVEN_UP:
                return gauge.score + UNMEASURED_PENALTY * pending
            return gauge.score + log(pending + 1)

    def aged_rank(self, cell: EwmaCell, rank: float) -> float:
        """Return the rank with regard to the age of requests, from that without."""
        try:
            for oldest in cell.waiting.values():  # noqa: B007 - it is used below
                break
            else:
                return rank
        except RuntimeError:
            oldest = oldest_waiting(cell)
        now = self._clock()  # as _now does it, with a call less
        if now >= self._bound:
            self._bound = now
        else:
            now = self._placed(now)
        if now <= oldest:
            return rank
        aged = log(now - oldest) + now / self._tau
        return aged if aged > rank else rank  # noqa: FURB136 - a rank that is no number stays

    def prefers(self, first: EwmaCell, second: EwmaCell) -> bool:
        """Return whether the load of the first is at most that of the second.

        An age can but raise a load. So the ranks are compared without it, and nobody asks what time
        it is unless something is waiting where the rank is the lower.
        """
        gauge, rival = first.gauge, second.gauge
        try:
            one = gauge.score + gauge.weights[len(first)]
            other = rival.score + rival.weights[len(second)]
        except IndexError:
            one, other = self.rank(first), self.rank(second)
        if one <= other:
            if not first.waiting:
                return True
            one = self.aged_rank(first, one)
            if one > other:
                other = self.aged_rank(second, other)
        elif second.waiting:
            other = self.aged_rank(second, other)
            if other > one:
                one = self.aged_rank(first, one)
        return one <= other or other != other  # noqa: PLR0124 - only NaN differs from itself

    def pending(self, cell: Cell) -> int:
        """Return a node's requests in flight."""
        return len(cell)

    def has_waiting(self, cell: EwmaCell) -> bool:
        """Tell whether any request has no first byte yet."""
        return bool(cell.waiting)

    def begin(self, cell: EwmaCell, token: int, started: float) -> None:
        """Let a request age from ``started`` on, until its ``token`` is taken from `waiting`."""
        if started >= self._bound:
            self._bound = started
        else:
            started = self._placed(started)
        cell.waiting[token] = started

    @staticmethod
    def waiting(cell: Cell) -> dict[int, float]:
        """Return the requests that age on a node: when each began, by its token."""
        measured: EwmaCell = cell  # type: ignore[assignment]  # as made by cell()
        return measured.waiting

    def observe(self, cell: Cell, latency: float, outcome: Outcome, now: float) -> None:
        """Take a sample, if the outcome tells how fast the node is."""
        measured: EwmaCell = cell  # type: ignore[assignment]  # as made by cell()
        gauge = measured.gauge
        if now >= self._bound:
            self._bound = now
            if outcome is _SUCCESS and gauge.weights is MEASURED and latency > 0.0 and _LOCK_FREE:
                # As _sample does it, with a call less for what nearly all samples are.
                cost, before = gauge.cost, gauge.score
                mean = latency
                if latency <= cost:
                    mean += (cost - latency) * exp((gauge.stamp - now) / self._tau)
                score = log(mean) + now / self._tau
                # Another thread's sample is told by the score, which both time and cost are in.
                if gauge.score == before:
                    gauge.stamp = now
                    gauge.cost = mean
                    gauge.score = score
                    return
        else:
            now = self._placed(now)
        if (outcome is not _SUCCESS and outcome is not _FAILURE) and (
            outcome is not _CANCELLED or not latency > 0.0
        ):
            return
        if _LOCK_FREE:
            # A lock would have threads queue for it: one that is suspended while it holds it stops
            # all that want the same, and each hand-over costs far more than a sample.
            while not self._sample(gauge, latency, outcome, now):
                pass
        else:
            with measured.lock:
                self._sample(gauge, latency, outcome, now)

    def _sample(self, gauge: Gauge, latency: float, outcome: Outcome, now: float) -> bool:
        """Work a sample in, unless another thread was quicker; return whether it was done."""
        cost, stamp, weights = gauge.cost, gauge.stamp, gauge.weights
        following = weights_after(weights, latency, outcome)
        if latency <= 0.0:
            latency = _ONE_TICK
        if weights is not UNMEASURED:
            # What is left of the cost; all of it where two threads' samples cross.
            kept = exp((stamp - now) / self._tau) if now > stamp else 1.0
            if outcome is _SUCCESS:
                if latency <= cost:
                    latency += (cost - latency) * kept
            elif outcome is _FAILURE:
                latency = max(latency, cost * kept * self._failure_factor)
            elif latency <= cost * kept:
                return True
        score = log(latency) + now / self._tau
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
        gauge.weights = following
        return True

    def forget(self, cell: Cell) -> None:
        """Take a node for never measured: what was known of it holds no more.

        A Balancer does so with a node that is found UNHEALTHY. Otherwise the cost of its failures
        would keep the strategy from it long after its probe is due.
        """
        measured: EwmaCell = cell  # type: ignore[assignment]  # as made by cell()
        gauge = measured.gauge
        with measured.lock:
            # Nothing is called here either: see _sample. The cost stays for who is reading it now.
            gauge.weights = UNMEASURED
            gauge.score = 0.0
