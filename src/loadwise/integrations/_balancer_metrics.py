"""Metrics of the balancers of one name: what is counted, and which of it is shown.

A collector that is given to several balancers keeps one `BalancerMetrics` for each name. Counters
are fed by events; gauges are not: they are read from the balancer when somebody looks, so they
cannot drift. Which nodes exist is read from the balancer, too: the series of a node that left is
put aside, where a late answer may still be counted, and is found again should the node come back.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from threading import Lock
from typing import Generic, Protocol, TypeGuard, TypeVar

from loadwise._fork import ForkAware, reset_in_child
from loadwise.balancer import NodeStatus
from loadwise.health import HealthStatus
from loadwise.integrations._node_counters import OTHER, Counts, MetricRecorder, NodeCounters, bump
from loadwise.integrations._node_state import NodeState, SharedState, state_name
from loadwise.nodes import node_id
from loadwise.outcome import Outcome
from loadwise.outliers import Ejection

__all__ = ["BalancerMetrics", "Budget", "Watched"]

R = TypeVar("R", bound=MetricRecorder)

_log = logging.getLogger("loadwise")

# Looking a member up in its enumeration takes as long as counting it.
_CANCELLED = Outcome.CANCELLED


class Watched(Protocol):
    """Balancer, as far as a collector reads it."""

    name: str

    @property
    def nodes(self) -> Sequence[object]:
        """The members."""
        ...

    @property
    def quota(self) -> object | None:
        """Keeper of its quotas."""
        ...

    @property
    def health(self) -> object | None:
        """Keeper of its nodes' health."""
        ...

    @property
    def panic(self) -> object | None:
        """State of panic, while it is in it."""
        ...

    def status(self) -> list[NodeStatus]:
        """Return how each member is."""
        ...


class Budget(Protocol):
    """Retry budget, as far as a collector reads it."""

    def balance(self) -> float:
        """Return how many retries are allowed now."""
        ...


class Shared(Protocol):
    """Shared quota or health, as far as a collector reads it."""

    @property
    def connected(self) -> bool:
        """True if the server can be reached."""
        ...

    @property
    def events(self) -> Mapping[str, int]:
        """Count of each kind of event."""
        ...


def _is_shared(value: object) -> TypeGuard[Shared]:
    return hasattr(value, "connected") and hasattr(value, "events")


class BalancerMetrics(ForkAware, Generic[R]):
    """The counts of the balancers of one name; what they report to.

    Balancers that share a name share it: what they count adds up, and of a node that is in
    several, the newest balancer tells the state. So a balancer may be replaced by its successor
    while the two overlap.

    Args:
        name: The name.
        max_nodes: How many nodes have series of their own.
        make: Makes the recorder of a node from its label.
        waits: Told how long requests waited; makes the counters that are no node's.
        labels_stay: Whether a series that was shown once is shown for ever. If so, ``max_nodes``
            limits how many nodes get one in all, and not at a time.

    Attributes:
        waits: The same.
        waits_in_vain: How many requests waited for a node and got none.
        unavailable: How often no node could be given, by reason.
        retries: How often a request was tried again, by reason.
        retries_refused: How often a retry was given up, by reason.
        panics: How often panic began.

    Thread-safety: events of known nodes take no lock here. In a forked child the counts go on.
    """

    def __init__(
        self,
        name: str,
        max_nodes: int,
        make: Callable[[str], R],
        waits: R,
        *,
        labels_stay: bool = False,
    ) -> None:
        self.name = name
        self.waits = waits
        self.waits_in_vain = waits.counter("waits_in_vain")
        self.unavailable: Counts[str] = {}
        self.retries: Counts[str] = {}
        self.retries_refused: Counts[str] = {}
        self.panics = waits.counter("panics")
        self._max_nodes = max_nodes
        self._labels_stay = labels_stay
        self._make = make
        self._balancers: list[weakref.ref[Watched]] = []
        self._budgets: list[weakref.ref[Budget]] = []
        self._series: dict[Hashable, NodeCounters[R]] = {}
        self._own: dict[str, NodeCounters[R]] = {}
        self._left: dict[str, NodeCounters[R]] = {}
        self._rest: NodeCounters[R] | None = None
        self._lock = Lock()
        reset_in_child(self)

    def _after_fork(self) -> None:
        self._lock = Lock()
        self.waits.after_fork()
        for series in {*self._series.values(), *self._own.values(), *self._left.values()}:
            series.recorder.after_fork()

    # Events.

    def on_selection(self, node_id: Hashable, strategy: str) -> None:
        """Count a pick."""
        series = self._series.get(node_id) or self._find(node_id)
        counter = series.picks.get(strategy)
        if counter is None:
            counter = series.picks.setdefault(strategy, series.recorder.counter("picks", strategy))
        next(counter)

    def on_health_change(self, node_id: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        """Count a change of state."""
        series = self._series.get(node_id) or self._find(node_id)
        change = (state_name(old), state_name(new))
        counter = series.transitions.get(change)
        if counter is None:
            counter = series.recorder.counter("health.transitions", *change)
            counter = series.transitions.setdefault(change, counter)
        next(counter)

    def on_outcome(self, node_id: Hashable, outcome: Outcome, latency: float) -> None:
        """Count the end of a request and, unless the caller gave it up, how long it took."""
        series = self._series.get(node_id) or self._find(node_id)
        # The attribute behind `.value`, which is a function call away.
        next(series.outcomes[outcome._value_])
        if outcome is not _CANCELLED:
            # A clock may step back; time spent may not.
            series.recorder.observe(latency if latency > 0.0 else 0.0)  # noqa: FURB136 - calls cost

    def on_unavailable(self, reason: str) -> None:
        """Count a request for which there was no node."""
        bump(self.unavailable, reason, partial(self.waits.counter, "unavailable"))

    def on_retry(self, node_id: Hashable, reason: str) -> None:  # noqa: ARG002 - as it is called
        """Count a retry."""
        bump(self.retries, reason, partial(self.waits.counter, "retries"))

    def on_retry_refused(self, reason: str) -> None:
        """Count a retry that was given up."""
        bump(self.retries_refused, reason, partial(self.waits.counter, "retries_refused"))

    def on_panic(self, entered: bool) -> None:  # noqa: FBT001 - as it is called
        """Count a panic that begins."""
        if entered:
            next(self.panics)

    def on_cooldown(self, node_id: Hashable, seconds: float) -> None:  # noqa: ARG002 - as it is called
        """Count a cooldown that begins."""
        next((self._series.get(node_id) or self._find(node_id)).cooldowns)

    def on_ejection(self, node_id: Hashable, ejection: Ejection) -> None:
        """Count an ejection, by the rule that the node broke."""
        series = self._series.get(node_id) or self._find(node_id)
        bump(series.ejections, ejection.rule, partial(series.recorder.counter, "ejections"))

    def on_wait(self, seconds: float, got: bool) -> None:  # noqa: FBT001 - as it is called
        """Count a request that waited for a node, and how long."""
        self.waits.observe(max(0.0, seconds))
        if not got:
            next(self.waits_in_vain)

    # What is watched.

    def watch(self, balancer: Watched) -> None:
        """Show this balancer's nodes, for as long as it lives."""
        with self._lock:
            self._balancers = [weakref.ref(each) for each in (*self._living(), balancer)]

    def watch_budget(self, budget: Budget) -> None:
        """Show what is left of this retry budget, for as long as it lives."""
        with self._lock:
            others = [each for each in self._living_budgets() if each is not budget]
            self._budgets = [weakref.ref(each) for each in (*others, budget)]

    def is_over(self) -> bool:
        """Tell whether there was a balancer, and nothing is left to show any more."""
        return bool(self._balancers) and not self._living() and not self._living_budgets()

    def balance(self) -> float | None:
        """Return what the retry budgets that are watched have left; ``None`` without any."""
        budgets = self._living_budgets()
        return sum(budget.balance() for budget in budgets) if budgets else None

    def in_panic(self) -> int | None:
        """Return how many balancers are in panic; ``None`` without any. O(n) after a change."""
        balancers = self._living()
        return sum(each.panic is not None for each in balancers) if balancers else None

    def series(self) -> list[NodeCounters[R]]:
        """Return the series to show. O(n)."""
        with self._lock:
            self._sort_out()
            return [*self._own.values(), *([] if self._rest is None else [self._rest])]

    def states(self) -> dict[str, NodeState]:
        """Return the gauges to show, by label. O(n)."""
        reports = [balancer.status() for balancer in reversed(self._living())]
        with self._lock:
            self._sort_out()
            series = self._series
        states: dict[str, NodeState] = {}
        told: set[Hashable] = set()
        for status in (status for report in reports for status in report):
            if status.id not in series:  # it left in this moment
                continue
            state = states.setdefault(series[status.id].label, NodeState())
            # Of this process alone: those who add processes up would count others' again.
            state.in_flight += status.in_flight - status.elsewhere
            if status.id in told:
                continue
            told.add(status.id)
            state.drained += status.drained
            state.ailing += status.ailing
            state.ejected += status.ejected
            if status.cooldown is not None:
                state.on_cooldown += 1
                left = status.cooldown.seconds_left
                state.cooldown_seconds = max(state.cooldown_seconds, left)
            state.health[state_name(status.health)] += 1
            for dimension, left in status.quota_remaining.items():
                state.quota[dimension] = state.quota.get(dimension, 0) + left
        return states

    def shared(self) -> dict[str, SharedState]:
        """Return what the balancers share with other processes: their quota, their health."""
        states: dict[str, SharedState] = {}
        for source in ("quota", "health"):
            found = {id(each): each for each in map(attrgetter(source), self._living())}
            for each in filter(_is_shared, found.values()):
                state = states.setdefault(source, SharedState())
                state.connected = state.connected and each.connected
                state.events.update(each.events)
        return states

    # Which node has which series. The lock is held in all that follows but `_find`.

    def _find(self, identity: Hashable) -> NodeCounters[R]:
        """Return the series of a node that has none yet, or whose series was put aside."""
        identity = node_id(identity)
        with self._lock:
            if identity not in self._series and self._balancers:
                self._sort_out()
            series = self._series.get(identity)
            if series is None:
                series = self._series[identity] = self._of_stranger(str(identity))
            return series

    def _of_stranger(self, label: str) -> NodeCounters[R]:
        """Return the series of what is not known to be a member."""
        known = self._own.get(label) or self._left.get(label)
        if known is not None:
            return known
        # Where no balancer says who is a member, everybody is. Where there is no more room for a
        # label that stays, a stranger has none either.
        if not self._balancers or not self._has_room(label):
            return self._admit(label)
        series = NodeCounters(label, self._make(label))
        self._put_aside(label, series)
        return series

    def _admit(self, label: str) -> NodeCounters[R]:
        """Give a member series of its own, or the common one beyond the limit."""
        if label in self._own:
            return self._own[label]
        if len(self._own) < self._max_nodes and self._has_room(label) and label != OTHER:
            left = self._left
            series = left.pop(label) if label in left else NodeCounters(label, self._make(label))
            self._own[label] = series
            return series
        if self._rest is None:
            self._rest = NodeCounters(OTHER, self._make(OTHER))
            if label != OTHER:
                _log.warning(
                    "balancer %r has more than max_nodes=%d nodes; the metrics of the others are "
                    "added up as node %r",
                    self.name,
                    self._max_nodes,
                    OTHER,
                )
        return self._rest

    def _has_room(self, label: str) -> bool:
        """Tell whether a label may be shown, as far as earlier ones stay."""
        if not self._labels_stay or label in self._left:
            return True
        return len(self._own) + len(self._left) < self._max_nodes

    def _sort_out(self) -> None:
        """Put the series of nodes that left aside, and give the newcomers theirs. O(n)."""
        if not self._balancers:
            return
        members = [node for balancer in self._living() for node in balancer.nodes]
        labels = {identity: str(identity) for identity in map(node_id, members)}
        present = set(labels.values())
        for label in [label for label in self._own if label not in present]:
            self._put_aside(label, self._own.pop(label))
        self._series = {identity: self._admit(label) for identity, label in labels.items()}

    def _put_aside(self, label: str, series: NodeCounters[R]) -> None:
        self._left[label] = series
        if len(self._left) > self._max_nodes:
            del self._left[next(iter(self._left))]

    def _living_budgets(self) -> list[Budget]:
        return [budget for each in self._budgets if (budget := each()) is not None]

    def _living(self) -> list[Watched]:
        return [balancer for each in self._balancers if (balancer := each()) is not None]
