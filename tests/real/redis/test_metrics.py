"""What the collectors show of shared state, from a registry and from the SDK's reader."""

from __future__ import annotations

from contextlib import ExitStack

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry
from tests.integrations.redis.limits import rpm
from tests.real.redis.support import PATIENCE, Valkey, until

from loadwise import Balancer, QuotaTracker
from loadwise.integrations.opentelemetry import OpenTelemetryCollector
from loadwise.integrations.prometheus import PrometheusCollector
from loadwise.integrations.redis import SharedHealth, SharedQuota

KINDS = ("outage", "restored", "resynchronised", "rejected", "refused")


def test_an_outage_is_a_metric(fragile: Valkey, prefix: str, stack: ExitStack) -> None:
    """Each kind of event has a series from the start; what two balancers share counts once."""
    registry, reader = CollectorRegistry(), InMemoryMetricReader()
    collector = PrometheusCollector(registry)
    meter = MeterProvider(metric_readers=[reader]).get_meter("test")
    quota = stack.enter_context(SharedQuota(fragile.client(), prefix, timeout=PATIENCE))
    health = stack.enter_context(SharedHealth(fragile.client(), prefix, timeout=PATIENCE))
    quota.register("node", rpm(100))
    balancers = [
        Balancer(["node"], quota=quota, health=health, metrics=collector, name="search"),
        Balancer(["node"], quota=quota, health=health, metrics=collector, name="search"),
        Balancer(["node"], quota=quota, metrics=OpenTelemetryCollector(meter), name="search"),
        Balancer(["node"], quota=QuotaTracker(), metrics=collector, name="alone"),
    ]

    def scraped(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"balancer": "search", **labels})

    def told(source: str) -> tuple[float | None, ...]:
        counts = (
            scraped("loadwise_shared_events_total", source=source, kind=kind) for kind in KINDS
        )
        return (scraped("loadwise_shared_connected", source=source), *counts)

    def read(name: str) -> dict[tuple[object, ...], object]:
        data = reader.get_metrics_data()
        assert data is not None
        metrics = data.resource_metrics[0].scope_metrics[0].metrics
        (points,) = (metric.data.data_points for metric in metrics if metric.name == name)
        keys = ("loadwise.balancer", "loadwise.source", "loadwise.kind")
        return {
            tuple((point.attributes or {}).get(key) for key in keys): getattr(point, "value", None)
            for point in points
        }

    assert told("quota") == told("health") == (1, 0, 0, 0, 0, 0)
    fragile.kill()
    assert quota.try_acquire("node")
    until(lambda: not (quota.connected or health.connected))
    assert told("quota") == told("health") == (0, 1, 0, 0, 0, 0)
    assert read("loadwise.shared.connected") == {("search", "quota", None): 0}
    events = read("loadwise.shared.events")
    assert events == {("search", "quota", kind): int(kind == "outage") for kind in KINDS}
    alone = {"balancer": "alone", "source": "quota"}
    assert registry.get_sample_value("loadwise_shared_connected", alone) is None
    assert len(balancers) == 4
