"""The files that a process writes in prometheus_client's multiprocess mode, as a scrape reads them.

Each test runs a program of its own, because the mode is chosen when prometheus_client is imported.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TIMEOUT = 90.0

# Each script tells what a scrape shows, as JSON: by metric and labels in the order of their names.
BEGINNING = """
import json, os, struct, sys, threading, time
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from loadwise import Balancer, RoundRobin, QuotaConfig, QuotaDimension, QuotaTracker
from loadwise.integrations.prometheus import PrometheusCollector

def scrape():
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    try:
        families = list(registry.collect())
    except struct.error:  # another process is making a file: prometheus/client_python#1199
        families = []
    return {
        " ".join([s.name.removeprefix("loadwise_"), *(s.labels[k] for k in sorted(s.labels))]):
            s.value
        for family in families for s in family.samples
    }

def until(key, value):
    end = time.monotonic() + 60
    while scrape().get(key) != value:
        assert time.monotonic() < end, (key, scrape().get(key), value)
        time.sleep(0.01)
"""


def run(script: str, directory: Path) -> dict[str, float]:
    """Return what a script of one process prints."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", BEGINNING + script],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its children, too
        process.communicate()
        raise
    assert process.returncode == 0, errors
    told: dict[str, float] = json.loads(output)
    return told


def test_every_metric_is_written(tmp_path: Path) -> None:
    """All of the table, under the names of a single process."""
    told = run(
        """
from loadwise import Ejection, NoNodeAvailable, RetryBudget, HealthTracker
class Shared(HealthTracker):
    connected, events = True, {"outage": 2}
quota = QuotaTracker()
quota.register("a", QuotaConfig([QuotaDimension("rpm", limit=10)]))
collector = PrometheusCollector(None, buckets=[1])
balancer = Balancer(["a"], quota=quota, health=Shared(), metrics=collector, name="x")
budget = RetryBudget()
collector.watch_budget(budget, "x")
balancer.acquire().success()
balancer.acquire().rate_limited(60.0)
try:
    balancer.pick()
except NoNodeAvailable:
    pass
tell = balancer.metrics
tell.on_retry("a", "failure")
tell.on_retry_refused("budget")
tell.on_wait(0.5, False)
tell.on_ejection("a", Ejection(0.0, 30.0, 1, "ejected: slow", "slow_share"))
for _ in range(3):
    balancer.health.report_failure("a")
until("quota_remaining x rpm a", 8)
until("shared_events_total x outage health", 2)  # the last to be written
families = list(collector.collect())
assert all(family.samples for family in families), families
alone = {s.name for family in families for s in family.samples}
shown = {key.split(" ")[0] for key in scrape()}
assert alone == {"loadwise_" + name for name in shown}, alone ^ shown
print(json.dumps(scrape()))
""",
        tmp_path,
    )
    assert told["wait_duration_seconds_bucket x 1.0"] == 1
    assert told["waits_in_vain_total x"] == told["panics_total x"] == 1
    assert told["unavailable_total x rate_limited"] == 1
    assert told["retries_total x failure"] == told["retries_refused_total x budget"] == 1
    assert told["cooldowns_total x a"] == told["nodes_on_cooldown x"] == 1
    assert told["ejections_total x a slow_share"] == 1
    assert told["nodes_ejected x"] == 0
    assert 0 < told["node_cooldown_seconds x a"] <= 60
    assert told["retry_budget_balance x"] == 100
    assert (told["shared_connected x health"], told["shared_events_total x outage health"]) == (
        1,
        2,
    )
    assert told["health_transitions_total x unhealthy a degraded"] == 1


def test_the_gauges_of_a_node_that_left_weigh_nothing(tmp_path: Path) -> None:
    """What a file once had stays in it: 0 in a sum, infinite in a least."""
    told = run(
        """
quota = QuotaTracker()
for node in "ab":
    quota.register(node, QuotaConfig([QuotaDimension("rpm", limit=10)]))
balancer = Balancer(["a", "b"], RoundRobin(), quota=quota, metrics=PrometheusCollector(), name="x")
balancer.acquire().success()
until("quota_remaining x rpm a", 9)
balancer.remove("a")
until("node_health x a healthy", 0)
until("quota_remaining x rpm a", float("inf"))
print(json.dumps({key: str(value) for key, value in scrape().items()}))
""",
        tmp_path,
    )
    assert float(told["quota_remaining x rpm b"]) == 10
    assert float(told["picks_total x a RoundRobin"]) == 1


def test_nodes_that_come_and_go_do_not_fill_the_files(tmp_path: Path) -> None:
    """``max_nodes`` is how many nodes a process may name in all; the rest is added up."""
    told = run(
        """
balancer = Balancer([0], metrics=PrometheusCollector(max_nodes=10), name="x")
for number in range(1, 300):
    balancer.acquire().success()
    balancer.add(number)
    balancer.remove(number - 1)
print(json.dumps(scrape()))
""",
        tmp_path,
    )
    picks = {key: value for key, value in told.items() if key.startswith("picks_total")}
    assert len(picks) == 11
    assert sum(picks.values()) == 299
    assert picks["picks_total x other PowerOfTwoChoices"] == 289


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_in_the_midst_of_it_costs_nothing(tmp_path: Path) -> None:
    """Threads count while the process forks thirty times; each child counts, and all add up."""
    told = run(
        """
collector = PrometheusCollector()
balancer = Balancer(["a"], metrics=collector, name="x")
done, counts = threading.Event(), [0, 0]

def work(index):
    while not done.is_set():
        balancer.acquire().success()
        counts[index] += 1

threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(2)]
for thread in threads:
    thread.start()
children = []
for _ in range(30):
    child = os.fork()
    if child == 0:
        lease = balancer.acquire()
        os._exit(0 if lease.success() else 1)
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
done.set()
for thread in threads:
    thread.join()
assert codes == [0] * 30, codes
told = scrape()
assert told["picks_total x a PowerOfTwoChoices"] == sum(counts) + 30, (told, counts)
assert told["request_duration_seconds_count x a"] == sum(counts) + 30
print(json.dumps(told))
""",
        tmp_path,
    )
    assert told["requests_total x a success"] > 30


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_shows_gauges_of_its_own_and_the_parent_s_events_once(tmp_path: Path) -> None:
    """The parent, which only forks, shows none; what was shared before is counted once."""
    told = run(
        """
from loadwise import HealthTracker
class Shared(HealthTracker):
    connected, events = True, {"outage": 3}
shared = Shared()
balancer = Balancer(["a"], health=shared, metrics=PrometheusCollector(), name="x")
reading, writing = os.pipe()
children = []
for number in (1, 2):
    child = os.fork()
    if child == 0:
        os.close(writing)
        Shared.events = {"outage": 3 + number}
        lease = balancer.acquire()
        os.read(reading, 1)
        os._exit(0)
    children.append(child)
until("requests_in_flight x a", 2)
until("shared_events_total x outage health", 3)
until("node_health x a healthy", 2)
os.close(writing)
for child in children:
    os.waitpid(child, 0)
balancer.acquire().success()
until("shared_events_total x outage health", 6)
print(json.dumps(scrape()))
""",
        tmp_path,
    )
    assert told["picks_total x a PowerOfTwoChoices"] == 3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the locks that a host needs")
def test_a_host_s_totals_are_not_added_up_over_workers(tmp_path: Path) -> None:
    """Three workers of a host: their own gauges add up to what the totals say."""
    told = run(
        f"""
from loadwise.integrations.prometheus import PrometheusHostCollector
from loadwise.shared_memory import HostState
path = {str(tmp_path / "host")!r}
balancer = Balancer(["a"], host=HostState(path), metrics=PrometheusCollector(), name="x")
reading, writing = os.pipe()
children = []
for number in (1, 2, 3):
    child = os.fork()
    if child == 0:
        os.close(writing)
        leases = [balancer.acquire() for _ in range(number)]
        os.read(reading, 1)
        os._exit(0)
    children.append(child)
until("requests_in_flight x a", 6)
registry = CollectorRegistry()
MultiProcessCollector(registry)
registry.register(PrometheusHostCollector(path, registry=None))
shown = {{
    s.name: s.value for family in registry.collect() for s in family.samples
    if s.name.endswith(("in_flight", "processes"))
}}
os.close(writing)
for child in children:
    os.waitpid(child, 0)
print(json.dumps(shown))
""",
        tmp_path,
    )
    assert told == {
        "loadwise_requests_in_flight": 6,
        "loadwise_host_requests_in_flight": 6,
        "loadwise_host_processes": 4,
    }
