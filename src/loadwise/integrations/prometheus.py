"""Metrics for Prometheus.

Counters are plain objects that an event increments in place, and the gauges are read from
`Balancer.status` when Prometheus asks; so an event costs a fraction of a microsecond, and what is
shown is what is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from threading import Lock

from loadwise._counter import upcoming
from loadwise.integrations._collector import DEFAULT_BUCKETS, SeriesCollector, as_bounds
from loadwise.integrations._ledger import Ledger, NodeState
from loadwise.integrations._series import NodeSeries, totals

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Metric
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )
except ImportError as error:
    raise ImportError(
        "loadwise.integrations.prometheus needs prometheus-client: "
        "pip install 'loadwise[prometheus]'"
    ) from error

__all__ = ["DEFAULT_BUCKETS", "PrometheusCollector"]


class _Series(NodeSeries):
    """Counts with a histogram of latencies.

    Thread-safety: a lock, so that its buckets and its sum belong together.
    """

    __slots__ = ("_bounds", "_buckets", "_lock", "_seconds")

    def __init__(self, label: str, bounds: tuple[float, ...]) -> None:
        super().__init__(label)
        self._bounds = bounds
        self._buckets = [0] * (len(bounds) + 1)
        self._seconds = 0.0
        self._lock = Lock()

    def observe(self, latency: float) -> None:
        """Take note of how many seconds a request took, or waited."""
        bucket = bisect_left(self._bounds, latency)
        with self._lock:
            self._buckets[bucket] += 1
            self._seconds += latency

    def histogram(self) -> tuple[list[int], float]:
        """Return the counts of times not above each bound and above all, and their sum."""
        with self._lock:
            return list(accumulate(self._buckets)), self._seconds

    def after_fork(self) -> None:
        """Replace the lock."""
        self._lock = Lock()


class _Families:
    """The metric families of one scrape."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = [*map(str, bounds), "+Inf"]
        self.picks = CounterMetricFamily(
            "loadwise_picks",
            "How often a node was chosen.",
            labels=("balancer", "node", "strategy"),
        )
        self.requests = CounterMetricFamily(
            "loadwise_requests",
            "Requests that ended, by how they ended.",
            labels=("balancer", "node", "outcome"),
        )
        self.duration = HistogramMetricFamily(
            "loadwise_request_duration_seconds",
            "How long requests took, but for those that their callers gave up.",
            labels=("balancer", "node"),
        )
        self.in_flight = GaugeMetricFamily(
            "loadwise_requests_in_flight",
            "Requests under way.",
            labels=("balancer", "node"),
        )
        self.health = GaugeMetricFamily(
            "loadwise_node_health",
            "1 for the state of health that the node is in, 0 for the others.",
            labels=("balancer", "node", "state"),
        )
        self.transitions = CounterMetricFamily(
            "loadwise_health_transitions",
            "Changes of the state of health.",
            labels=("balancer", "node", "from", "to"),
        )
        self.drained = GaugeMetricFamily(
            "loadwise_node_drained",
            "1 for a node that is given no new requests by drain() or a weight of 0.",
            labels=("balancer", "node"),
        )
        self.ailing = GaugeMetricFamily(
            "loadwise_node_ailing",
            "1 for a node that fails often but is not dead; in panic it gets requests, too.",
            labels=("balancer", "node"),
        )
        self.cooldown = GaugeMetricFamily(
            "loadwise_node_cooldown_seconds",
            "Seconds for which a node still sits out; 0 for one that does not.",
            labels=("balancer", "node"),
        )
        self.on_cooldown = GaugeMetricFamily(
            "loadwise_nodes_on_cooldown", "Nodes that sit out.", labels=("balancer",)
        )
        self.cooldowns = CounterMetricFamily(
            "loadwise_cooldowns",
            "How often the balancer began to have a node sit out.",
            labels=("balancer", "node"),
        )
        self.waits = HistogramMetricFamily(
            "loadwise_wait_seconds",
            "How long requests waited for a node, whether they got one or not.",
            labels=("balancer",),
        )
        self.waits_in_vain = CounterMetricFamily(
            "loadwise_waits_in_vain",
            "Requests that waited for a node and got none.",
            labels=("balancer",),
        )
        self.panic = GaugeMetricFamily(
            "loadwise_panic",
            "1 while too few nodes are available, so that ailing ones get requests, too; else 0.",
            labels=("balancer",),
        )
        self.panics = CounterMetricFamily(
            "loadwise_panics", "How often panic began.", labels=("balancer",)
        )
        self.quota = GaugeMetricFamily(
            "loadwise_quota_remaining",
            "Units of quota left.",
            labels=("balancer", "node", "dimension"),
        )
        self.unavailable = CounterMetricFamily(
            "loadwise_unavailable",
            "Requests for which there was no node, by what ruled out most of them.",
            labels=("balancer", "reason"),
        )
        self.retries = CounterMetricFamily(
            "loadwise_retries",
            "Requests tried again on another node, by why.",
            labels=("balancer", "reason"),
        )
        self.retries_refused = CounterMetricFamily(
            "loadwise_retries_refused",
            "Retries given up, by why.",
            labels=("balancer", "reason"),
        )
        self.budget = GaugeMetricFamily(
            "loadwise_retry_budget_balance",
            "Retries that the budget allows now.",
            labels=("balancer",),
        )

        self.shared_connected = GaugeMetricFamily(
            "loadwise_shared_connected",
            "1 if the server of state that processes share can be reached, 0 if not.",
            labels=("balancer", "source"),
        )
        self.shared_events = CounterMetricFamily(
            "loadwise_shared_events",
            "What happened to state that processes share: outages and the like.",
            labels=("balancer", "source", "kind"),
        )

    def __iter__(self) -> Iterator[Metric]:
        return (each for each in vars(self).values() if isinstance(each, Metric))

    def add(self, ledger: Ledger[_Series]) -> None:
        """Add what a ledger has to show."""
        name = ledger.name
        for series in ledger.series():
            self._add_series((name, series.label), series)
        self._add_states(name, ledger.states())
        self._add_panic(ledger)
        self._add_waits(ledger)
        for family, counts in (
            (self.unavailable, ledger.unavailable),
            (self.retries, ledger.retries),
            (self.retries_refused, ledger.retries_refused),
        ):
            for reason, number in totals(counts).items():
                family.add_metric((name, reason), number)
        balance = ledger.balance()
        if balance is not None:
            self.budget.add_metric((name,), balance)
        for source, shared in ledger.shared().items():
            self.shared_connected.add_metric((name, source), shared.connected)
            for kind, number in shared.events.items():
                self.shared_events.add_metric((name, source, kind), number)

    def _add_panic(self, ledger: Ledger[_Series]) -> None:
        # Whoever looks may be the first to see it, and is then to find it counted.
        in_panic = ledger.in_panic()
        panics = upcoming(ledger.panics)
        if in_panic is not None:
            self.panic.add_metric((ledger.name,), in_panic)
        if panics or in_panic is not None:
            self.panics.add_metric((ledger.name,), panics)

    def _add_states(self, name: str, states: Mapping[str, NodeState]) -> None:
        for label, state in states.items():
            node = (name, label)
            self.in_flight.add_metric(node, state.in_flight)
            self.drained.add_metric(node, state.drained)
            self.ailing.add_metric(node, state.ailing)
            self.cooldown.add_metric(node, state.cooldown_seconds)
            for status, number in state.health.items():
                self.health.add_metric((*node, status), number)
            for dimension, left in state.quota.items():
                self.quota.add_metric((*node, dimension), left)
        if states:
            self.on_cooldown.add_metric((name,), sum(each.on_cooldown for each in states.values()))

    def _add_waits(self, ledger: Ledger[_Series]) -> None:
        counts, seconds = ledger.waits.histogram()
        if counts[-1]:
            buckets = list(zip(self._bounds, counts, strict=True))
            self.waits.add_metric((ledger.name,), buckets, seconds)
            self.waits_in_vain.add_metric((ledger.name,), upcoming(ledger.waits_in_vain))

    def _add_series(self, node: tuple[str, str], series: _Series) -> None:
        for strategy, number in totals(series.picks).items():
            self.picks.add_metric((*node, strategy), number)
        for outcome, number in totals(series.outcomes).items():
            self.requests.add_metric((*node, outcome), number)
        for (old, new), number in totals(series.transitions).items():
            self.transitions.add_metric((*node, old, new), number)
        cooldowns = upcoming(series.cooldowns)
        if cooldowns:
            self.cooldowns.add_metric(node, cooldowns)
        counts, seconds = series.histogram()
        if counts[-1]:
            self.duration.add_metric(node, list(zip(self._bounds, counts, strict=True)), seconds)


class PrometheusCollector(SeriesCollector[_Series]):
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
        super().__init__(max_nodes)
        if registry is not None:
            try:
                registry.register(self)
            except ValueError as error:
                raise ValueError(
                    "the registry has these metrics already; one PrometheusCollector serves any "
                    "number of balancers, so use that one for all"
                ) from error

    def describe(self) -> Iterable[Metric]:
        """Return the families without samples; the registry asks."""
        return list(_Families(self._bounds))

    def collect(self) -> Iterable[Metric]:
        """Return the families with samples; the registry asks at each scrape. O(nodes)."""
        families = _Families(self._bounds)
        for ledger in self._open_ledgers():
            families.add(ledger)
        return list(families)

    def _make_series(self, balancer: str, label: str) -> _Series:  # noqa: ARG002 - as it is called
        return _Series(label, self._bounds)

    def _make_waits(self, balancer: str) -> _Series:  # noqa: ARG002 - as it is called
        return _Series("", self._bounds)
