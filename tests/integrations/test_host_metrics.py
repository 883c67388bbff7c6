"""Metrics of a host: totals of several processes, as the monitoring systems' clients show them."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry
from tests.shared_memory.workers import until, worker

from loadwise import Balancer
from loadwise.integrations import opentelemetry, prometheus
from loadwise.integrations.prometheus import PrometheusCollector
from loadwise.shared_memory import HostState

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the locks")
STATES = ("healthy", "degraded", "unhealthy", "recovering")


def test_prometheus_shows_the_totals_of_all_processes(tmp_path: Path) -> None:
    """Whoever is asked shows the same, and the dead count no more."""
    path = str(tmp_path / "api")
    registry = CollectorRegistry()
    prometheus.PrometheusHostCollector(path, registry=registry)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"loadwise_host_{name}", {"host": path, **labels})

    assert value("processes") is None
    with worker(Path(path), "a", "b", measure="ewma", interval=60.0) as one:
        with worker(Path(path), "b", "c", measure="ewma", interval=60.0) as other:
            one.tell("acquire", 4)
            held = other.tell("acquire", 4)
            assert value("processes") == 2
            for node in "abc":
                if node in held:
                    assert value("requests_in_flight", node=node) == held[node]
            assert value("requests_in_flight", node="a") == 8 - held["b"] - held["c"]
            other.tell("succeed", "c")
            cost = value("node_cost_seconds", node="c")
            assert cost is not None
            assert 0 < cost < 60
            assert value("node_cost_seconds", node="a") is None
            one.tell("fail", "b")
            other.tell("healths")
            for node, found in (("a", "healthy"), ("b", "unhealthy")):
                states = [value("node_health", node=node, state=state) for state in STATES]
                assert states == [state == found for state in STATES]
        until(lambda: value("processes") == 1)
        assert value("requests_in_flight", node="c") is None


def test_a_balancer_s_own_gauge_may_be_added_up(tmp_path: Path) -> None:
    """It shows what its process has in flight; the status shows the host's."""
    registry = CollectorRegistry()
    collector = PrometheusCollector(registry)
    path = tmp_path / "api"
    balancer = Balancer(["a"], host=HostState(path), metrics=collector, name="x")
    with worker(path, "a") as other, balancer.acquire():
        other.tell("acquire", 3)
        (status,) = balancer.status()
        assert (status.in_flight, status.elsewhere) == (4, 3)
        labels = {"balancer": "x", "node": "a"}
        assert registry.get_sample_value("loadwise_requests_in_flight", labels) == 1


def test_opentelemetry_shows_the_same(tmp_path: Path) -> None:
    """Under its own names; each collection reads anew, and what is beyond the limit adds up."""
    path = str(tmp_path / "api")
    reader = InMemoryMetricReader()
    meter = MeterProvider(metric_readers=[reader]).get_meter("test")
    opentelemetry.OpenTelemetryHostCollector(path, meter=meter, max_nodes=1)
    nodes = ["10.0.0.1:80", "b", "c"]
    balancer = Balancer(nodes, host=HostState(path))

    def points(name: str) -> dict[tuple[str, ...], float]:
        data: Any = reader.get_metrics_data()
        (scope,) = data.resource_metrics[0].scope_metrics
        (metric,) = [each for each in scope.metrics if each.name == f"loadwise.host.{name}"]
        told = metric.data.data_points
        assert all(point.attributes["loadwise.host"] == path for point in told)
        ports = {point.attributes.get("server.port") for point in told}
        assert ports == ({None} if name == "processes" else {80, None})
        keys = ("loadwise.node", "loadwise.state")
        return {
            tuple(point.attributes[key] for key in keys if key in point.attributes): point.value
            for point in told
        }

    for number in range(3):
        leases = [balancer.acquire() for _ in range(number)]
        here = {status.id: status.in_flight for status in balancer.status()}
        assert points("requests_in_flight") == {
            ("10.0.0.1:80",): here["10.0.0.1:80"],
            ("other",): here["b"] + here["c"],
        }
        for lease in leases:
            lease.cancel()
    assert points("processes") == {(): 1}
    assert points("node.health")["other", "healthy"] == 2


def test_what_cannot_be_read_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And shows nothing, while another host of the same collector is shown."""
    broken, sound = tmp_path / "broken", tmp_path / "sound"
    broken.write_bytes(b"something else")
    host = HostState(sound)
    registry = CollectorRegistry()
    prometheus.PrometheusHostCollector(broken, sound, registry=registry)
    with caplog.at_level(logging.WARNING, logger="loadwise"):
        for _ in range(3):
            labels = {"host": str(sound)}
            assert registry.get_sample_value("loadwise_host_processes", labels) == 1
            broken_labels = {"host": str(broken)}
            assert registry.get_sample_value("loadwise_host_processes", broken_labels) is None
    host.close()
    (record,) = caplog.records
    assert "is no file of loadwise" in record.getMessage()


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    """At construction, with the value and the remedy."""
    refused: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
        ((), {}, ValueError, "there is no host; give the name"),
        ((3,), {}, TypeError, "path_or_name is 3"),
        (("no/such/folder",), {}, ValueError, "there is no folder"),
        (("api",), {"max_nodes": 0}, ValueError, "max_nodes is 0"),
    ]
    for hosts, options, kind, text in refused:
        with pytest.raises(kind, match=text):
            prometheus.PrometheusHostCollector(*hosts, registry=None, **options)
    registry = CollectorRegistry()
    prometheus.PrometheusHostCollector(tmp_path / "api", registry=registry)
    with pytest.raises(ValueError, match="give all of them to one"):
        prometheus.PrometheusHostCollector(tmp_path / "db", registry=registry)
    meter = MeterProvider().get_meter("test")
    opentelemetry.OpenTelemetryHostCollector(tmp_path / "api", meter=meter)
    with pytest.raises(ValueError, match="give all of them to one"):
        opentelemetry.OpenTelemetryHostCollector(tmp_path / "db", meter=meter)
