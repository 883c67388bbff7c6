"""The Prometheus collector, read from its registry."""

from __future__ import annotations

import random
from collections import Counter
from threading import Event, Thread
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.health_checks.support import TIMEOUT

from loadwise import Balancer, HealthStatus, Outcome, RoundRobin
from loadwise.integrations.prometheus import DEFAULT_BUCKETS, PrometheusCollector
from loadwise.testing import ManualClock


def test_a_fleet_that_turns_over_leaves_nothing_behind() -> None:
    """Though nobody scrapes: 3,000 nodes come and go, and what is kept is bounded."""
    collector = PrometheusCollector(None, max_nodes=10)
    balancer = Balancer([0], metrics=collector)
    metrics = collector.attach(balancer)
    for number in range(1, 3001):
        balancer.add(number)
        balancer.remove(number - 1)
        balancer.acquire().success()
        metrics.on_outcome(number - 1, Outcome.SUCCESS, 0.1)
    sizes = {name: len(value) for name, value in vars(metrics).items() if isinstance(value, dict)}
    assert max(sizes.values()) <= 12, sizes


def test_counts_are_exact_under_threads() -> None:
    """8 threads, a fleet that changes, and scrapes in between: nothing is lost."""
    registry = CollectorRegistry()
    balancer: Balancer[Any] = Balancer(range(8), metrics=PrometheusCollector(registry, max_nodes=5))
    done = Event()

    def scrape() -> None:
        while not done.is_set():
            assert list(registry.collect())

    def work(seed: int) -> None:
        choices = random.Random(seed)
        for number in range(2000):
            lease = balancer.acquire()
            choices.choice([lease.success, lease.cancel])()
            if number % 500 == 0:
                balancer.add((seed, number))

    scraper = Thread(target=scrape)
    threads = [Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in (scraper, *threads):
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    done.set()
    scraper.join(TIMEOUT)
    counts: Counter[str] = Counter()
    for sample in (sample for family in registry.collect() for sample in family.samples):
        counts[sample.name] += int(sample.value)
        counts[sample.labels.get("outcome", "")] += int(sample.value)
    assert counts["loadwise_picks_total"] == counts["loadwise_requests_total"] == 16_000
    assert counts["loadwise_request_duration_seconds_count"] == counts["success"]
    assert counts["loadwise_requests_in_flight"] == 0
    assert counts["loadwise_node_health"] == len(balancer.nodes) == 40


def test_events_of_known_nodes_wait_for_nobody() -> None:
    """A scrape that holds the metrics does not hold up requests."""
    collector = PrometheusCollector(None)
    balancer = Balancer(["a"], metrics=collector)
    balancer.acquire().success()
    metrics = collector.attach(balancer)
    finished = Event()

    def request() -> None:
        balancer.acquire().success()
        finished.set()

    with metrics._lock:
        Thread(target=request, daemon=True).start()
        assert finished.wait(TIMEOUT)


def test_it_works_without_a_balancer() -> None:
    """Whoever calls it directly, as any collector may be, is shown under an empty name."""
    registry = CollectorRegistry()
    collector = PrometheusCollector(registry, max_nodes=1)
    collector.on_selection("a", "Mine")
    collector.on_outcome("a", Outcome.SUCCESS, -1.0)  # a clock that stepped back
    collector.on_selection("b", "Mine")
    collector.on_health_change("a", HealthStatus.HEALTHY, HealthStatus.UNHEALTHY)
    collector.on_unavailable("empty")
    collector.on_retry("a", "reset")
    collector.on_retry_refused("deadline")
    value = registry.get_sample_value
    assert value("loadwise_panics_total", {"balancer": ""}) is None
    for entered in (True, False, True):
        collector.on_panic(entered)
    assert value("loadwise_panics_total", {"balancer": ""}) == 2.0
    assert value("loadwise_panic", {"balancer": ""}) is None
    for node in ("a", "other"):
        labels = {"balancer": "", "node": node, "strategy": "Mine"}
        assert value("loadwise_picks_total", labels) == 1.0
    node_a = {"balancer": "", "node": "a"}
    assert value("loadwise_request_duration_seconds_sum", node_a) == 0.0
    change = {**node_a, "old_state": "healthy", "new_state": "unhealthy"}
    assert value("loadwise_health_transitions_total", change) == 1.0
    for name, reason in (("unavailable", "empty"), ("retries", "reset"),
                         ("retries_refused", "deadline")):  # fmt: skip
        assert value(f"loadwise_{name}_total", {"balancer": "", "reason": reason}) == 1.0


def test_default_buckets_suit_caches_and_language_models() -> None:
    """From 1 ms to 60 s; the bound that Prometheus adds may be given, too."""
    assert (DEFAULT_BUCKETS[0], DEFAULT_BUCKETS[-1]) == (0.001, 60.0)
    PrometheusCollector(None, buckets=[*DEFAULT_BUCKETS, float("inf")])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"buckets": []}, "buckets is"),
        ({"buckets": [1, 1]}, "in rising order"),
        ({"buckets": [0, 1]}, "all above 0"),
        ({"buckets": [1, float("nan")]}, "buckets is"),
        ({"buckets": [float("inf")]}, "at least one upper bound"),
        ({"max_nodes": 0}, "max_nodes is 0; it must be at least 1"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], text: str) -> None:
    """At construction, with the value and the remedy."""
    with pytest.raises(ValueError, match=text):
        PrometheusCollector(None, **options)


def test_a_second_collector_in_one_registry_is_refused() -> None:
    """With a hint that one is enough."""
    registry = CollectorRegistry()
    PrometheusCollector(registry)
    with pytest.raises(ValueError, match="one PrometheusCollector serves any number of balancers"):
        PrometheusCollector(registry)


def test_of_cooldowns_beyond_the_limit_the_longest_is_shown() -> None:
    """Their number adds up as ever; their seconds would mean nothing."""
    clock = ManualClock()
    registry = CollectorRegistry()
    collector = PrometheusCollector(registry, max_nodes=1)
    balancer = Balancer(range(4), RoundRobin(start=0), clock=clock, metrics=collector, name="x")
    for seconds in (1.0, 20.0, 30.0, 10.0):
        balancer.acquire().rate_limited(seconds)
    node = {"balancer": "x", "node": "other"}
    assert registry.get_sample_value("loadwise_node_cooldown_seconds", node) == 30.0
    assert registry.get_sample_value("loadwise_nodes_on_cooldown", {"balancer": "x"}) == 4
    assert registry.get_sample_value("loadwise_cooldowns_total", node) == 3


def test_two_collectors_of_one_balancer_both_show_it() -> None:
    """Each in a registry of its own, and each with what the other has."""
    registries = [CollectorRegistry(), CollectorRegistry()]
    metrics = [PrometheusCollector(registry) for registry in registries]
    balancer = Balancer(["a"], metrics=metrics, name="x")
    balancer.acquire().success()
    labels = {"balancer": "x", "node": "a"}
    for registry in registries:
        asked = {**labels, "outcome": "success"}
        assert registry.get_sample_value("loadwise_requests_total", asked) == 1
        assert registry.get_sample_value("loadwise_requests_in_flight", labels) == 0
