"""Tracker of nodes' health, which decides when one that is down may be tried again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterable
from random import Random
from threading import RLock

from loadwise._fork import ForkAware, reset_in_child
from loadwise.clock import Clock, check_clock
from loadwise.health import applying_policy
from loadwise.health.listeners import HealthListener, Listeners
from loadwise.health.policy import ConsecutiveFailurePolicy, HealthPolicy, NodeHealth
from loadwise.health.probes import KNOWN_DOWN, Probe, ProbeSchedule
from loadwise.health.records import Records
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
        applying_policy.check_policy(self.policy)
        check_clock(clock)
        if not isinstance(rng, Random | None):
            raise TypeError(f"rng is {rng!r}; it must be a random.Random")
        self.clock = clock
        self.version = 0
        self._records = Records()
        self._probes = ProbeSchedule(self.policy, (Random() if rng is None else rng).random)
        self._listeners = Listeners()
        self._after_fork()
        self._skips = bool(getattr(self.policy, "ignores_success_when_healthy", False))
        self._tracked_ids: TrackedIds = self._records.standings if self._skips else EVERYBODY
        reset_in_child(self)

    def _after_fork(self) -> None:
        # Re-entrant: the collector may strike while it is held, and close a generator whose lease
        # is a probe. To wait for oneself would be to wait for ever.
        self._lock = RLock()
        self._listeners.after_fork()
        self._probes.forget_granted()
        self._records.sort()
        self.version += 1

    @property
    def panic_window(self) -> float:
        """Seconds for which a success keeps a node from being taken for dead, by default.

        The policy's ``probe_interval``, but at least 1 and at most 60.
        """
        return min(max(self.policy.probe_interval, 1.0), 60.0)

    def status(self, node_id: Hashable) -> HealthStatus:
        """Return a node's state; HEALTHY for an id never reported."""
        return self._records.status(id_of(node_id))

    def health(self, node_id: Hashable) -> NodeHealth:
        """Return all that is known of one node's health."""
        return self._records.of(id_of(node_id))

    def snapshot(self) -> dict[Hashable, NodeHealth]:
        """Return what is known of all nodes with something to remember, by id. O(n)."""
        with self._lock:
            return dict(self._records.by_id)

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
            if probe is None and applying_policy.is_old_news(old, began):
                return
            probed = self._probes.end_lapsing(node_id)
            if probed:
                self.version += 1
            if outcome is not Outcome.SUCCESS and outcome is not Outcome.FAILURE:
                return
            standing = self._records.standing(node_id, last_success)
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

        Who is told ``True`` should send one request and report how it ended. A probe without a
        report lapses after another ``probe_interval``.
        """
        return self.grant_probe(id_of(node_id), self.policy.probe_interval) is not None

    def remove(self, node_id: Hashable) -> None:
        """Forget a node. An id that is not known is not an error."""
        node_id = id_of(node_id)
        with self._lock:
            self._probes.remove(node_id)
            if self._records.remove(node_id):
                self.version += 1

    def subscribe(self, listener: HealthListener) -> Callable[[], None]:
        """Have ``listener`` called after every change of state; return how to end that.

        It is called in the reporting thread, outside the lock. One that raises is logged and
        harms nobody else.

        Raises:
            TypeError: ``listener`` is not callable, or is to be awaited.
        """
        return self._listeners.add(listener)

    def eject(
        self, node_id: Hashable, reason: str, until: float, last_success: float | None = None
    ) -> bool:
        """Keep a node UNHEALTHY, whatever is reported of it; return ``False`` if it was ejected.

        It is until `readmit`, or until it is given a probe: from ``until`` on, in seconds of the
        clock. Reports meanwhile count for `is_ailing` alone. ``last_success`` is as for `report`.
        """
        node_id = id_of(node_id)
        with self._lock:
            if self.is_ejected(node_id):
                return False
            old = self.health(node_id)
            standing = self._records.standing(node_id, last_success)
            self._records.standings[node_id] = standing
            self._store(applying_policy.ejected(old, self.clock(), reason))
            self._probes.hold(node_id, until)
            self.version += 1
        if old.status is not HealthStatus.UNHEALTHY:
            self._listeners.tell(node_id, old.status, HealthStatus.UNHEALTHY)
        return True

    def readmit(self, node_id: Hashable, *, probe: bool) -> None:
        """End the ejection of a node: one ``probe`` decides, or it is HEALTHY at once."""
        node_id = id_of(node_id)
        with self._lock:
            back = self.is_ejected(node_id) and not probe
            if back:
                self._store(NodeHealth(node_id))
            elif self.is_ejected(node_id):
                self._probes.release(node_id)
                self.version += 1
        if back:
            self._listeners.tell(node_id, HealthStatus.UNHEALTHY, HealthStatus.HEALTHY)

    def is_ejected(self, node_id: Hashable) -> bool:
        """Tell whether a node was ejected, and has been neither readmitted nor probed since."""
        return self._probes.has_hold(id_of(node_id))

    def next_probe(self, node_id: Hashable) -> float | None:
        """Return when an UNHEALTHY node may next be probed, in seconds of the clock.

        ``None`` for a node that needs no probe, or whose probe is under way.
        """
        node_id = id_of(node_id)
        with self._lock:
            record = self._records.down.get(node_id)
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
            down = [*self._records.down]
            dues = self._probes.dues(down)
            return [(node_id, due <= now) for node_id, due in zip(down, dues, strict=True)]

    def next_change(self) -> float:
        """Return when `down` changes by the passing of time alone; inf if never."""
        with self._lock:
            now = self.clock()
            dues = self._probes.dues([*self._records.down])
        return min([due for due in dues if due > now], default=math.inf)

    def ailing(self, window: float) -> dict[Hashable, float]:
        """Return the ids of nodes that are ailing, each with when that lapses.

        ``window`` is as for `is_ailing`.
        """
        with self._lock:
            now = self.clock()
            until = self._records.ailing_until
            lapses = {node_id: until(node_id, window) for node_id in [*self._records.down]}
        return {node_id: until for node_id, until in lapses.items() if now < until}

    def is_ailing(self, node_id: Hashable, window: float) -> bool:
        """Tell whether a node is UNHEALTHY but not dead.

        It is if its present run of failures is one that it would produce by itself, given its
        share s of good answers as of its last success: (1 - s) to the power of the run's length is
        at least 0.001. And that success must not be older than ``window`` seconds, put off to the
        next tenth of them.
        """
        node_id, records = id_of(node_id), self._records
        return node_id in records.down and self.clock() < records.ailing_until(node_id, window)

    def good_share(self, node_id: Hashable) -> float:
        """Return a node's share of good answers as of its last success, 1 if nothing is known.

        Exponentially weighted, a twentieth for each result.
        """
        return self._records.standings.get(id_of(node_id), SPOTLESS).share

    def successes_needed(self, node_id: Hashable) -> int | None:
        """Return how many successes a RECOVERING node still needs; ``None`` in another state.

        1 where the policy does not tell by a ``recovery_successes``.
        """
        record = self._records.by_id.get(id_of(node_id))
        if record is None or record.status is not HealthStatus.RECOVERING:
            return None
        return applying_policy.successes_needed(self.policy, record)

    def recovering(self) -> list[Hashable]:
        """Return the ids of the RECOVERING nodes. O(RECOVERING nodes)."""
        with self._lock:
            return list(self._records.recovering)

    def hasten_probes(self, node_ids: Iterable[Hashable]) -> None:
        """Make a probe due now of each of these nodes that is UNHEALTHY. O(ids)."""
        with self._lock:
            down = [node_id for node_id in node_ids if node_id in self._records.down]
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
            if node_id not in self._records.down or self._probes.due(node_id) > now:
                return None
            granted = Probe() if probe is None else probe
            self.version += 1
            return granted if self._probes.grant(node_id, granted, now, lapse) else None

    def end_probe(self, node_id: Hashable, probe: Probe) -> None:
        """Take back a probe that was granted, whatever became of it."""
        with self._lock:
            if self._probes.end(node_id, probe):
                self.version += 1

    def _succeeded(self, old: NodeHealth, standing: Standing, when: float) -> NodeHealth:
        standing = standing.after_success(old.consecutive_failures, when)
        if self._skips and old.id not in self._records.by_id:
            # By far the most of what is reported: the node is well, and its standing grows.
            self._records.stand(old.id, standing)
            return old
        new = applying_policy.after_success(self._policy_for(old), old)
        self._records.standings[old.id] = standing
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
        new = applying_policy.after_failure(self._policy_for(old), old, when, reason)
        still_down = old.status is new.status is HealthStatus.UNHEALTHY
        if still_down and was_probe:
            self._probes.failed(old.id, when)
        self._records.standings[old.id] = standing
        self._store(new)
        ailed = standing.explains(old.consecutive_failures)
        if still_down and (was_probe or ailed != standing.explains(new.consecutive_failures)):
            self.version += 1
        return new

    def _policy_for(self, old: NodeHealth) -> HealthPolicy | None:
        """Return the policy that decides on a node; ``None`` where nothing does for now."""
        return None if self._probes.is_held(old.id, self.clock()) else self.policy

    def _store(self, new: NodeHealth) -> None:
        before = self._records.status(new.id)
        down = new.status is HealthStatus.UNHEALTHY
        if down and before is not HealthStatus.UNHEALTHY:
            # First of all: it asks the policy, and where that fails nothing has changed.
            self._probes.begin(new.id, new.last_failure)
        self._records.store(new)
        if not down and before is HealthStatus.UNHEALTHY:
            self._probes.up(new.id)
        if before is not new.status:
            self.version += 1
