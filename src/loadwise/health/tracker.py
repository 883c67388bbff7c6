"""Keeps the health of nodes, and decides when one that is down may be tried again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from threading import RLock
from typing import Final

from loadwise._callables import refuse_async, refuse_async_methods, refuse_awaitable
from loadwise._fork import ForkAware, reset_in_child
from loadwise._log import log_exception
from loadwise._numbers import number, shown
from loadwise.clock import Clock, check_clock
from loadwise.errors import LoadwiseError
from loadwise.health.policy import ConsecutiveFailurePolicy, HealthPolicy, NodeHealth
from loadwise.health.status import HealthStatus
from loadwise.nodes import id_of
from loadwise.outcome import Outcome, check_outcome

__all__ = ["HealthListener", "HealthTracker", "Minded"]

_STATES: Final = tuple(HealthStatus)
_TOLD_NOW: Final = "nobody would await it: make it a plain function that does not wait"

HealthListener = Callable[[Hashable, HealthStatus, HealthStatus], None]
"""Called with a node's id, its old state and its new one."""


class Probe:
    """The right to send one request to an UNHEALTHY node."""

    __slots__ = ("expires",)

    def __init__(self) -> None:
        self.expires = math.inf


class _Everybody:
    """A container of all there is."""

    def __contains__(self, node_id: Hashable) -> bool:
        return True

    def __bool__(self) -> bool:
        return True


Minded = Mapping[Hashable, NodeHealth] | _Everybody
"""The ids of nodes of which a success could change anything."""


class HealthTracker(ForkAware):
    """The health of nodes, by id, from what is reported of their requests.

    Nodes need not be registered: an unknown id is HEALTHY, and only nodes with something to
    remember take memory.

    Args:
        policy: When a node changes its state.
        clock: Source of monotonic seconds.

    Raises:
        TypeError: ``policy`` is no `HealthPolicy`, or ``clock`` cannot be called.
        ValueError: Its ``probe_interval`` is negative or NaN.

    An UNHEALTHY node is given one probe request at a time, once ``probe_interval`` has passed
    since its last failure; what is reported of it decides.

    Thread-safety: writers take a lock, readers do not. In a forked child the states are kept and
    probes that the parent has under way are forgotten.

    Cost: O(1) for every method but `snapshot`, O(n).

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
    ) -> None:
        self.policy: HealthPolicy = ConsecutiveFailurePolicy() if policy is None else policy
        if isinstance(policy, type):
            name = policy.__name__
            raise TypeError(f"policy is the class {name}; give an instance: {name}()")
        for member in ("next_status", "probe_interval"):
            if not hasattr(self.policy, member):
                raise TypeError(f"policy is {policy!r}; a HealthPolicy needs `{member}`")
        refuse_async_methods(
            "policy", self.policy, ("next_status",), "a report cannot wait: make it a plain one"
        )
        pause: object = self.policy.probe_interval
        # It is asked for again and again, so it must be of a kind that adds up with times. An
        # infinite one is sensible where only active checks may bring a node back.
        if not isinstance(pause, (int, float)) or isinstance(pause, bool):
            raise TypeError(f"probe_interval is {shown(pause)}; it must be an int or a float")
        if not number("probe_interval", pause) >= 0:
            raise ValueError(
                f"probe_interval is {pause!r}; it must be a number of seconds, at least 0"
            )
        check_clock(clock)
        self.clock = clock
        self.version = 0
        self._records: dict[Hashable, NodeHealth] = {}
        self._listeners: dict[object, HealthListener] = {}
        self._after_fork()
        skips = bool(getattr(self.policy, "ignores_success_when_healthy", False))
        self._minded: Minded = self._records if skips else _Everybody()
        reset_in_child(self)

    def _after_fork(self) -> None:
        # Re-entrant: the collector may strike while it is held, and close a generator whose lease
        # is a probe. To wait for oneself would be to wait for ever.
        self._lock = RLock()
        self._probes: dict[Hashable, Probe] = {}
        # The fork may have struck between the two writes of one report.
        self._down = {
            node_id: record
            for node_id, record in self._records.items()
            if record.status is HealthStatus.UNHEALTHY
        }
        self.version += 1

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
    ) -> None:
        """Take note of how a request to a node ended.

        Args:
            node_id: The node's id, or the node itself, as in all methods.
            outcome: SUCCESS and FAILURE count; RATE_LIMITED and CANCELLED say nothing about
                health and only end a probe that `should_probe` granted.
            reason: What went wrong, in words, for those who ask why.
            began: When the request began, in seconds of the clock, if known. What began before
                the node was found UNHEALTHY is old news: it neither lets the node back nor
                throws it out again.

        Raises:
            TypeError: ``outcome`` is not an `Outcome`.
            LoadwiseError: The policy returned what is not one `HealthStatus`.
        """
        check_outcome(outcome)
        node_id = id_of(node_id)
        if outcome is Outcome.SUCCESS and node_id not in self._minded:
            return
        with self._lock:
            old = self.health(node_id)
            if began is not None and old.down_since is not None and began < old.down_since:
                return
            self._end_granted_probe(node_id)
            if outcome is not Outcome.SUCCESS and outcome is not Outcome.FAILURE:
                return
            new = self._judge(old, outcome, reason)
            self._store(new)
        if new.status is not old.status:
            self._announce(node_id, old.status, new.status)

    def report_success(self, node_id: Hashable) -> None:
        """Take note that a request to a node succeeded."""
        self.report(node_id, Outcome.SUCCESS)

    def report_failure(self, node_id: Hashable, reason: str | None = None) -> None:
        """Take note that a request to a node failed."""
        self.report(node_id, Outcome.FAILURE, reason)

    @property
    def minded(self) -> Minded:
        """The ids of nodes of which a success could change anything; the same object always."""
        return self._minded

    def should_probe(self, node_id: Hashable) -> bool:
        """Grant the one probe of an UNHEALTHY node, if it is due and nobody has it.

        Who is told ``True`` should send one request and report how it ended; everybody else is
        told ``False`` until then. A probe of which nothing is reported lapses after another
        ``probe_interval``.
        """
        return self.grant_probe(id_of(node_id), self.policy.probe_interval) is not None

    def remove(self, node_id: Hashable) -> None:
        """Forget a node. An id that is not known is not an error."""
        node_id = id_of(node_id)
        with self._lock:
            self._probes.pop(node_id, None)
            self._down.pop(node_id, None)
            if self._records.pop(node_id, None) is not None:
                self.version += 1

    def subscribe(self, listener: HealthListener) -> Callable[[], None]:
        """Have ``listener`` called after every change of state; return how to end that.

        It is called in the reporting thread, outside the lock. One that raises is logged and
        harms nobody else.

        Raises:
            TypeError: ``listener`` is not callable, or is to be awaited.
        """
        if not callable(listener):
            raise TypeError(
                f"listener is {shown(listener)}; it must be a function of an id, the old state "
                f"and the new one"
            )
        refuse_async("listener", listener, _TOLD_NOW)
        with self._lock:
            # By a key of its own, for the same function may subscribe twice.
            key = object()
            self._listeners = {**self._listeners, key: listener}

        def unsubscribe() -> None:
            with self._lock:
                self._listeners = {k: each for k, each in self._listeners.items() if k is not key}

        return unsubscribe

    def next_probe(self, node_id: Hashable) -> float | None:
        """Return when an UNHEALTHY node may next be probed, in seconds of the clock.

        ``None`` for a node that needs no probe, or whose probe is under way.
        """
        node_id = id_of(node_id)
        with self._lock:
            record = self._down.get(node_id)
            due = math.inf if record is None else self._due(record)
        return None if math.isinf(due) else due

    def down(self) -> list[tuple[Hashable, bool]]:
        """Return the UNHEALTHY ids, each with whether its probe is due and nobody has it."""
        with self._lock:
            now = self.clock()
            return [(node_id, self._due(record) <= now) for node_id, record in self._down.items()]

    def next_change(self) -> float:
        """Return when `down` changes by the passing of time alone; inf if never."""
        with self._lock:
            now = self.clock()
            dues = [self._due(record) for record in self._down.values()]
        return min((due for due in dues if due > now), default=math.inf)

    def grant_probe(
        self, node_id: Hashable, lapse: float = math.inf, probe: Probe | None = None
    ) -> Probe | None:
        """Grant the probe of an UNHEALTHY node for ``lapse`` seconds, or return ``None``.

        Who makes the ``probe`` can take it back though interrupted before this has returned.
        """
        with self._lock:
            record = self._down.get(node_id)
            now = self.clock()
            if record is None or self._due(record) > now:
                return None
            granted = Probe() if probe is None else probe
            granted.expires = now + lapse
            self._probes[node_id] = granted
            self.version += 1
            return granted

    def end_probe(self, node_id: Hashable, probe: Probe) -> None:
        """Take back a probe that was granted, whatever became of it."""
        with self._lock:
            if self._probes.get(node_id) is probe:
                del self._probes[node_id]
                self.version += 1

    def _due(self, record: NodeHealth) -> float:
        due = -math.inf
        if record.last_failure is not None:
            due = record.last_failure + self.policy.probe_interval
        probe = self._probes.get(record.id)
        return due if probe is None else max(due, probe.expires)

    def _end_granted_probe(self, node_id: Hashable) -> None:
        # A probe without an end in time belongs to a lease, which ends it itself.
        probe = self._probes.get(node_id)
        if probe is not None and not math.isinf(probe.expires):
            del self._probes[node_id]
            self.version += 1

    def _judge(self, old: NodeHealth, outcome: Outcome, reason: str | None) -> NodeHealth:
        if outcome is Outcome.SUCCESS:
            counted = replace(
                old,
                consecutive_failures=0,
                consecutive_successes=old.consecutive_successes + 1,
            )
            text = f"{counted.consecutive_successes} of the successes needed since it was unhealthy"
        else:
            counted = replace(
                old,
                consecutive_failures=old.consecutive_failures + 1,
                consecutive_successes=0,
                last_failure=self.clock(),
            )
            plural = "" if counted.consecutive_failures == 1 else "s in a row"
            text = f"{counted.consecutive_failures} failure{plural}"
            if reason:
                text += f", the last: {reason}"
        status = self.policy.next_status(counted, outcome)
        if status not in _STATES:
            whose = f"{type(self.policy).__name__}.next_status"
            refuse_awaitable(whose, status, "a report cannot wait: make it a plain function")
        if status not in _STATES:
            raise LoadwiseError(
                f"{type(self.policy).__name__}.next_status returned {status!r}; it must return one "
                f"of {', '.join(map(str, _STATES))}"
            )
        if status is HealthStatus.HEALTHY and not counted.consecutive_failures:
            return NodeHealth(old.id)
        down_since = counted.down_since
        if status is HealthStatus.UNHEALTHY and old.status is not HealthStatus.UNHEALTHY:
            down_since = counted.last_failure
        return replace(counted, status=status, reason=text, down_since=down_since)

    def _store(self, new: NodeHealth) -> None:
        down = new.status is HealthStatus.UNHEALTHY
        was = self._records.get(new.id)
        if new.status is HealthStatus.HEALTHY and not new.consecutive_failures:
            self._records.pop(new.id, None)
        else:
            self._records[new.id] = new
        if down:
            self._down[new.id] = new
        else:
            self._down.pop(new.id, None)
        if (
            down
            or (was is not None and was.status is not new.status)
            or (was is None and new.status is not HealthStatus.HEALTHY)
        ):
            self.version += 1

    def _announce(self, node_id: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        for listener in self._listeners.values():
            try:
                answer: object = listener(node_id, old, new)
                if answer is not None:
                    refuse_awaitable(f"the health listener {listener!r}", answer, _TOLD_NOW)
            except Exception:  # noqa: BLE001 - a listener's errors are its own
                log_exception("a health listener failed on node %r", node_id)
