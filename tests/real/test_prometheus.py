"""The Prometheus collector, as a Prometheus server sees it: by scraping /metrics."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator

import httpx
import pytest
from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_open_metrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text
from tests.health_checks.support import TIMEOUT, Server

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    HealthTracker,
    NoNodeAvailable,
    OutlierDetection,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    RoundRobin,
)
from loadwise.integrations.httpx import LoadwiseTransport
from loadwise.integrations.prometheus import PrometheusCollector
from loadwise.retry_budget import RetryBudget
from loadwise.testing import ManualClock

Samples = dict[str, dict[tuple[str, ...], float]]

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


def samples_of(text: str, parse: Callable[[str], Iterable[Metric]] = parse_text) -> Samples:
    """The samples of a scrape, by name and by label values in the order of the label names."""
    found: Samples = {}
    for family in parse(text):
        for name, labels, value, *_ in family.samples:
            series = found.setdefault(name, {})
            key = tuple(labels[label] for label in sorted(labels))
            assert key not in series, f"{name}{labels} is there twice"
            series[key] = value
    return found


class Scraped:
    """A registry that is served on a real /metrics endpoint."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._server, self._thread = start_http_server(0, "127.0.0.1", self)

    def collect(self) -> Iterable[Metric]:
        return self.registry.collect()

    def text(self, accept: str = "text/plain") -> str:
        url = f"http://127.0.0.1:{self._server.server_port}/metrics"
        return httpx.get(url, headers={"Accept": accept}, timeout=TIMEOUT).text

    def samples(self) -> Samples:
        return samples_of(self.text())

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(TIMEOUT)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Scraped]:
    """The endpoint, which takes half a second to shut down."""
    endpoint = Scraped()
    yield endpoint
    endpoint.close()


@pytest.fixture
def scraped(endpoint: Scraped) -> Scraped:
    """A fresh registry on the endpoint."""
    endpoint.registry = CollectorRegistry()
    return endpoint


def test_what_is_scraped_is_what_happened(scraped: Scraped) -> None:
    """After real requests to real servers, every count and every bucket is the expected one."""
    clock = ManualClock()
    collector = PrometheusCollector(scraped.registry, buckets=[0.25, 1, 4])
    health = HealthTracker(ConsecutiveFailurePolicy(2, 2, 60.0), clock=clock)
    quota = QuotaTracker(clock)
    with Server() as good, Server() as bad:
        for server in (good, bad):
            dimensions = [QuotaDimension("rpm", limit=100, window=60.0)]
            quota.register(server.address, QuotaConfig(dimensions))
        balancer = Balancer(
            [good.address, bad.address],
            RoundRobin(),
            health=health,
            quota=quota,
            metrics=collector,
            name="search",
        )
        for latency in (0.25, 0.5, 5.0, 1.0):  # good, bad, good, bad
            with balancer.acquire() as lease:
                clock.advance(latency)
                path = "/status/200" if lease.node == good.address else "/status/503"
                if httpx.get(f"http://{lease.node}{path}", timeout=TIMEOUT).is_error:
                    lease.failure("503")
        balancer.acquire().cancel()
        limited = balancer.acquire()
        limited.rate_limited(5.0)
        with pytest.raises(NoNodeAvailable) as unavailable:
            balancer.pick()
        clock.advance(5.0)
        lease = balancer.acquire()
        balancer.drain(bad.address)
        samples = scraped.samples()
        lease.success()
    at, bt = (("search", node) for node in (good.address, bad.address))
    assert samples["loadwise_picks_total"] == {
        (*at, "RoundRobin"): 5.0,
        (*bt, "RoundRobin"): 2.0,
    }
    assert samples["loadwise_requests_total"] == {
        (*at, "success"): 2.0,
        (*at, "cancelled"): 1.0,
        (*at, "rate_limited"): 1.0,
        (*bt, "failure"): 2.0,
    }
    buckets = samples["loadwise_request_duration_seconds_bucket"]
    # labels in alphabetical order: balancer, le, node; a bound is inclusive
    assert [buckets["search", le, good.address] for le in ("0.25", "1.0", "4.0", "+Inf")] == [
        2.0, 2.0, 2.0, 3.0,
    ]  # fmt: skip
    assert [buckets["search", le, bad.address] for le in ("0.25", "1.0", "4.0", "+Inf")] == [
        0.0, 2.0, 2.0, 2.0,
    ]  # fmt: skip
    assert samples["loadwise_request_duration_seconds_sum"] == {at: 5.25, bt: 1.5}
    assert samples["loadwise_request_duration_seconds_count"] == {at: 3.0, bt: 2.0}
    assert samples["loadwise_requests_in_flight"] == {at: 1.0, bt: 0.0}
    states = samples["loadwise_node_health"]
    assert {key[2] for key, value in states.items() if key[:2] == at and value} == {"healthy"}
    assert {key[2] for key, value in states.items() if key[:2] == bt and value} == {"unhealthy"}
    assert len(states) == 8
    assert samples["loadwise_health_transitions_total"] == {
        ("search", "degraded", bad.address, "healthy"): 1.0,
        ("search", "unhealthy", bad.address, "degraded"): 1.0,
    }
    assert samples["loadwise_node_drained"] == {at: 0.0, bt: 1.0}
    assert samples["loadwise_quota_remaining"] == {
        ("search", "rpm", good.address): 95.0,
        ("search", "rpm", bad.address): 98.0,
    }
    assert samples["loadwise_unavailable_total"] == {("search", unavailable.value.reason): 1.0}


def get_often(client: httpx.Client, url: str, times: int) -> None:
    """Make the same request again and again."""
    for _ in range(times):
        client.get(url).raise_for_status()


def test_retries_of_a_transport_are_counted(scraped: Scraped) -> None:
    """A dead server makes the transport try again; its budget is shown while it lives."""
    collector = PrometheusCollector(scraped.registry)
    with Server() as alive, Server() as dead:
        nodes = [alive.address, dead.address]
        balancer = Balancer(nodes, RoundRobin(), health=False, metrics=collector, name="api")
        budget = RetryBudget(ratio=0.0, floor=0.3, clock=ManualClock())  # 3 retries in 10 s
        collector.watch_budget(budget, balancer="api")
        dead.kill()
        with httpx.Client(transport=LoadwiseTransport(balancer, budget=budget)) as client:
            with pytest.raises(httpx.ConnectError):
                get_often(client, "http://api/healthz", 20)
            samples = scraped.samples()
        dead.start()
    assert samples["loadwise_retries_total"] == {("api", "failure"): 3.0}
    assert samples["loadwise_retries_refused_total"] == {("api", "budget"): 1.0}
    assert samples["loadwise_retry_budget_balance"] == {("api",): 0.0}
    del budget, client
    gc.collect()
    assert "loadwise_retry_budget_balance" not in scraped.samples()


def test_the_strict_format_accepts_it(scraped: Scraped) -> None:
    """The OpenMetrics parser, which checks names, types, suffixes and bucket order, agrees."""
    balancer = Balancer(['a"\\\n', "b"], metrics=PrometheusCollector(scraped.registry))
    for _ in range(10):
        balancer.acquire().success()
    samples = samples_of(scraped.text(OPEN_METRICS), parse_open_metrics)
    assert sum(samples["loadwise_picks_total"].values()) == 10.0
    assert {node for _, node, _ in samples["loadwise_picks_total"]} == {'a"\\\n', "b"}
    assert samples == samples_of(scraped.text())


def nodes_in(samples: Samples) -> dict[str, set[str]]:
    """The nodes of each family that tells nodes apart by its second label."""
    families = ("loadwise_picks_total", "loadwise_requests_total", "loadwise_requests_in_flight",
                "loadwise_node_health", "loadwise_request_duration_seconds_count")  # fmt: skip
    return {name: {key[1] for key in samples.get(name, {})} for name in families}


def test_series_of_removed_nodes_are_dropped(scraped: Scraped) -> None:
    """Whatever still happens to them, and they go on where they were should they come back."""
    balancer = Balancer(["a", "b"], RoundRobin(), metrics=PrometheusCollector(scraped.registry))
    for _ in range(4):
        balancer.acquire().success()
    late = balancer.acquire()
    assert late.node == "a"
    scraped.text()
    balancer.remove("a")
    assert set(map(frozenset, nodes_in(scraped.samples()).values())) == {frozenset("b")}
    late.failure()
    assert set(map(frozenset, nodes_in(scraped.samples()).values())) == {frozenset("b")}
    balancer.add("a")
    assert scraped.samples()["loadwise_requests_total"] == {
        ("default", "a", "failure"): 1.0,
        ("default", "a", "success"): 2.0,
        ("default", "b", "success"): 2.0,
    }


def test_nodes_beyond_the_limit_are_added_up(
    scraped: Scraped, caplog: pytest.LogCaptureFixture
) -> None:
    """As node "other", with one warning; one that leaves makes room for another."""
    collector = PrometheusCollector(scraped.registry, max_nodes=3)
    balancer = Balancer(range(10), RoundRobin(), metrics=collector, name="big")
    with caplog.at_level(logging.WARNING, "loadwise"):
        leases = [balancer.acquire() for _ in range(20)]
        for _ in range(3):
            samples = scraped.samples()
    (warning,) = (record.getMessage() for record in caplog.records)
    assert warning.startswith("balancer 'big' has more than max_nodes=3 nodes")
    for name in ("loadwise_requests_in_flight", "loadwise_picks_total"):
        counts = {key[1]: value for key, value in samples[name].items()}
        assert counts == {"0": 2.0, "1": 2.0, "2": 2.0, "other": 14.0}
    assert samples["loadwise_node_health"]["big", "other", "healthy"] == 7.0
    for lease in leases:
        lease.success()
    balancer.remove(1)
    scraped.text()
    balancer.acquire(exclude=set(range(10)) - {3}).success()
    samples = scraped.samples()
    assert samples["loadwise_picks_total"]["big", "3", "RoundRobin"] == 1.0
    assert samples["loadwise_picks_total"]["big", "other", "RoundRobin"] == 14.0
    assert ("big", "1") not in samples["loadwise_requests_in_flight"]


def test_one_collector_serves_several_balancers(scraped: Scraped) -> None:
    """Told apart by name; where two share a name they add up; one that is gone is not shown."""
    collector = PrometheusCollector(scraped.registry)
    east = Balancer(["a"], metrics=collector, name="east")
    west = Balancer(["a"], metrics=collector, name="west")
    leases = [east.acquire(), west.acquire(), west.acquire()]
    counts = scraped.samples()["loadwise_requests_in_flight"]
    assert counts == {("east", "a"): 1.0, ("west", "a"): 2.0}

    successor = Balancer(["a", "b"], metrics=collector, name="west")
    successor.drain("a")
    leases.append(successor.acquire())
    samples = scraped.samples()
    assert samples["loadwise_picks_total"]["west", "a", "PowerOfTwoChoices"] == 2.0
    assert samples["loadwise_requests_in_flight"]["west", "a"] == 2.0
    assert samples["loadwise_node_drained"]["west", "a"] == 1.0  # by the newer one
    assert sum(value for key, value in samples["loadwise_node_health"].items()
               if key[:2] == ("west", "a")) == 1.0  # fmt: skip
    for lease in leases:
        lease.success()
    for balancer in (east, west):
        with pytest.raises(NoNodeAvailable):
            balancer.pick(exclude=["a"])
    del west, successor, balancer, lease, leases
    gc.collect()
    shown = {key[0] for series in scraped.samples().values() for key in series}
    assert shown == {"east"}


def test_panic_is_scraped(scraped: Scraped) -> None:
    """A scrape is the first to see it, and counts it once; then the ailing are dead, then well."""
    clock = ManualClock()
    health = HealthTracker(ConsecutiveFailurePolicy(1, 1, 60.0), clock=clock)
    collector = PrometheusCollector(scraped.registry)
    balancer = Balancer(
        ["a", "b", "c"], RoundRobin(), health=health, panic_window=10.0, metrics=collector, name="x"
    )
    for _ in range(3):
        balancer.acquire().success()
    samples = scraped.samples()
    assert samples["loadwise_panic"] == {("x",): 0.0}
    assert samples["loadwise_panics_total"] == {("x",): 0.0}
    assert set(samples["loadwise_node_ailing"].values()) == {0.0}
    clock.advance(1.0)
    leases = [balancer.acquire() for _ in range(2)]
    clock.advance(1.0)
    for lease in leases:  # of a and b, so that one of three is available
        lease.failure()
    for _ in range(2):
        samples = scraped.samples()
        assert samples["loadwise_panic"] == {("x",): 1.0}
        assert samples["loadwise_panics_total"] == {("x",): 1.0}
        assert samples["loadwise_node_ailing"] == {
            ("x", "a"): 1.0, ("x", "b"): 1.0, ("x", "c"): 0.0,
        }  # fmt: skip
    clock.advance(10.0)
    samples = scraped.samples()
    assert set(samples["loadwise_node_ailing"].values()) == {0.0}
    assert samples["loadwise_panic"] == {("x",): 1.0}
    health.report_success("a")
    samples = scraped.samples()
    assert samples["loadwise_panic"] == {("x",): 0.0}
    assert samples["loadwise_panics_total"] == {("x",): 1.0}


def test_panics_of_balancers_of_one_name_add_up(scraped: Scraped) -> None:
    """One is in panic and the other is not; of a node in both, the newer tells how it is."""
    collector = PrometheusCollector(scraped.registry)
    older = Balancer(["a"], metrics=collector, name="x", health=HealthTracker())
    for _ in range(2):
        balancer = Balancer(["a", "b"], metrics=collector, name="x")
        for node in balancer.nodes:
            balancer.acquire(exclude={"a", "b"} - {node}).success()
            for _ in range(3):
                balancer.acquire(exclude={"a", "b"} - {node}).failure()
        samples = scraped.samples()
    assert samples["loadwise_panic"] == {("x",): 1.0}
    assert samples["loadwise_panics_total"] == {("x",): 2.0}  # that of the one that is gone, too
    assert older.panic is None


def test_reasons_are_bounded(scraped: Scraped) -> None:
    """Free text in reasons makes 50 series and one more, not one per request."""
    balancer = Balancer(["a"], metrics=PrometheusCollector(scraped.registry), name="x")
    assert balancer.metrics is not None
    for number in range(1000):
        balancer.metrics.on_retry("a", f"timeout after {number} ms")
        balancer.metrics.on_unavailable(f"reason {number}")
    samples = scraped.samples()
    for name in ("loadwise_retries_total", "loadwise_unavailable_total"):
        assert len(samples[name]) == 51
        assert samples[name]["x", "other"] == 950.0


def test_without_prometheus_client_the_import_says_what_to_install() -> None:
    """The extra is named."""
    script = """
import sys
sys.modules["prometheus_client"] = None
try:
    import loadwise.integrations.prometheus
except ImportError as error:
    print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "pip install 'loadwise[prometheus]'" in result.stdout


FORK = """
import os, threading
from loadwise import Balancer
from loadwise.integrations.prometheus import PrometheusCollector

collector = PrometheusCollector(None)
balancer = Balancer(["a"], metrics=collector)
balancer.acquire().success()
metrics = collector.attach(balancer)
series, = metrics.series()
held, forked = threading.Event(), threading.Event()

def hold():
    with collector._lock, metrics._lock, series.recorder._lock:
        held.set()
        forked.wait(20)

threading.Thread(target=hold).start()
held.wait(20)
child = os.fork()
if child == 0:
    balancer.add("b")
    for _ in range(20):
        balancer.acquire().success()
    picks = [f for f in collector.collect() if f.name == "loadwise_picks"][0]
    os._exit(0 if sum(sample.value for sample in picks.samples) == 21 else 1)
_, status = os.waitpid(child, 0)
forked.set()
assert os.waitstatus_to_exitcode(status) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_goes_on_counting() -> None:
    """From the parent's counts, and with none of the locks that were held at the fork."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK]
    subprocess.run(command, check=True, timeout=TIMEOUT)


def test_cooldowns_are_scraped(scraped: Scraped) -> None:
    """How long each node is still on cooldown, how many are, and how often that began."""
    clock = ManualClock()
    collector = PrometheusCollector(scraped.registry)
    balancer = Balancer(["a", "b"], RoundRobin(start=0), clock=clock, metrics=collector, name="x")
    samples = scraped.samples()
    assert samples["loadwise_node_cooldown_seconds"] == {("x", "a"): 0.0, ("x", "b"): 0.0}
    assert samples["loadwise_nodes_on_cooldown"] == {("x",): 0.0}
    assert "loadwise_cooldowns_total" not in samples
    first, second, third = (balancer.acquire() for _ in range(3))  # a, b, a
    first.rate_limited(30.0)
    second.failure("busy", 5.0)
    third.rate_limited(40.0)
    clock.advance(2.0)
    samples = scraped.samples()
    assert samples["loadwise_node_cooldown_seconds"] == {("x", "a"): 38.0, ("x", "b"): 3.0}
    assert samples["loadwise_nodes_on_cooldown"] == {("x",): 2.0}
    assert samples["loadwise_cooldowns_total"] == {("x", "a"): 1.0, ("x", "b"): 1.0}
    balancer.lift("a")
    clock.advance(3.0)
    balancer.acquire(exclude=["b"]).rate_limited(1.0)
    samples = scraped.samples()
    assert samples["loadwise_node_cooldown_seconds"] == {("x", "a"): 1.0, ("x", "b"): 0.0}
    assert samples["loadwise_nodes_on_cooldown"] == {("x",): 1.0}
    assert samples["loadwise_cooldowns_total"] == {("x", "a"): 2.0, ("x", "b"): 1.0}


def test_waits_are_scraped(scraped: Scraped) -> None:
    """How long requests waited is a histogram; those that got nothing are counted, too."""
    collector = PrometheusCollector(scraped.registry, buckets=[0.25, 1])
    balancer = Balancer(["a"], metrics=collector, name="x")
    assert "loadwise_wait_duration_seconds_count" not in scraped.samples()
    assert balancer.metrics is not None
    for seconds, got in ((0.25, True), (0.5, True), (4.0, False), (-1.0, True)):
        balancer.metrics.on_wait(seconds, got)
    samples = scraped.samples()
    assert samples["loadwise_wait_duration_seconds_bucket"] == {
        ("x", "0.25"): 2.0, ("x", "1.0"): 3.0, ("x", "+Inf"): 4.0,
    }  # fmt: skip
    assert samples["loadwise_wait_duration_seconds_sum"] == {("x",): 4.75}
    assert samples["loadwise_waits_in_vain_total"] == {("x",): 1.0}
    collector.on_wait(1.0, got=False)
    assert scraped.samples()["loadwise_waits_in_vain_total"] == {("x",): 1.0, ("",): 1.0}


def test_ejections_are_scraped(scraped: Scraped) -> None:
    """How many nodes are ejected, and how often each was, by the rule that it broke."""
    clock = ManualClock()
    collector = PrometheusCollector(scraped.registry)
    outliers = OutlierDetection(consecutive_failures=2, significance=None, probe=False)
    balancer = Balancer(
        ["a", "b"], clock=clock, outliers=outliers, health=False, metrics=collector, name="x"
    )
    samples = scraped.samples()
    assert samples["loadwise_nodes_ejected"] == {("x",): 0.0}
    assert "loadwise_ejections_total" not in samples
    for number in (1, 2):
        for lease in [balancer.acquire(exclude=["b"]) for _ in range(2)]:
            lease.failure()
        samples = scraped.samples()
        assert samples["loadwise_nodes_ejected"] == {("x",): 1.0}
        assert samples["loadwise_ejections_total"] == {("x", "a", "consecutive_failures"): number}
        clock.advance(60.0)
        assert scraped.samples()["loadwise_nodes_ejected"] == {("x",): 0.0}
