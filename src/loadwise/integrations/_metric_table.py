"""The metrics of a balancer, declared once for every monitoring system.

A metric has one name, in OpenTelemetry's convention; `Metric.prometheus_name` is the same in
Prometheus's. An exporter turns the table into its system's instruments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from loadwise._counter import upcoming
from loadwise.integrations._node_counters import Counts, totals
from loadwise.integrations._snapshot import Snapshot

__all__ = [
    "METRICS",
    "REQUEST_DURATION",
    "SHARED_EVENTS",
    "WAIT_DURATION",
    "Merge",
    "Metric",
    "MetricKind",
    "Reader",
]

Labels = tuple[str, ...]
Samples = Iterator[tuple[Labels, float]]
Reader = Callable[[Snapshot[Any]], Samples]


class MetricKind(Enum):
    """Kind of a metric, by how its numbers behave."""

    COUNTER = "counter"
    ADDITIVE_GAUGE = "additive gauge"
    """Goes up and down; sums over nodes mean something."""
    GAUGE = "gauge"
    """Goes up and down; sums over nodes mean nothing."""
    HISTOGRAM = "histogram"


class Merge(Enum):
    """Rule by which one gauge of several processes becomes one number."""

    SUM = "sum"
    MOST = "max"
    LEAST = "min"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: Its name after ``loadwise.``, in OpenTelemetry's convention.
        kind: How its numbers behave.
        unit: Its unit, as UCUM writes it.
        help: Its meaning.
        labels: The names of its labels, besides the balancer.
        read: Returns the values of its labels with their number, from a `Snapshot`. Histograms
            have none: a time is recorded when it is known.
        merge: How several processes become one number, for a gauge.
    """

    name: str
    kind: MetricKind
    unit: str
    help: str
    labels: Labels = ()
    read: Reader | None = None
    merge: Merge = Merge.SUM

    @property
    def prometheus_name(self) -> str:
        """The name in Prometheus's convention; its clients append ``_total`` to counters."""
        name = f"loadwise_{self.name.replace('.', '_')}"
        return f"{name}_seconds" if self.unit == "s" else name


def _by_node(field: str) -> Reader:
    """Return what reads a count of each node by one or two labels."""

    def read(snapshot: Snapshot[Any]) -> Samples:
        for each in snapshot.counters:
            counts: Counts[Any] = getattr(each, field)
            for key, number in totals(counts).items():
                yield (each.label, *(key if isinstance(key, tuple) else (key,))), number

    return read


def _state(field: str) -> Reader:
    """Return what reads a gauge of each node."""

    def read(snapshot: Snapshot[Any]) -> Samples:
        return (((node,), getattr(state, field)) for node, state in snapshot.states.items())

    return read


def _state_by(field: str) -> Reader:
    """Return what reads a gauge of each node by one label."""

    def read(snapshot: Snapshot[Any]) -> Samples:
        for node, state in snapshot.states.items():
            for key, number in getattr(state, field).items():
                yield (node, key), number

    return read


def _by_reason(field: str) -> Reader:
    """Return what reads a count of the balancer by reason."""

    def read(snapshot: Snapshot[Any]) -> Samples:
        counts: Counts[str] = getattr(snapshot.metrics, field)
        return (((reason,), number) for reason, number in totals(counts).items())

    return read


def _cooldowns(snapshot: Snapshot[Any]) -> Samples:
    for each in snapshot.counters:
        number = upcoming(each.cooldowns)
        if number:
            yield (each.label,), number


def _nodes_on_cooldown(snapshot: Snapshot[Any]) -> Samples:
    if snapshot.states:
        yield (), sum(state.on_cooldown for state in snapshot.states.values())


def _nodes_ejected(snapshot: Snapshot[Any]) -> Samples:
    if snapshot.states:
        yield (), sum(state.ejected for state in snapshot.states.values())


def _waits_in_vain(snapshot: Snapshot[Any]) -> Samples:
    number = upcoming(snapshot.metrics.waits_in_vain)
    if number or snapshot.in_panic is not None:
        yield (), number


def _panic(snapshot: Snapshot[Any]) -> Samples:
    if snapshot.in_panic is not None:
        yield (), snapshot.in_panic


def _panics(snapshot: Snapshot[Any]) -> Samples:
    # Whoever looks may be the first to see it, and is then to find it counted: so look first.
    in_panic = snapshot.in_panic
    number = upcoming(snapshot.metrics.panics)
    if number or in_panic is not None:
        yield (), number


def _balance(snapshot: Snapshot[Any]) -> Samples:
    balance = snapshot.metrics.balance()
    if balance is not None:
        yield (), balance


def _connected(snapshot: Snapshot[Any]) -> Samples:
    return (((source,), int(state.connected)) for source, state in snapshot.shared.items())


def _shared_events(snapshot: Snapshot[Any]) -> Samples:
    for source, state in snapshot.shared.items():
        for kind, number in state.events.items():
            yield (source, kind), number


REQUEST_DURATION = Metric(
    "request.duration",
    MetricKind.HISTOGRAM,
    "s",
    "Duration of requests, excluding those cancelled by the caller.",
    ("node",),
)
WAIT_DURATION = Metric(
    "wait.duration",
    MetricKind.HISTOGRAM,
    "s",
    "Time that requests waited for a node, whether they got one or not.",
)
SHARED_EVENTS = Metric(
    "shared.events",
    MetricKind.COUNTER,
    "{event}",
    "Events of shared state, such as outages, by kind.",
    ("source", "kind"),
    _shared_events,
)

METRICS = (
    Metric(
        "picks",
        MetricKind.COUNTER,
        "{pick}",
        "Picks of a node, by strategy.",
        ("node", "strategy"),
        _by_node("picks"),
    ),
    Metric(
        "requests",
        MetricKind.COUNTER,
        "{request}",
        "Finished requests, by outcome.",
        ("node", "outcome"),
        _by_node("outcomes"),
    ),
    REQUEST_DURATION,
    Metric(
        "requests_in_flight",
        MetricKind.ADDITIVE_GAUGE,
        "{request}",
        "Requests in progress.",
        ("node",),
        _state("in_flight"),
    ),
    Metric(
        "node.health",
        MetricKind.ADDITIVE_GAUGE,
        "{node}",
        "1 for the health state that the node is in, 0 for the others.",
        ("node", "state"),
        _state_by("health"),
    ),
    Metric(
        "health.transitions",
        MetricKind.COUNTER,
        "{transition}",
        "Changes of a node's health state.",
        ("node", "old_state", "new_state"),
        _by_node("transitions"),
    ),
    Metric(
        "node.drained",
        MetricKind.ADDITIVE_GAUGE,
        "{node}",
        "1 for a node that gets no new requests because of drain() or a weight of 0.",
        ("node",),
        _state("drained"),
    ),
    Metric(
        "node.ailing",
        MetricKind.ADDITIVE_GAUGE,
        "{node}",
        "1 for a node that fails often but is not dead; in panic it still gets requests.",
        ("node",),
        _state("ailing"),
    ),
    Metric(
        "node.cooldown",
        MetricKind.GAUGE,
        "s",
        "Seconds left of the node's cooldown; 0 without one.",
        ("node",),
        _state("cooldown_seconds"),
        Merge.MOST,
    ),
    Metric(
        "nodes_on_cooldown",
        MetricKind.ADDITIVE_GAUGE,
        "{node}",
        "Nodes on cooldown.",
        (),
        _nodes_on_cooldown,
        Merge.MOST,
    ),
    Metric(
        "cooldowns",
        MetricKind.COUNTER,
        "{cooldown}",
        "Cooldowns that began.",
        ("node",),
        _cooldowns,
    ),
    Metric(
        "nodes_ejected",
        MetricKind.ADDITIVE_GAUGE,
        "{node}",
        "Nodes that are ejected because they did worse than the rest.",
        (),
        _nodes_ejected,
        Merge.MOST,
    ),
    Metric(
        "ejections",
        MetricKind.COUNTER,
        "{ejection}",
        "Ejections, by the rule that the node broke.",
        ("node", "rule"),
        _by_node("ejections"),
    ),
    WAIT_DURATION,
    Metric(
        "waits_in_vain",
        MetricKind.COUNTER,
        "{request}",
        "Requests that waited for a node and got none.",
        (),
        _waits_in_vain,
    ),
    Metric(
        "panic",
        MetricKind.ADDITIVE_GAUGE,
        "{balancer}",
        "1 in panic, while too few nodes are available and ailing ones get requests; else 0.",
        (),
        _panic,
    ),
    Metric("panics", MetricKind.COUNTER, "{panic}", "Times that panic began.", (), _panics),
    Metric(
        "quota.remaining",
        MetricKind.GAUGE,
        "{unit}",
        "Quota left, in units of its dimension.",
        ("node", "dimension"),
        _state_by("quota"),
        Merge.LEAST,
    ),
    Metric(
        "unavailable",
        MetricKind.COUNTER,
        "{request}",
        "Requests that found no node, by the reason that ruled out most nodes.",
        ("reason",),
        _by_reason("unavailable"),
    ),
    Metric(
        "retries",
        MetricKind.COUNTER,
        "{retry}",
        "Retries on another node, by reason.",
        ("reason",),
        _by_reason("retries"),
    ),
    Metric(
        "retries_refused",
        MetricKind.COUNTER,
        "{retry}",
        "Retries not made, by reason.",
        ("reason",),
        _by_reason("retries_refused"),
    ),
    Metric(
        "retry_budget.balance",
        MetricKind.GAUGE,
        "{retry}",
        "Retries that the budget allows now.",
        (),
        _balance,
    ),
    Metric(
        "shared.connected",
        MetricKind.GAUGE,
        "1",
        "1 while the server of shared state can be reached, else 0.",
        ("source",),
        _connected,
        Merge.LEAST,
    ),
    SHARED_EVENTS,
)
"""All of them, in the order in which they are shown."""
