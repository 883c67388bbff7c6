"""The table of metrics: both exporters and the documentation say the same."""

from __future__ import annotations

import re
from pathlib import Path

from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry

from loadwise.integrations import opentelemetry, prometheus
from loadwise.integrations._host_metrics import HOST_METRICS
from loadwise.integrations._metric_table import METRICS, MetricKind
from loadwise.integrations.opentelemetry import OpenTelemetryCollector
from loadwise.integrations.prometheus import PrometheusCollector

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"\| `(loadwise_\w+)` \| `(loadwise\.[\w.]+)` \| ([\w -]+) \| `(.+?)` \| (.*)\|")
IN_PROMETHEUS = {
    MetricKind.COUNTER: "counter",
    MetricKind.ADDITIVE_GAUGE: "gauge",
    MetricKind.GAUGE: "gauge",
    MetricKind.HISTOGRAM: "histogram",
}
IN_OPENTELEMETRY = {
    MetricKind.COUNTER: "ObservableCounter",
    MetricKind.ADDITIVE_GAUGE: "ObservableUpDownCounter",
    MetricKind.GAUGE: "ObservableGauge",
    MetricKind.HISTOGRAM: "Histogram",
}
OF_HOSTS = [metric for metric, _ in HOST_METRICS]
IN_WORDS = {**IN_PROMETHEUS, MetricKind.ADDITIVE_GAUGE: "up-down counter"}


def test_prometheus_shows_the_table() -> None:
    """Each metric once, with its kind and its help; names end in the unit they are in."""
    collectors = PrometheusCollector(None), prometheus.PrometheusHostCollector("api", registry=None)
    families = [each for collector in collectors for each in collector.describe()]
    shown = [(each.name, each.type, each.documentation) for each in families]
    assert shown == [
        (metric.prometheus_name, IN_PROMETHEUS[metric.kind], metric.help)
        for metric in [*METRICS, *OF_HOSTS]
    ]
    assert len({name for name, _, _ in shown}) == len(shown)
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)  # refuses names that are there twice


def test_opentelemetry_shows_the_table() -> None:
    """Each metric once, with its kind, its unit and its help."""
    meter = MeterProvider().get_meter("test")
    OpenTelemetryCollector(meter)
    opentelemetry.OpenTelemetryHostCollector("api", meter=meter)
    made = {
        each.name: (type(each).__name__.lstrip("_"), each.unit, each.description)
        for each in meter._instrument_id_instrument.values()  # type: ignore[attr-defined]
    }
    assert made == {
        f"loadwise.{metric.name}": (IN_OPENTELEMETRY[metric.kind], metric.unit, metric.help)
        for metric in [*METRICS, *OF_HOSTS]
    }


def test_the_page_shows_the_table() -> None:
    """Row by row, in the same order; a host's stand before those of balancers."""
    rows = [tuple(part.strip() for part in row) for row in ROW.findall(PAGE.read_text())]
    assert rows == [
        (
            metric.prometheus_name + "_total" * (metric.kind is MetricKind.COUNTER),
            f"loadwise.{metric.name}",
            IN_WORDS[metric.kind],
            metric.unit,
            ", ".join(f"`{label}`" for label in metric.labels),
        )
        for metric in [*OF_HOSTS, *METRICS]
    ]
