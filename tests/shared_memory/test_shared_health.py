"""Health that the processes of a host share: the newest state holds."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.shared_memory.workers import until, worker

from loadwise import Balancer, ConsecutiveFailurePolicy, HealthStatus, HealthTracker, Outcome
from loadwise.balancer import Lease
from loadwise.shared_memory import HostState


def test_a_node_that_is_down_for_one_is_down_for_all(path: Path) -> None:
    """At the next pick; and up again as soon as one process has found that out."""
    health = HealthTracker(ConsecutiveFailurePolicy(failure_threshold=1, probe_interval=60.0))
    balancer = Balancer(["a", "b", "c"], health=health, panic_threshold=None, host=HostState(path))
    with worker(path, "a", "b", "c") as other:
        while not other.tell("acquire", 1)["a"]:
            pass
        other.tell("fail", "a")
        assert "a" not in {balancer.pick() for _ in range(60)}
        (down,) = [each for each in balancer.status() if each.id == "a"]
        assert down.health is HealthStatus.UNHEALTHY
        assert "it broke (found out by another process)" in str(down.health_reason)
        late = Balancer(["a", "b", "c"], host=HostState(path), panic_threshold=None)
        assert "a" not in {late.pick() for _ in range(60)}
        with worker(path, "a", "b", "c") as newcomer:
            assert newcomer.tell("healths")["a"] == "UNHEALTHY"

        def is_up() -> bool:
            held = other.tell("acquire", 1)
            for node in "abc":
                for _ in range(held[node]):
                    other.tell("succeed", node)
            balancer.pick()
            return health.status("a") is HealthStatus.HEALTHY

        until(is_up)
        assert late.explain().ineligible == {}


def failing(path: Path, interval: float) -> Balancer[str]:
    """Return a balancer that knows that a is down, and whose probe of it is due."""
    health = HealthTracker(ConsecutiveFailurePolicy(failure_threshold=1, probe_interval=interval))
    balancer = Balancer(["a", "b"], health=health, panic_threshold=None, host=HostState(path))
    balancer.report("a", Outcome.FAILURE)
    health.hasten_probes(["a"])
    return balancer


def probe_of_a(balancer: Balancer[str]) -> Lease[str]:
    """Return a lease on a, after some on b at most."""
    for _ in range(200):
        lease = balancer.acquire()
        if lease.node == "a":
            return lease
        lease.cancel()
    raise AssertionError("a was not probed")


def chosen(balancer: Balancer[str]) -> list[str]:
    """Return whom 30 requests were given; each holds its lease until all have one."""
    leases = [balancer.acquire() for _ in range(30)]
    nodes = [lease.node for lease in leases]
    for lease in leases:
        lease.cancel()
    return nodes


def test_one_process_at_a_time_probes_a_node(path: Path) -> None:
    """The others leave it alone while the probe is under way, and after it has failed."""
    with worker(path, "a", "b", interval=50.0) as other:
        balancer = failing(path, 50.0)
        until(lambda: other.tell("healths")["a"] == "UNHEALTHY")
        probe = probe_of_a(balancer)
        other.tell("hasten", "a", "b")
        assert other.tell("acquire", 30)["a"] == 1  # mine
        probe.failure()
        other.tell("hasten", "a", "b")
        assert other.tell("acquire", 30)["a"] == 0
        health = HealthTracker()
        late = Balancer(["a", "b"], health=health, host=HostState(path), panic_threshold=None)
        health.hasten_probes(["a"])
        assert health.status("a") is HealthStatus.UNHEALTHY
        assert "a" not in chosen(late)


def test_a_probe_of_a_process_that_is_frozen_or_killed_lapses(path: Path) -> None:
    """After a second, for the claim lasts as long as the probe interval, but at least that."""
    with worker(path, "a", "b", interval=0.1) as other:
        balancer = failing(path, 0.1)
        until(lambda: other.tell("healths")["a"] == "UNHEALTHY")
        until(lambda: bool(other.tell("acquire", 1)["a"]))
        other.signal(signal.SIGSTOP)
        until(lambda: "a" in chosen(balancer))
    health = HealthTracker(ConsecutiveFailurePolicy(failure_threshold=1, probe_interval=50.0))
    balancer = Balancer(["a", "b"], health=health, panic_threshold=None, host=HostState(path))
    with worker(path, "a", "b", interval=50.0) as other:
        assert other.tell("healths")["a"] == "UNHEALTHY"
        other.tell("hasten", "a")
        until(lambda: bool(other.tell("acquire", 1)["a"]))
        health.hasten_probes(["a"])
        assert "a" not in chosen(balancer)

    def is_probed() -> bool:
        health.hasten_probes(["a"])
        return "a" in chosen(balancer)

    until(is_probed)
