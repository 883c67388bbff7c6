"""The OpenTelemetry collector, read with the SDK's in-memory reader."""

from __future__ import annotations

import gc
import random
import subprocess
import sys
from collections.abc import Mapping
from threading import Thread
from typing import Any

import pytest
from opentelemetry.metrics import NoOpMeter
from opentelemetry.sdk.metrics import (
    AlwaysOnExemplarFilter,
    Counter,
    Histogram,
    MeterProvider,
    ObservableCounter,
)
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    InMemoryMetricReader,
    Metric,
    NumberDataPoint,
)
from opentelemetry.sdk.trace import TracerProvider
from tests.health_checks.support import TIMEOUT

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    HealthTracker,
    NoNodeAvailable,
    Outcome,
    OutlierDetection,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    RoundRobin,
)
from loadwise.integrations.opentelemetry import DEFAULT_BUCKETS, OpenTelemetryCollector
from loadwise.retry_budget import RetryBudget
from loadwise.testing import ManualClock

DELTA: Mapping[type, AggregationTemporality] = {
    Counter: AggregationTemporality.DELTA,
    ObservableCounter: AggregationTemporality.DELTA,
    Histogram: AggregationTemporality.DELTA,
}
Points = dict[tuple[str, ...], float]


class Sdk:
    """An SDK with a reader in memory."""

    def __init__(self, temporality: Mapping[type, AggregationTemporality] | None = None) -> None:
        self.reader = InMemoryMetricReader(preferred_temporality=dict(temporality or {}))
        self.provider = MeterProvider(
            metric_readers=[self.reader], exemplar_filter=AlwaysOnExemplarFilter()
        )
        self.meter = self.provider.get_meter("loadwise")

    def metrics(self) -> dict[str, Metric]:
        """What the reader collects now, by name."""
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        (resource,) = data.resource_metrics
        (scope,) = resource.scope_metrics
        return {metric.name: metric for metric in scope.metrics}

    def points(self) -> dict[str, Points]:
        """The values of all points (the counts of histograms), by name and attribute values."""
        return {name: points_of(metric) for name, metric in self.metrics().items()}


def points_of(metric: Metric) -> Points:
    """The values of a metric's points, by attribute values in the order of their names."""
    found: Points = {}
    for point in metric.data.data_points:
        attributes = dict(point.attributes or {})
        key = tuple(str(attributes[name]) for name in sorted(attributes))
        assert key not in found
        assert isinstance(point, NumberDataPoint | HistogramDataPoint)
        found[key] = point.count if isinstance(point, HistogramDataPoint) else point.value
    return found


@pytest.fixture
def sdk() -> Sdk:
    """An SDK of cumulative temporality, the default."""
    return Sdk()


def test_what_is_read_is_what_happened(sdk: Sdk) -> None:
    """Each instrument has its name, its unit and the expected points."""
    clock = ManualClock()
    collector = OpenTelemetryCollector(sdk.meter, buckets=[0.25, 1, 4])
    quota = QuotaTracker(clock)
    quota.register("a", QuotaConfig([QuotaDimension("rpm", limit=100, window=60.0)]))
    health = HealthTracker(ConsecutiveFailurePolicy(2, 2, 60.0), clock=clock)
    balancer = Balancer(
        ["a", "b"], RoundRobin(), health=health, quota=quota, metrics=collector, name="search"
    )
    budget = RetryBudget(ratio=0.0, floor=0.5, clock=clock)
    collector.watch_budget(budget, "search")
    for latency in (0.25, 0.5, 5.0, 1.0):  # a, b, a, b
        with balancer.acquire() as lease:
            clock.advance(latency)
            if lease.node == "b":
                lease.failure("503")
    balancer.acquire().cancel()
    lease = balancer.acquire()
    balancer.drain("b")
    with pytest.raises(NoNodeAvailable) as unavailable:
        balancer.pick(exclude=["a"])
    assert balancer.metrics is not None
    balancer.metrics.on_retry("b", "failure")
    balancer.metrics.on_retry_refused("deadline")
    metrics = sdk.metrics()
    lease.success()

    assert {name: metric.unit for name, metric in metrics.items()} == {
        "loadwise.requests_in_flight": "{request}",
        "loadwise.health.transitions": "{transition}",
        "loadwise.node.ailing": "{node}",
        "loadwise.node.cooldown": "s",
        "loadwise.node.drained": "{node}",
        "loadwise.node.health": "{node}",
        "loadwise.nodes_ejected": "{node}",
        "loadwise.nodes_on_cooldown": "{node}",
        "loadwise.panic": "{balancer}",
        "loadwise.panics": "{panic}",
        "loadwise.picks": "{pick}",
        "loadwise.quota.remaining": "{unit}",
        "loadwise.retries_refused": "{retry}",
        "loadwise.request.duration": "s",
        "loadwise.requests": "{request}",
        "loadwise.retries": "{retry}",
        "loadwise.retry_budget.balance": "{retry}",
        "loadwise.unavailable": "{request}",
        "loadwise.waits_in_vain": "{request}",
    }
    # attributes in alphabetical order: balancer, dimension, new_state, node, old_state, ...
    at, bt = ("search", "a"), ("search", "b")
    points = {name: points_of(metric) for name, metric in metrics.items()}
    health_points = points.pop("loadwise.node.health")
    assert [key for key, value in health_points.items() if value] == [
        (*at, "healthy"), (*bt, "unhealthy"),
    ]  # fmt: skip
    assert len(health_points) == 8
    assert points == {
        "loadwise.requests_in_flight": {at: 1, bt: 0},
        "loadwise.health.transitions": {
            ("search", "degraded", "b", "healthy"): 1,
            ("search", "unhealthy", "b", "degraded"): 1,
        },
        "loadwise.node.ailing": {at: 0, bt: 0},
        "loadwise.node.cooldown": {at: 0.0, bt: 0.0},
        "loadwise.node.drained": {at: 0, bt: 1},
        "loadwise.nodes_ejected": {("search",): 0},
        "loadwise.nodes_on_cooldown": {("search",): 0},
        "loadwise.panic": {("search",): 0},
        "loadwise.panics": {("search",): 0},
        "loadwise.picks": {(*at, "RoundRobin"): 4, (*bt, "RoundRobin"): 2},
        "loadwise.quota.remaining": {("search", "rpm", "a"): 96},
        "loadwise.retries_refused": {("search", "deadline"): 1},
        "loadwise.request.duration": {at: 2, bt: 2},
        "loadwise.requests": {
            (*at, "success"): 2,
            (*at, "cancelled"): 1,
            (*bt, "failure"): 2,
        },
        "loadwise.retries": {("search", "failure"): 1},
        "loadwise.retry_budget.balance": {("search",): 5.0},
        "loadwise.unavailable": {("search", unavailable.value.reason): 1},
        "loadwise.waits_in_vain": {("search",): 0},
    }
    histogram, _ = metrics["loadwise.request.duration"].data.data_points
    assert isinstance(histogram, HistogramDataPoint)
    assert dict(histogram.attributes or {}) == {
        "loadwise.balancer": "search",
        "loadwise.node": "a",
    }
    assert tuple(histogram.explicit_bounds) == (0.25, 1, 4)
    assert list(histogram.bucket_counts) == [1, 0, 0, 1]
    assert histogram.sum == 5.25


def test_series_of_removed_nodes_and_balancers_are_dropped(sdk: Sdk) -> None:
    """From all instruments but a histogram that keeps nodes apart and is cumulative."""
    collector = OpenTelemetryCollector(sdk.meter, latency_by_node=False)
    balancer = Balancer(["a", "b"], RoundRobin(), metrics=collector, name="x")
    for _ in range(4):
        balancer.acquire().success()
    assert sdk.points()["loadwise.picks"].keys() == {
        ("x", "a", "RoundRobin"), ("x", "b", "RoundRobin"),
    }  # fmt: skip
    balancer.remove("a")
    points = sdk.points()
    assert points.pop("loadwise.request.duration") == {("x",): 4}
    for name in ("panic", "panics", "waits_in_vain"):
        assert points.pop(f"loadwise.{name}") == {("x",): 0}
    for name in ("nodes_on_cooldown", "nodes_ejected"):
        assert points.pop(f"loadwise.{name}") == {("x",): 0}
    assert {key[1] for series in points.values() for key in series} == {"b"}
    balancer.add("a")
    assert sdk.points()["loadwise.picks"]["x", "a", "RoundRobin"] == 2
    del balancer
    gc.collect()
    assert sdk.points().keys() == {"loadwise.request.duration"}


def test_a_node_that_comes_back_does_not_count_backwards() -> None:
    """Readers of deltas get the difference to what they saw of it before it left."""
    sdk = Sdk(DELTA)
    collector = OpenTelemetryCollector(sdk.meter)
    balancer = Balancer(["a", "b"], RoundRobin(), metrics=collector, name="x")
    a = ("x", "a", "RoundRobin")
    for _ in range(6):
        balancer.acquire().success()
    points = sdk.points()
    assert points["loadwise.picks"][a] == points["loadwise.request.duration"][a[:2]] == 3
    balancer.remove("a")
    points = sdk.points()
    assert a not in points["loadwise.picks"]
    assert "loadwise.request.duration" not in points  # nothing new, so nothing stale either
    balancer.add("a")
    balancer.acquire(exclude=["b"]).success()
    assert sdk.points()["loadwise.picks"][a] == 1


def test_latencies_carry_exemplars(sdk: Sdk) -> None:
    """They are recorded in the context of the request, so that a slow one leads to its trace."""
    balancer = Balancer(["a"], metrics=OpenTelemetryCollector(sdk.meter))
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("request") as span, balancer.acquire():
        pass
    (histogram,) = sdk.metrics()["loadwise.request.duration"].data.data_points
    assert isinstance(histogram, HistogramDataPoint)
    assert tuple(histogram.explicit_bounds) == DEFAULT_BUCKETS
    (exemplar,) = histogram.exemplars
    assert exemplar.trace_id == span.get_span_context().trace_id


def test_nodes_beyond_the_limit_are_added_up(sdk: Sdk) -> None:
    """In the histogram as in all other instruments."""
    balancer = Balancer(
        range(10), RoundRobin(), metrics=OpenTelemetryCollector(sdk.meter, max_nodes=2), name="x"
    )
    for _ in range(10):
        balancer.acquire().success()
    points = sdk.points()
    for name in ("loadwise.request.duration", "loadwise.picks", "loadwise.requests"):
        assert {key[1]: value for key, value in points[name].items()} == {
            "0": 1, "1": 1, "other": 8,
        }  # fmt: skip


def test_counts_are_exact_under_threads(sdk: Sdk) -> None:
    """8 threads, two balancers, and collections in between: nothing is lost."""
    collector = OpenTelemetryCollector(sdk.meter)
    balancers = [
        Balancer(range(4), health=False, metrics=collector, name=name) for name in ("x", "y")
    ]

    def work(seed: int) -> None:
        choices = random.Random(seed)
        for number in range(500):
            lease = choices.choice(balancers).acquire()
            choices.choice([lease.success, lease.failure])()
            if number % 100 == 0:
                sdk.metrics()

    threads = [Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    points = sdk.points()
    for name in ("loadwise.picks", "loadwise.requests", "loadwise.request.duration"):
        assert sum(points[name].values()) == 4000
    assert sum(points["loadwise.requests_in_flight"].values()) == 0


def test_panic_is_read(sdk: Sdk) -> None:
    """From the balancer: how it is now, which nodes are ailing, and how often it began."""
    clock = ManualClock()
    health = HealthTracker(ConsecutiveFailurePolicy(1, 1, 60.0), clock=clock)
    collector = OpenTelemetryCollector(sdk.meter)
    balancer = Balancer(["a"], health=health, metrics=collector, name="x")
    for begun in (1, 2):
        balancer.acquire().success()
        clock.advance(1.0)
        balancer.acquire().failure()
        points = sdk.points()
        assert points["loadwise.panic"] == {("x",): 1}
        assert points["loadwise.panics"] == {("x",): begun}
        assert points["loadwise.node.ailing"] == {("x", "a"): 1}
        health.report_success("a")
        points = sdk.points()
        assert points["loadwise.panic"] == {("x",): 0}
        assert points["loadwise.panics"] == {("x",): begun}
        assert points["loadwise.node.ailing"] == {("x", "a"): 0}


def test_a_second_collector_of_one_meter_is_refused(sdk: Sdk) -> None:
    """The SDK would never ask the instruments of the second, and say nothing."""
    OpenTelemetryCollector(sdk.meter)
    with pytest.raises(ValueError, match="one OpenTelemetryCollector serves any number"):
        OpenTelemetryCollector(sdk.meter)


@pytest.mark.parametrize(
    ("options", "text"),
    [({"buckets": [2, 1]}, "in rising order"), ({"max_nodes": -1}, "max_nodes is -1")],
)
def test_bad_options_are_refused(options: dict[str, Any], text: str) -> None:
    """At construction; the meter is then still free."""
    meter = NoOpMeter("test")
    with pytest.raises(ValueError, match=text):
        OpenTelemetryCollector(meter, **options)
    OpenTelemetryCollector(meter).on_outcome("a", Outcome.SUCCESS, 0.1)


def output_of(script: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_global_provider_may_be_set_later() -> None:
    """Without a meter it takes the global provider's, and what was counted before is shown."""
    script = """
from loadwise import Balancer
from loadwise.integrations.opentelemetry import OpenTelemetryCollector
from opentelemetry.metrics import set_meter_provider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

balancer = Balancer(["a"], metrics=OpenTelemetryCollector())
balancer.acquire().success()
reader = InMemoryMetricReader()
set_meter_provider(MeterProvider(metric_readers=[reader]))
scope = reader.get_metrics_data().resource_metrics[0].scope_metrics[0]
picks = {metric.name: metric for metric in scope.metrics}["loadwise.picks"]
print(scope.scope.name, picks.data.data_points[0].value)
"""
    assert output_of(script) == "loadwise 1\n"


def test_without_the_api_the_import_says_what_to_install() -> None:
    """The extra is named."""
    script = """
import sys
sys.modules["opentelemetry"] = sys.modules["opentelemetry.metrics"] = None
try:
    import loadwise.integrations.opentelemetry
except ImportError as error:
    print(error)
"""
    assert "pip install 'loadwise[opentelemetry]'" in output_of(script)


def test_cooldowns_are_read(sdk: Sdk) -> None:
    """How long each node is still on cooldown, how many are, and how often that began."""
    clock = ManualClock()
    collector = OpenTelemetryCollector(sdk.meter)
    balancer = Balancer(["a", "b"], RoundRobin(start=0), clock=clock, metrics=collector, name="x")
    assert "loadwise.cooldowns" not in sdk.points()
    first, second, third = (balancer.acquire() for _ in range(3))  # a, b, a
    first.rate_limited(30.0)
    second.failure("busy", 5.0)
    third.rate_limited(40.0)
    clock.advance(2.0)
    points = sdk.points()
    assert points["loadwise.node.cooldown"] == {("x", "a"): 38.0, ("x", "b"): 3.0}
    assert points["loadwise.nodes_on_cooldown"] == {("x",): 2}
    assert points["loadwise.cooldowns"] == {("x", "a"): 1, ("x", "b"): 1}
    clock.advance(3.0)
    balancer.lift("a")
    points = sdk.points()
    assert points["loadwise.node.cooldown"] == {("x", "a"): 0.0, ("x", "b"): 0.0}
    assert points["loadwise.nodes_on_cooldown"] == {("x",): 0}
    assert points["loadwise.cooldowns"] == {("x", "a"): 1, ("x", "b"): 1}


def test_ejections_are_read(sdk: Sdk) -> None:
    """How many nodes are ejected, and how often each was, by the rule that it broke."""
    clock = ManualClock()
    outliers = OutlierDetection(consecutive_failures=2, significance=None, probe=False)
    collector = OpenTelemetryCollector(sdk.meter)
    balancer = Balancer(["a", "b"], clock=clock, outliers=outliers, metrics=collector, name="x")
    assert sdk.points()["loadwise.nodes_ejected"] == {("x",): 0}
    for _ in range(2):
        balancer.report("b", Outcome.FAILURE)
    points = sdk.points()
    assert points["loadwise.nodes_ejected"] == {("x",): 1}
    assert points["loadwise.ejections"] == {("x", "b", "consecutive_failures"): 1}
    clock.advance(30.0)
    points = sdk.points()
    assert points["loadwise.nodes_ejected"] == {("x",): 0}
    assert points["loadwise.ejections"] == {("x", "b", "consecutive_failures"): 1}


def test_waits_are_read(sdk: Sdk) -> None:
    """How long requests waited is a histogram; those that got nothing are counted, too."""
    balancer = Balancer(["a"], metrics=OpenTelemetryCollector(sdk.meter), name="x")
    assert balancer.metrics is not None
    for seconds, got in ((0.25, True), (4.0, False)):
        balancer.metrics.on_wait(seconds, got)
    metrics = sdk.metrics()
    (point,) = metrics["loadwise.wait.duration"].data.data_points
    assert isinstance(point, HistogramDataPoint)
    assert (point.count, point.sum, metrics["loadwise.wait.duration"].unit) == (2, 4.25, "s")
    assert sdk.points()["loadwise.waits_in_vain"] == {("x",): 1}


def test_nodes_with_an_address_have_it_as_attributes(sdk: Sdk) -> None:
    """By the semantic conventions: where the id is a URL or host:port, and nowhere else."""
    nodes = ["10.0.0.1:8080", "https://eu.example.com/v1", "http://[::1]:99", "gpu-1"]
    balancer = Balancer(nodes, RoundRobin(), metrics=OpenTelemetryCollector(sdk.meter), name="x")
    for _ in nodes:
        balancer.acquire().success()
    metrics = sdk.metrics()
    for name in ("requests", "request.duration", "requests_in_flight", "picks", "node.health"):
        addresses = {
            (attributes["loadwise.node"], attributes.get("server.address"),
             attributes.get("server.port"))
            for point in metrics[f"loadwise.{name}"].data.data_points
            if (attributes := dict(point.attributes or {}))
        }  # fmt: skip
        assert addresses == {
            ("10.0.0.1:8080", "10.0.0.1", 8080),
            ("https://eu.example.com/v1", "eu.example.com", 443),
            ("http://[::1]:99", "::1", 99),
            ("gpu-1", None, None),
        }
    assert "server.address" not in (metrics["loadwise.panic"].data.data_points[0].attributes or {})
