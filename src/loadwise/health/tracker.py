"""Tracker of nodes' health, which decides when one that is down may be tried again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterable
from random import Random
from threading import RLock

from loadwise._fork import ForkAware, reset_in_child
from loadwise.clock import Clock, check_clock
from loadwise.health import verdicts
from loadwise.health.listeners import HealthListener, Listeners
from loadwise.health.policy import ConsecutiveFailurePolicy, HealthPolicy, NodeHealth
from loadwise.health.probes import KNOWN_DOWN, Probe, ProbeSchedule
from loadwise.health.standing import EVERYBODY, SPOTLESS, Standing, TrackedIds
from loadwise.health.status import HealthStatus
from loadwise.nodes import id_of
from loadwise.outcome import Outcome, check_outcome

__all__ = ["HealthTracker"]


class HealthTracker(ForkAware):
    """The health of nodes, by id, from what is reported of their requests.

    Nodes need not be registered: an unknown id is HEALTHY, and only nodes with something to
    remember take memory.

    Args:
        policy: When a node changes its state.
        clock: Source of monotonic seconds.
        rng: Source of the policy's jitter; ``None`` for one of its own.

    Raises:
        TypeError: ``policy`` is no `HealthPolicy`, or what it has of the optional members is of the
            wrong kind, or ``clock`` cannot be called.
        ValueError: Its ``probe_interval`` is negative or NaN.

    An UNHEALTHY node is given one probe request at a time, once the policy's interval has passed
    since it went down or since its last probe failed; what is reported of the probe decides. Other
    failures, of requests that were under way, do not put the probe off.

    Besides, it keeps each node's share of good answers, by which a balancer in panic tells nodes
    that are ailing from dead ones: see `is_ailing`.

    Thread-safety: writers take a lock, readers do not. In a forked child the states are kept and
    probes that the parent has under way are forgotten.

    Cost: O(1) for every method but `snapshot`, O(n), and `down`, `ailing` and `next_change`, which
    take O(UNHEALTHY nodes).

    Example:
        >>> health = HealthTracker(ConsecutiveFailurePolicy(failure_threshold=1))
        >>> health.status("a")
        <HealthStatus.HEALTHY: 1>
        >>> health.report_failure("a")
        >>> health.status("a")
        <HealthStatus.UNHEALTHY: 4>
    """

    def __init__(
        self,
        policy: HealthPolicy | None = None,
        clock: Clock = time.monotonic,
        rng: Random | None = None,
    ) -> None:
        self.policy: HealthPolicy = ConsecutiveFailurePolicy() if policy is None else policy
        verdicts.check_policy(self.policy)
        check_clock(clock)
        if not isinstance(rng, Random | None):
            raise TypeError(f"rng is {rng!r}; it must be a random.Random")
        self.clock = clock
        self.version = 0
        self._records: dict[Hashable, NodeHealth] = {}
        # Of every node with a record, and of those that have failed too often of late.
        self._standings: dict[Hashable, Standing] = {}
        self._probes = ProbeSchedule(self.policy, (Random() if rng is None else rng).random)
        self._listeners = Listeners()
        self._after_fork()
        self._skips = bool(getattr(self.policy, "ignores_success_when_healthy", False))
        self._tracked_ids: TrackedIds = self._standings if self._skips else EVERYBODY
        reset_in_child(self)

    def _after_fork(self) -> None:
        # Re-entrant: the collector may strike while it is held, and close a generator whose lease
        # is a probe. To wait for oneself would be to wait for ever.
        self._lock = RLock()
        self._listeners.after_fork()
        self._probes.forget_granted()
        # The fork may have struck between the writes of one report.
        records = self._records.items()
        self._down = {i: r for i, r in records if r.status is HealthStatus.UNHEALTHY}
        self._recovering = {i: None for i, r in records if r.status is HealthStatus.RECOVERING}
        for node_id in self._records:
            self._standings.setdefault(node_id, SPOTLESS)
        self.version += 1

    @property
    def panic_window(self) -> float:
        """Seconds for which a success keeps a node from being taken for dead, by default.

        The policy's ``probe_interval``, but at least 1 and at most 60.
        """
        return min(max(self.policy.probe_interval, 1.0), 60.0)

    def status(self, node_id: Hashable) -> HealthStatus:
        """Return a node's state; HEALTHY for an id never reported."""
        record = self._records.get(id_of(node_id))
        return HealthStatus.HEALTHY if record is None else record.status

    def health(self, node_id: Hashable) -> NodeHealth:
        """Return all that is known of one node's health."""
        node_id = id_of(node_id)
        return self._records.get(node_id) or NodeHealth(node_id)

    def snapshot(self) -> dict[Hashable, NodeHealth]:
        """Return what is known of all nodes with something to remember, by id. O(n)."""
        with self._lock:
            return dict(self._records)

    def report(
        self,
        node_id: Hashable,
        outcome: Outcome,
        reason: str | None = None,
        began: float | None = None,
        *,
        at: float | None = None,
        probe: Probe | None = None,
        last_success: float | None = None,
    ) -> None:
        """Record how a request to a node ended.

        Args:
            node_id: The node's id, or the node itself, as in all methods.
            outcome: SUCCESS and FAILURE count; RATE_LIMITED and CANCELLED say nothing about
                health and only end a probe that `should_probe` granted.
            reason: The fault in words, for those who ask why.
            began: When the request began, in seconds of the clock, if known. What began before
                the node was found UNHEALTHY, or at that very moment, is old news: it neither lets
                the node back nor throws it out again.
            at: When it ended, in seconds of the clock; ``None`` for now.
            probe: The probe that the request was, if it was one. It is never old news, and its
                failure begins the next probe interval.
            last_success: When the node last answered well, if the caller knows of a success that
                was not reported because it could change nothing.

        Raises:
            TypeError: ``outcome`` is not an `Outcome`.
            LoadwiseError: The policy returned what is not one `HealthStatus`.
        """
        check_outcome(outcome)
        node_id = id_of(node_id)
        if outcome is Outcome.SUCCESS and node_id not in self._tracked_ids:
            return
        with self._lock:
            old = self.health(node_id)
            if probe is None and verdicts.is_old_news(old, began):
                return
            probed = self._probes.end_lapsing(node_id)
            if probed:
                self.version += 1
            if outcome is not Outcome.SUCCESS and outcome is not Outcome.FAILURE:
                return
            standing = self._standings.get(node_id)
            if standing is None:
                standing = SPOTLESS if last_success is None else Standing(1.0, last_success)
            when = self.clock() if at is None else at
            if outcome is Outcome.SUCCESS:
                new = self._succeeded(old, standing, when)
            else:
                probed = probed or (probe is not None and probe is not KNOWN_DOWN)
                new = self._failed(old, standing, when, reason, was_probe=probed)
        if new.status is not old.status:
            self._listeners.tell(node_id, old.status, new.status)

    def report_success(self, node_id: Hashable) -> None:
        """Record that a request to a node succeeded."""
        self.report(node_id, Outcome.SUCCESS)

    def report_failure(self, node_id: Hashable, reason: str | None = None) -> None:
        """Record that a request to a node failed."""
        self.report(node_id, Outcome.FAILURE, reason)

    @property
    def tracked_ids(self) -> TrackedIds:
        """Ids of the nodes whose success could change anything; the same object always."""
        return self._tracked_ids

    def should_probe(self, node_id: Hashable) -> bool:
        """Grant the one probe of an UNHEALTHY node, if it is due and nobody has it.

        Who is told ``True`` should send one request and report how it ended; everybody else is
        told ``False`` until then. A probe without a report lapses after another
        ``probe_interval``.
        """
        return self.grant_probe(id_of(node_id), self.policy.probe_interval) is not None

    def remove(self, node_id: Hashable) -> None:
        """Forget a node. An id that is not known is not an error."""
        node_id = id_of(node_id)
        with self._lock:
            self._probes.remove(node_id)
            self._down.pop(node_id, None)
            self._recovering.pop(node_id, None)
            self._standings.pop(node_id, None)
            if self._records.pop(node_id, None) is not None:
                self.version += 1

    def subscribe(self, listener: HealthListener) -> Callable[[], None]:
        """Have ``listener`` called after every change of state; return how to end that.

        It is called in the reporting thread, outside the lock. One that raises is logged and
        harms nobody else.

        Raises:
            TypeError: ``listener`` is not callable, or is to be awaited.
        """
        return self._listeners.add(listener)

    def next_probe(self, node_id: Hashable) -> float | None:
        """Return when an UNHEALTHY node may next be probed, in seconds of the clock.

        ``None`` for a node that needs no probe, or whose probe is under way.
        """
        node_id = id_of(node_id)
        with self._lock:
            record = self._down.get(node_id)
            due = math.inf if record is None else self._probes.due(node_id)
            if due == -math.inf:
                due = self.clock()
        return None if math.isinf(due) else due

    def catch_up(self) -> None:
        """Take in what others found out, before a new view: only where states are shared."""

    def down(self) -> list[tuple[Hashable, bool]]:
        """Return the UNHEALTHY ids, each with whether its probe is due and nobody has it."""
        with self._lock:
            now = self.clock()
            # A copy, because the collector may strike meanwhile and end a lease, which changes it.
            down = [*self._down]
            dues = self._probes.dues(down)
            return [(node_id, due <= now) for node_id, due in zip(down, dues, strict=True)]

    def next_change(self) -> float:
        """Return when `down` changes by the passing of time alone; inf if never."""
        with self._lock:
            now = self.clock()
            dues = self._probes.dues([*self._down])
        return min([due for due in dues if due > now], default=math.inf)

    def ailing(self, window: float) -> dict[Hashable, float]:
        """Return the ids of nodes that are ailing, each with when that lapses.

        Args:
            window: As for `is_ailing`.
        """
        with self._lock:
            now = self.clock()
            lapses = {node_id: self._ailing_until(node_id, window) for node_id in [*self._down]}
        return {node_id: until for node_id, until in lapses.items() if now < until}

    def is_ailing(self, node_id: Hashable, window: float) -> bool:
        """Tell whether a node is UNHEALTHY but not dead.

        It is if its present run of failures is one that it would produce by itself, given its
        share s of good answers as of its last success: (1 - s) to the power of the run's length is
        at least 0.001. And that success must not be older than ``window``.

        Args:
            node_id: The node's id.
            window: Seconds for which a success counts, > 0. The moment at which it ceases to is
                put off to the next tenth of the window.
        """
        node_id = id_of(node_id)
        return node_id in self._down and self.clock() < self._ailing_until(node_id, window)

    def good_share(self, node_id: Hashable) -> float:
        """Return a node's share of good answers as of its last success, from 0 to 1.

        Exponentially weighted, a twentieth for each result; 1 for a node that is not
        known.
        """
        return self._standings.get(id_of(node_id), SPOTLESS).share

    def successes_needed(self, node_id: Hashable) -> int | None:
        """Return how many successes a RECOVERING node still needs; ``None`` in another state.

        1 where the policy does not tell by a ``recovery_successes``.
        """
        record = self._records.get(id_of(node_id))
        if record is None or record.status is not HealthStatus.RECOVERING:
            return None
        return verdicts.successes_needed(self.policy, record)

    def recovering(self) -> list[Hashable]:
        """Return the ids of the RECOVERING nodes. O(RECOVERING nodes)."""
        with self._lock:
            return list(self._recovering)

    def hasten_probes(self, node_ids: Iterable[Hashable]) -> None:
        """Make a probe due now of each of these nodes that is UNHEALTHY. O(ids)."""
        with self._lock:
            down = [node_id for node_id in node_ids if node_id in self._down]
            for node_id in down:
                self._probes.hasten(node_id)
            if down:
                self.version += 1

    def grant_probe(
        self, node_id: Hashable, lapse: float = math.inf, probe: Probe | None = None
    ) -> Probe | None:
        """Grant the probe of an UNHEALTHY node for ``lapse`` seconds, or return ``None``.

        Who makes the ``probe`` can take it back though interrupted before this has returned.
        """
        with self._lock:
            now = self.clock()
            if node_id not in self._down or self._probes.due(node_id) > now:
                return None
            granted = Probe() if probe is None else probe
            self._probes.grant(node_id, granted, now + lapse)
            self.version += 1
            return granted

    def end_probe(self, node_id: Hashable, probe: Probe) -> None:
        """Take back a probe that was granted, whatever became of it."""
        with self._lock:
            if self._probes.end(node_id, probe):
                self.version += 1

    def _ailing_until(self, node_id: Hashable, window: float) -> float:
        record = self._records.get(node_id)
        standing = self._standings.get(node_id)
        if record is None or standing is None or not standing.explains(record.consecutive_failures):
            return -math.inf
        return standing.counts_until(window)

    def _succeeded(self, old: NodeHealth, standing: Standing, when: float) -> NodeHealth:
        standing = standing.after_success(old.consecutive_failures, when)
        if self._skips and old.id not in self._records:
            # By far the most of what is reported: the node is well, and its standing grows.
            if standing.spotless:
                self._standings.pop(old.id, None)
            else:
                self._standings[old.id] = standing
            return old
        new = verdicts.after_success(self.policy, old)
        self._standings[old.id] = standing
        self._store(new)
        return new

    def _failed(
        self,
        old: NodeHealth,
        standing: Standing,
        when: float,
        reason: str | None,
        *,
        was_probe: bool,
    ) -> NodeHealth:
        new = verdicts.after_failure(self.policy, old, when, reason)
        still_down = old.status is new.status is HealthStatus.UNHEALTHY
        if still_down and was_probe:
            self._probes.failed(old.id, when)
        self._standings[old.id] = standing
        self._store(new)
        ailed = standing.explains(old.consecutive_failures)
        if still_down and (was_probe or ailed != standing.explains(new.consecutive_failures)):
            self.version += 1
        return new

    def _store(self, new: NodeHealth) -> None:
        before = self._records.get(new.id, NodeHealth(new.id)).status
        down = new.status is HealthStatus.UNHEALTHY
        if down and before is not HealthStatus.UNHEALTHY:
            # First of all: it asks the policy, and where that fails nothing has changed.
            self._probes.begin(new.id, new.last_failure)
        if new.status is HealthStatus.HEALTHY and not new.consecutive_failures:
            self._records.pop(new.id, None)
            if self._standings.get(new.id, SPOTLESS).spotless:
                self._standings.pop(new.id, None)
        else:
            # In this order, because readers take no lock: who has a record has a standing.
            self._standings.setdefault(new.id, SPOTLESS)
            self._records[new.id] = new
        if down:
            self._down[new.id] = new
        elif before is HealthStatus.UNHEALTHY:
            self._down.pop(new.id, None)
            self._probes.up(new.id)
        if new.status is HealthStatus.RECOVERING:
            self._recovering[new.id] = None
        else:
            self._recovering.pop(new.id, None)
        if before is not new.status:
            self.version += 1
