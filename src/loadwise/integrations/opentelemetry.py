"""Metrics for OpenTelemetry.

Counts are kept by loadwise and read by observable instruments when a reader collects. So an event
does not cost the 5 microseconds of a synchronous instrument, and the series of a node that left
can be dropped, for which synchronous instruments have no means. Latencies alone are recorded as
they happen: there is no observable histogram, and so they carry exemplars.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import count
from threading import Lock
from time import monotonic
from typing import Final, Protocol
from weakref import WeakSet

from loadwise._fork import ForkAware, reset_in_child
from loadwise.integrations._base_collector import DEFAULT_BUCKETS, BaseCollector, as_bounds
from loadwise.integrations._host_metrics import (
    HOST_METRICS,
    HostMetric,
    HostReader,
    HostReading,
)
from loadwise.integrations._http.server_attributes import of_node
from loadwise.integrations._metric_table import (
    METRICS,
    REQUEST_DURATION,
    WAIT_DURATION,
    Metric,
    MetricKind,
    Reader,
)
from loadwise.integrations._snapshot import Snapshot

try:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter
except ImportError as error:
    raise ImportError(
        "loadwise.integrations.opentelemetry needs opentelemetry-api: "
        "pip install 'loadwise[opentelemetry]'"
    ) from error

__all__ = ["DEFAULT_BUCKETS", "OpenTelemetryCollector", "OpenTelemetryHostCollector"]

_BALANCER = "loadwise.balancer"
_HOST = "loadwise.host"
_NODE = "loadwise.node"

_FRESH: Final = 1.0
"""Seconds for which a reading of hosts may serve the instruments of one collection."""

_taken: WeakSet[Meter] = WeakSet()
_shows_hosts: WeakSet[Meter] = WeakSet()


_INSTRUMENTS: Mapping[MetricKind, str] = {
    MetricKind.COUNTER: "create_observable_counter",
    MetricKind.ADDITIVE_GAUGE: "create_observable_up_down_counter",
    MetricKind.GAUGE: "create_observable_gauge",
}

_Attributes = dict[str, str | int]


class _RecordAmount(Protocol):
    def __call__(self, amount: float, attributes: _Attributes) -> None: ...


class _HistogramFeed:
    """Passes times on to a histogram."""

    __slots__ = ("_attributes", "_record")

    def __init__(self, record: _RecordAmount, attributes: _Attributes) -> None:
        self._record = record
        self._attributes = attributes

    def counter(self, metric: str, *labels: str) -> Iterator[int]:  # noqa: ARG002 - as it is called
        """Return a new counter, which is read when the SDK collects."""
        return count()

    def observe(self, seconds: float) -> None:
        """Record how long a request took, or waited."""
        self._record(seconds, self._attributes)

    def after_fork(self) -> None:
        """Leave locks to the SDK."""


class OpenTelemetryCollector(BaseCollector[_HistogramFeed]):
    """Shows what balancers do through an OpenTelemetry meter.

    Args:
        meter: Who makes the instruments; that of the global provider, which may be set later, if
            not given.
        buckets: Upper bounds of the histograms of latencies and waits, in seconds; advice, which a
            view overrules.
        max_nodes: How many nodes of a balancer have series of their own; those beyond are added
            up as node ``"other"``, which is logged once.
        latency_by_node: Whether latencies are told apart by node. A reader of cumulative
            temporality shows the latencies of nodes that left until the process ends, because
            histograms have no means to drop them.

    Raises:
        ImportError: opentelemetry-api is not installed.
        ValueError: The meter has a collector already, or an argument is out of range.

    Give it to any number of balancers with ``metrics=``. It holds them weakly: the series of a
    balancer that is gone, or of a node that left, are not shown any more.

    Thread-safety: all methods may be called from any thread. In a forked child the counts go on.

    Cost: O(1) per event; O(nodes) per collection.

    Example:
        >>> from loadwise import Balancer
        >>> balancer = Balancer(["a"], metrics=OpenTelemetryCollector(get_meter("my.service")))
    """

    def __init__(
        self,
        meter: Meter | None = None,
        *,
        buckets: Iterable[float] = DEFAULT_BUCKETS,
        max_nodes: int = 1000,
        latency_by_node: bool = True,
    ) -> None:
        bounds = as_bounds(buckets)
        super().__init__(max_nodes)
        self._latency_by_node = latency_by_node
        if meter is None:
            meter = _default_meter()
        if meter in _taken:
            # The second of two observable instruments of one name would never be asked.
            raise ValueError(
                "the meter has these metrics already; one OpenTelemetryCollector serves any "
                "number of balancers, so use that one for all"
            )
        _taken.add(meter)
        self._record = _histogram(meter, REQUEST_DURATION, bounds)
        self._record_wait = _histogram(meter, WAIT_DURATION, bounds)
        for metric in METRICS:
            if metric.read is not None:
                _observe(meter, metric, self._callback(metric, metric.read))

    def _callback(
        self, metric: Metric, read: Reader
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        names = tuple(f"loadwise.{label}" for label in metric.labels)
        by_node = _NODE in names

        def observe(_options: CallbackOptions) -> Iterator[Observation]:
            for snapshot in map(Snapshot, self._shown()):
                for labels, number in read(snapshot):
                    attributes: _Attributes = {_BALANCER: snapshot.name}
                    attributes.update(zip(names, labels, strict=True))
                    if by_node:
                        attributes.update(of_node(labels[names.index(_NODE)]))
                    yield Observation(number, attributes)

        return observe

    def _make_recorder(self, balancer: str, label: str) -> _HistogramFeed:
        attributes: _Attributes = {_BALANCER: balancer}
        if self._latency_by_node:
            attributes |= {_NODE: label, **of_node(label)}
        return _HistogramFeed(self._record, attributes)

    def _make_waits(self, balancer: str) -> _HistogramFeed:
        return _HistogramFeed(self._note_wait, {_BALANCER: balancer})

    def _note_wait(self, amount: float, attributes: _Attributes) -> None:
        # Looked up at each wait, because the first recorder is older than the instrument.
        self._record_wait(amount, attributes)


class OpenTelemetryHostCollector(ForkAware):
    """Shows through an OpenTelemetry meter what all processes of a host have together.

    They are those that share by a `loadwise.shared_memory.HostState`. The totals are read from
    their file at each collection, so it does not matter which process shows them, nor whether that
    one takes part. Where several export, each exports the same totals: let one of them do it.

    Args:
        hosts: The names or paths that the processes give to ``HostState``, at least one.
        meter: Who makes the instruments; that of the global provider, which may be set later, if
            not given.
        max_nodes: How many nodes of a host have series of their own; those beyond are added up as
            node ``"other"``.

    Raises:
        ImportError: opentelemetry-api is not installed.
        TypeError: An argument is of the wrong kind.
        ValueError: A host cannot be one, its folder is missing, there is none, ``max_nodes`` is
            below 1, or the meter shows hosts already.

    Where there is no file yet, or it cannot be read, nothing is shown, and that is logged once.

    Thread-safety: full.

    Cost: nothing but at a collection, which takes O(processes * nodes).

    Example:
        >>> collector = OpenTelemetryHostCollector("api", meter=get_meter("my.service"))
    """

    def __init__(
        self,
        *hosts: str | os.PathLike[str],
        meter: Meter | None = None,
        max_nodes: int = 1000,
    ) -> None:
        self._hosts = HostReader(hosts, max_nodes)
        self._after_fork()
        self._readings: list[HostReading] = []
        self._read_at = 0.0
        # Which instruments have shown the present readings: each does so once.
        self._served: set[str] = set()
        if meter is None:
            meter = _default_meter()
        if meter in _shows_hosts:
            raise ValueError(
                "the meter shows hosts already; give all of them to one OpenTelemetryHostCollector"
            )
        _shows_hosts.add(meter)
        for each in HOST_METRICS:
            _observe(meter, each.metric, self._callback(each))
        reset_in_child(self)

    def _after_fork(self) -> None:
        self._lock = Lock()

    def _callback(self, shown: HostMetric) -> Callable[[CallbackOptions], Iterable[Observation]]:
        names = tuple(f"loadwise.{label}" for label in shown.metric.labels)

        def observe(_options: CallbackOptions) -> Iterator[Observation]:
            for reading in self._readings_for(shown.metric.name):
                for labels, number in shown.read(reading):
                    attributes: _Attributes = {_HOST: reading.name}
                    attributes.update(zip(names, labels, strict=True))
                    if labels:
                        attributes.update(of_node(labels[0]))
                    yield Observation(number, attributes)

        return observe

    def _readings_for(self, instrument: str) -> list[HostReading]:
        """Return the readings for one instrument: in a collection all show the same."""
        with self._lock:
            if instrument in self._served or not 0.0 <= monotonic() - self._read_at < _FRESH:
                self._readings = self._hosts.read()
                self._read_at = monotonic()
                self._served = set()
            self._served.add(instrument)
            return self._readings


def _observe(
    meter: Meter, metric: Metric, callback: Callable[[CallbackOptions], Iterable[Observation]]
) -> None:
    """Have a meter observe a metric."""
    make = getattr(meter, _INSTRUMENTS[metric.kind])
    make(f"loadwise.{metric.name}", [callback], metric.unit, metric.help)


def _histogram(meter: Meter, metric: Metric, bounds: tuple[float, ...]) -> _RecordAmount:
    return meter.create_histogram(
        f"loadwise.{metric.name}",
        unit=metric.unit,
        description=metric.help,
        explicit_bucket_boundaries_advisory=bounds,
    ).record


@cache
def _default_meter() -> Meter:
    """Return the meter of the global provider; until that is set, each call makes a new one."""
    return get_meter("loadwise")
