"""Health that the processes of a host share: the newest state holds."""

from __future__ import annotations

from pathlib import Path

from tests.shared_memory.workers import until, worker

from loadwise import Balancer, ConsecutiveFailurePolicy, HealthStatus, HealthTracker
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
