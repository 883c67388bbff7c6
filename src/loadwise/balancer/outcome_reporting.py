"""Reports of how requests ended, to loads, health, probes and metrics."""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Collection, Hashable
from functools import partial
from threading import RLock
from typing import Any, Final

from loadwise._counter import upcoming
from loadwise._fork import ForkAware, reset_in_child
from loadwise._text import in_seconds
from loadwise.balancer.cooldowns import Cooldowns
from loadwise.balancer.failure_rules import Failures, in_words
from loadwise.balancer.fleet import Fleet
from loadwise.balancer.held_failures import Blame
from loadwise.balancer.limits import Room
from loadwise.balancer.panic import PanicRule
from loadwise.balancer.recent import KEPT, WIDTH, Bucket
from loadwise.balancer.slot import Slot
from loadwise.balancer.wait_queue import WaitQueue
from loadwise.clock import Clock
from loadwise.health import HealthStatus, HealthTracker, Probe
from loadwise.health.standing import TrackedIds
from loadwise.metrics import MetricsCollector
from loadwise.outcome import Outcome
from loadwise.outliers import Ejector

__all__ = ["LATENCY_WEIGHT", "Reporter"]

_SUCCESS: Final = Outcome.SUCCESS
_FAILURE: Final = Outcome.FAILURE
LATENCY_WEIGHT: Final = 0.1
_DEFAULT_COOLDOWN: Final = 1.0
"""Seconds of a cooldown whose node does not say how long."""


class Reporter(ForkAware):
    """Records how requests end, on behalf of a balancer and its leases.

    Thread-safety: that of the trackers and measures it reports to.

    Attributes:
        clock: The balancer's clock.
        failures: Which exceptions of a lease's block are the node's.
        dropped: Leases that were collected while open, for whoever next has time to close them.
        metrics: Told how requests end, if anyone is.
        ejector: Told of failures, if outliers are ejected.
        tracked_ids: Ids of the nodes whose success could change anything.
        waiting: Who waits for a node; empty most of the time.
    """

    __slots__ = (
        "_cooldowns",
        "_fleet",
        "_health",
        "_hung_after",
        "_queue",
        "_rolling",
        "_rule",
        "clock",
        "dropped",
        "ejector",
        "failures",
        "metrics",
        "tracked_ids",
        "waiting",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - one place makes it, from the parts of a balancer
        self,
        fleet: Fleet[Any],  # whatever the nodes are
        clock: Clock,
        health: HealthTracker | None,
        cooldowns: Cooldowns,
        metrics: MetricsCollector | None,
        rule: PanicRule | None,
        failures: Failures,
        hung_after: float | None,
        queue: WaitQueue[Any, Any],
    ) -> None:
        self._queue = queue
        self.waiting: Collection[object] = queue.waiting
        self.failures = failures
        self._hung_after = hung_after
        self._fleet = fleet
        self.clock = clock
        self._health = health
        self._cooldowns = cooldowns
        self.metrics = metrics
        self.ejector: Ejector | None = None
        self._rule = rule
        self.tracked_ids: TrackedIds = {} if health is None else health.tracked_ids
        self.dropped: deque[tuple[Slot, float, Probe | None]] = deque()
        # Re-entrant: the collector may strike while it is held, and close a generator that ends a
        # lease.
        self._rolling = RLock()
        reset_in_child(self)
        if health is not None:
            _forward_health_changes(health, fleet, metrics)

    def _after_fork(self) -> None:
        self.dropped.clear()
        self._rolling = RLock()

    def succeeded(
        self, slot: Slot, started: float, probe: Probe | None, stopped: float | None
    ) -> float:
        """Record a request that ended well, and return its latency in seconds.

        `Lease.success` does the same without a call.
        """
        now = self.clock()
        latency = (now if stopped is None else stopped) - started
        if latency < 0.0:  # noqa: PLR1730 - max() costs a call; by a clock that goes back
            latency = 0.0
        if slot.observe is not None:
            slot.observe(slot.cell, latency, _SUCCESS, now)
        if slot.observers:
            for observe, cell in slot.observers:
                observe(cell, latency, _SUCCESS, now)
        if now >= slot.rolls_at:
            self.roll(slot, now)
        next(slot.successes)
        before = slot.latency
        slot.succeeded_at = now
        slot.latency = latency if before is None else before + LATENCY_WEIGHT * (latency - before)
        if probe is not None or (self.tracked_ids and slot.id in self.tracked_ids):
            self.tell_health(slot, _SUCCESS, started, None, probe)
        if self.metrics is not None:
            self.metrics.on_outcome(slot.id, _SUCCESS, latency)
        return latency

    def ended(
        self,
        slot: Slot,
        outcome: Outcome,
        started: float,
        reason: str | BaseException | None,
        probe: Probe | None,
        stopped: float | None = None,
        hold: Blame | None = None,
    ) -> float:
        """Record how a request that did not end well ended; return its latency in seconds.

        With ``hold``, the report to the health tracker may be held back there.
        """
        now = self.clock()
        latency = max(0.0, (now if stopped is None else stopped) - started)
        # Who gives up an answer that has begun did not wait for the node.
        heard = outcome is Outcome.CANCELLED and stopped is not None
        waited = 0.0 if heard else latency
        if slot.observe is not None:
            slot.observe(slot.cell, waited, outcome, now)
        for observe, cell in slot.observers:
            observe(cell, waited, outcome, now)
        if outcome is _FAILURE:
            self._count_failure(slot, now)
        if hold is None or not self._hold(hold, slot, started, reason, probe):
            self.tell_health(slot, outcome, started, reason, probe)
        if self.metrics is not None:
            self.metrics.on_outcome(slot.id, outcome, latency)
        return latency

    def tell_waiting(self, room: Room | None) -> None:
        """Have those who wait, if any, look whether there is a node for them.

        Args:
            room: What alone has changed; ``None`` for more, or something else.
        """
        if not self.waiting:
            return
        if room is not None and self.tracked_ids and room.mine[0] in self.tracked_ids:
            room = None  # one that is RECOVERING may take more than it did before
        self._queue.tell(room)

    def _count_failure(self, slot: Slot, now: float) -> None:
        with self._rolling:
            # What is closed for one that has left is the user's, and not for within the lock.
            if now >= slot.rolls_at and slot.alive:
                self.roll(slot, now)
            if slot.buckets:  # not so with a clock that is broken, or without a result
                slot.buckets[-1].failures += 1

    def roll(self, slot: Slot, now: float) -> None:
        """Begin a new bucket of a member's results, unless another thread has.

        The buckets of one that has left are always over, so that its requests come here.
        """
        if not slot.alive:
            slot.settle()
            return
        with self._rolling:
            if now >= slot.rolls_at:
                bucket = Bucket(now, upcoming(slot.successes))
                slot.buckets = (*slot.buckets[-KEPT:], bucket)
                # Last, because who reads it takes no lock.
                slot.rolls_at = now + WIDTH
        if not slot.alive:  # it has left meanwhile
            slot.rolls_at = -math.inf
            slot.settle()

    def why_hung(self, started: float) -> str | None:
        """Tell why a request without an answer, given up now, is its node's failure, if it is."""
        if self._hung_after is None:
            return None
        waited = self.clock() - started
        return f"no answer in {waited:.1f} s" if waited >= self._hung_after else None

    def _hold(
        self,
        hold: Blame,
        slot: Slot,
        started: float,
        reason: str | BaseException | None,
        probe: Probe | None,
    ) -> bool:
        """Hold back the report of a failure; ``False`` if it is to be reported at once."""
        health = self._health
        if health is None or health.status(slot.id) is HealthStatus.RECOVERING:
            return False
        # In words now: the exception itself would keep its frames, and all that they hold.
        words, at = in_words(reason), health.clock()
        hold.hold(slot.id, partial(self._report, health, slot, _FAILURE, started, words, probe, at))
        return True

    def tell_health(
        self,
        slot: Slot,
        outcome: Outcome,
        started: float,
        reason: str | BaseException | None,
        probe: Probe | None,
    ) -> None:
        """Report how a request ended to the health tracker, where it counts there."""
        health = self._health
        if health is None:
            return
        if outcome is _SUCCESS or outcome is _FAILURE:
            self._report(health, slot, outcome, started, reason, probe)
        self.end_probe(slot, probe)

    def end_probe(self, slot: Slot, probe: Probe | None) -> None:
        """Take back a probe, if there is one, that may not have been taken back yet."""
        if probe is not None and self._health is not None:
            self._health.end_probe(slot.id, probe)

    def _report(
        self,
        health: HealthTracker,
        slot: Slot,
        outcome: Outcome,
        started: float | None,
        reason: str | BaseException | None,
        probe: Probe | None,
        at: float | None = None,
    ) -> None:
        if not slot.alive:
            return
        began = None if self._is_ailing(health, slot) else started
        told = slot.id, outcome, in_words(reason), began
        health.report(*told, at=at, probe=probe, last_success=slot.succeeded_at)
        if outcome is _FAILURE and self.ejector is not None:
            self.ejector.failed(slot)
        if (
            slot.forgetters
            and health.status(slot.id) is HealthStatus.UNHEALTHY
            and not self._is_ailing(health, slot)
        ):
            slot.forget()
        if not slot.alive and not self._fleet.has(slot.id):
            health.remove(slot.id)

    def _is_ailing(self, health: HealthTracker, slot: Slot) -> bool:
        return self._rule is not None and health.is_ailing(slot.id, self._rule.window)

    def reported(
        self,
        slot: Slot,
        outcome: Outcome,
        latency: float | None,
        reason: str | BaseException | None,
    ) -> None:
        """Record how a request without a lease ended, as `Balancer.report` is told."""
        counts = outcome is _SUCCESS or outcome is _FAILURE
        if latency is not None:
            now = self.clock()
            if outcome is _SUCCESS:
                self.succeeded(slot, now - latency, None, now)
            else:
                self.ended(slot, outcome, now - latency, reason, None, now)
        if self._health is not None and (latency is None or not counts):
            # What says nothing of health ends a probe, too.
            self._report(self._health, slot, outcome, None, reason, None)
        if latency is None and counts:
            now = self.clock()
            if outcome is _FAILURE:
                self._count_failure(slot, now)
            else:
                if now >= slot.rolls_at:
                    self.roll(slot, now)
                next(slot.successes)
        if outcome is Outcome.RATE_LIMITED:
            self._cool_down(slot, outcome, reason, None)

    def _cool_down(
        self,
        slot: Slot,
        outcome: Outcome,
        reason: str | BaseException | None,
        retry_after: float | None,
        *,
        passed: float = 0.0,
    ) -> None:
        """Put a member on cooldown.

        Args:
            slot: The member's.
            outcome: How the request ended that says so.
            reason: What it was refused for, or what went wrong, if known.
            retry_after: Seconds, if it said how long.
            passed: Seconds of them that have passed since.
        """
        left = (_DEFAULT_COOLDOWN if retry_after is None else retry_after) - passed
        if not slot.alive or (passed and left <= 0):
            return
        why = in_words(reason) or "rate limited"
        if outcome is _FAILURE:
            why = f"failure: {why}" if reason is not None else "failure"
        if retry_after is not None:
            why += f", retry after {in_seconds(retry_after)}"
        self._cooldowns.begin(slot, left, why)

    def cool_down(
        self,
        slot: Slot,
        outcome: Outcome,
        reason: str | BaseException | None,
        seconds: float | None,
        blame: Blame | None,
    ) -> None:
        """Put a member on cooldown, or have ``blame`` hold that back until its request is sound.

        Args:
            slot: The member's.
            outcome: How the request ended that says so.
            reason: What it was refused for, or what went wrong, if known.
            seconds: From now, if it said how long.
            blame: What may hold it back; ``None`` for nothing.
        """
        if blame is None or not blame.holds_cooldown(outcome):
            self._cool_down(slot, outcome, reason, seconds)
            return
        # In words now: the exception itself would keep its frames, and all that they hold.
        told = slot, outcome, in_words(reason), seconds, self.clock()
        blame.hold_cooldown(slot.id, partial(self._cool_down_since, *told))

    def _cool_down_since(
        self, slot: Slot, outcome: Outcome, reason: str | None, seconds: float | None, at: float
    ) -> None:
        self._cool_down(slot, outcome, reason, seconds, passed=max(0.0, self.clock() - at))

    def close_dropped(self) -> None:
        """Report the leases that were dropped as cancelled."""
        while self.dropped:
            try:
                # Before it is taken off: Ctrl-C may strike after that, and the probe be lost.
                slot, _, probe = self.dropped[0]
                self.end_probe(slot, probe)
                slot, started, probe = self.dropped.popleft()
            except IndexError:  # another thread was quicker
                return
            # Nobody knows how long it was waited for, so that counts for nothing.
            self.ended(slot, Outcome.CANCELLED, started, None, probe, self.clock())
            slot.settle()


def _forward_health_changes(
    health: HealthTracker, fleet: Fleet[Any], metrics: MetricsCollector | None
) -> None:
    """Tell fleet and collector of its members' changes, for as long as the fleet lives."""

    def remove(_: object) -> None:
        unsubscribe()

    reference = weakref.ref(fleet, remove)

    def forward(identity: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        alive = reference()
        if alive is not None and alive.note_change(identity, old, new) and metrics is not None:
            metrics.on_health_change(identity, old, new)

    unsubscribe = health.subscribe(forward)
