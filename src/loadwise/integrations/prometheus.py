"""Metrics for Prometheus.

Counters are plain objects that an event increments in place, and the gauges are read from
`Balancer.status` when Prometheus asks; so an event costs a fraction of a microsecond, and what is
shown is what is.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, count
from threading import Lock
from typing import Any

from loadwise.integrations._base_collector import DEFAULT_BUCKETS, BaseCollector, as_bounds
from loadwise.integrations._host_metrics import HOST_METRICS, HostReader
from loadwise.integrations._metric_table import (
    METRICS,
    REQUEST_DURATION,
    WAIT_DURATION,
    Metric,
    MetricKind,
)
from loadwise.integrations._snapshot import Snapshot

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client import Metric as Family
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )
    from prometheus_client.values import MutexValue, ValueClass

    from loadwise.integrations._worker_files import WorkerFiles
except ImportError as error:
    raise ImportError(
        "loadwise.integrations.prometheus needs prometheus-client: "
        "pip install 'loadwise[prometheus]'"
    ) from error

__all__ = ["DEFAULT_BUCKETS", "PrometheusCollector", "PrometheusHostCollector"]


class _TimesHistogram:
    """A histogram of times.

    Thread-safety: a lock, so that its buckets and its sum belong together.
    """

    __slots__ = ("_bounds", "_buckets", "_lock", "_seconds")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._buckets = [0] * (len(bounds) + 1)
        self._seconds = 0.0
        self._lock = Lock()

    def counter(self, metric: str, *labels: str) -> Iterator[int]:  # noqa: ARG002 - as it is called
        """Return a new counter, which is read when Prometheus asks."""
        return count()

    def observe(self, seconds: float) -> None:
        """Record how long a request took, or waited."""
        bucket = bisect_left(self._bounds, seconds)
        with self._lock:
            self._buckets[bucket] += 1
            self._seconds += seconds

    def histogram(self) -> tuple[list[int], float]:
        """Return the counts of times not above each bound and above all, and their sum."""
        with self._lock:
            return list(accumulate(self._buckets)), self._seconds

    def after_fork(self) -> None:
        """Replace the lock."""
        self._lock = Lock()


class _WorkerTimes(_TimesHistogram):
    """A histogram and counters that are written to this process's files, too."""

    __slots__ = ("_files", "_labels", "_write")

    def __init__(
        self, bounds: tuple[float, ...], files: WorkerFiles, metric: Metric, *labels: str
    ) -> None:
        super().__init__(bounds)
        self._files = files
        self._labels = labels
        self._write = files.timer(metric.name, *labels)

    def counter(self, metric: str, *labels: str) -> Iterator[int]:
        """Return a new counter, whose number is written, too."""
        return self._files.counter(metric, *self._labels, *labels)

    def observe(self, seconds: float) -> None:
        """Record how long a request took, or waited."""
        super().observe(seconds)
        self._write(seconds)


class PrometheusCollector(BaseCollector[_TimesHistogram]):
    """Shows what balancers do in a Prometheus registry.

    Args:
        registry: Where to register; the default registry if not given. ``None`` registers
            nowhere: register it yourself, it is a collector like any other.
        buckets: Upper bounds of the histograms of latencies and waits, in seconds.
        max_nodes: How many nodes of a balancer have series of their own; those beyond are added
            up under ``node="other"``, which is logged once.

    Raises:
        ImportError: prometheus-client is not installed.
        ValueError: The registry has one already, or an argument is out of range.

    Give it to any number of balancers with ``metrics=``. It holds them weakly: the series of a
    balancer that is gone, or of a node that left, are not shown any more.

    Where ``PROMETHEUS_MULTIPROC_DIR`` was set before prometheus_client was imported, it also writes
    to the files of its multiprocess mode, by which one of several processes shows the metrics of
    all. Series cannot be taken back there, so ``max_nodes`` limits how many nodes have had one.

    Thread-safety: all methods may be called from any thread. In a forked child the counts go on.

    Cost: O(1) per event; O(nodes) per scrape.

    Example:
        >>> from loadwise import Balancer
        >>> registry = CollectorRegistry()
        >>> balancer = Balancer(["a"], metrics=PrometheusCollector(registry), name="search")
        >>> with balancer.acquire():
        ...     pass
        >>> registry.get_sample_value(
        ...     "loadwise_requests_total",
        ...     {"balancer": "search", "node": "a", "outcome": "success"},
        ... )
        1
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = REGISTRY,
        *,
        buckets: Iterable[float] = DEFAULT_BUCKETS,
        max_nodes: int = 1000,
    ) -> None:
        self._bounds = as_bounds(buckets)
        # Which class it is was decided when prometheus_client was imported.
        self._labels_stay = ValueClass is not MutexValue
        self._files = WorkerFiles(self._bounds, self._shown) if self._labels_stay else None
        super().__init__(max_nodes)
        if registry is not None:
            try:
                registry.register(self)
            except ValueError as error:
                raise ValueError(
                    "the registry has these metrics already; one PrometheusCollector serves any "
                    "number of balancers, so use that one for all"
                ) from error

    def describe(self) -> Iterable[Family]:
        """Return the families without samples; the registry asks."""
        return list(_families().values())

    def collect(self) -> Iterable[Family]:
        """Return the families with samples; the registry asks at each scrape. O(nodes)."""
        families = _families()
        bounds = [*map(str, self._bounds), "+Inf"]

        def add_times(metric: Metric, labels: tuple[str, ...], times: _TimesHistogram) -> None:
            counts, seconds = times.histogram()
            if counts[-1]:
                buckets = list(zip(bounds, counts, strict=True))
                families[metric].add_metric(labels, buckets, seconds)

        for snapshot in map(Snapshot, self._shown()):
            for metric in METRICS:
                if metric.read is not None:
                    for labels, number in metric.read(snapshot):
                        families[metric].add_metric((snapshot.name, *labels), number)
            for each in snapshot.counters:
                add_times(REQUEST_DURATION, (snapshot.name, each.label), each.recorder)
            add_times(WAIT_DURATION, (snapshot.name,), snapshot.metrics.waits)
        return list(families.values())

    def _make_recorder(self, balancer: str, label: str) -> _TimesHistogram:
        if self._files is None:
            return _TimesHistogram(self._bounds)
        return _WorkerTimes(self._bounds, self._files, REQUEST_DURATION, balancer, label)

    def _make_waits(self, balancer: str) -> _TimesHistogram:
        if self._files is None:
            return _TimesHistogram(self._bounds)
        return _WorkerTimes(self._bounds, self._files, WAIT_DURATION, balancer)


class PrometheusHostCollector:
    """Shows in a Prometheus registry what all processes of a host have together.

    They are those that share by a `loadwise.shared_memory.HostState`. The totals are read from
    their file at each scrape, so it does not matter which process shows them, nor whether that one
    takes part.

    Args:
        hosts: The names or paths that the processes give to ``HostState``, at least one.
        registry: Where to register; the default registry if not given. ``None`` registers
            nowhere: register it yourself, as where one process answers for several workers.
        max_nodes: How many nodes of a host have series of their own; those beyond are added up
            under ``node="other"``.

    Raises:
        ImportError: prometheus-client is not installed.
        TypeError: An argument is of the wrong kind.
        ValueError: A host cannot be one, its folder is missing, there is none, ``max_nodes`` is
            below 1, or the registry shows hosts already.

    Where there is no file yet, or it cannot be read, nothing is shown, and that is logged once.

    Thread-safety: full.

    Cost: nothing but at a scrape, which takes O(processes * nodes).

    Example:
        >>> import os, tempfile
        >>> from loadwise import Balancer
        >>> from loadwise.shared_memory import HostState
        >>> path = os.path.join(tempfile.mkdtemp(), "api")
        >>> registry = CollectorRegistry()
        >>> collector = PrometheusHostCollector(path, registry=registry)
        >>> balancer = Balancer(["a"], host=HostState(path))
        >>> with balancer.acquire():
        ...     registry.get_sample_value(
        ...         "loadwise_host_requests_in_flight", {"host": path, "node": "a"}
        ...     )
        1
    """

    def __init__(
        self,
        *hosts: str | os.PathLike[str],
        registry: CollectorRegistry | None = REGISTRY,
        max_nodes: int = 1000,
    ) -> None:
        self._hosts = HostReader(hosts, max_nodes)
        if registry is not None:
            try:
                registry.register(self)
            except ValueError as error:
                raise ValueError(
                    "the registry shows hosts already; give all of them to one "
                    "PrometheusHostCollector"
                ) from error

    def describe(self) -> Iterable[Family]:
        """Return the families without samples; the registry asks."""
        return [_family(metric, "host") for metric, _ in HOST_METRICS]

    def collect(self) -> Iterable[Family]:
        """Return the families with samples; the registry asks at each scrape."""
        readings = self._hosts.read()
        for metric, read in HOST_METRICS:
            family = _family(metric, "host")
            for reading in readings:
                for labels, number in read(reading):
                    family.add_metric((reading.name, *labels), number)
            yield family


_FAMILIES: Mapping[MetricKind, Any] = {
    MetricKind.COUNTER: CounterMetricFamily,
    MetricKind.GAUGE: GaugeMetricFamily,
    MetricKind.ADDITIVE_GAUGE: GaugeMetricFamily,
    MetricKind.HISTOGRAM: HistogramMetricFamily,
}


def _families() -> dict[Metric, Any]:
    """Return the families of the table, without samples."""
    return {metric: _family(metric, "balancer") for metric in METRICS}


def _family(metric: Metric, whose: str) -> Any:  # noqa: ANN401 - of one of several classes
    """Return a metric's family, without samples; its first label says whose it is."""
    return _FAMILIES[metric.kind](
        metric.prometheus_name, metric.help, labels=(whose, *metric.labels)
    )
