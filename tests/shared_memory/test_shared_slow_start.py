"""Slow start by the host's clock: all processes warm a node up together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.shared_memory.workers import until, worker

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    HealthStatus,
    HealthTracker,
    Outcome,
    SlowStart,
)
from loadwise.shared_memory.virtual_host import VirtualHost
from loadwise.testing import ManualClock


class Host:
    """Processes of one host, each with a balancer that begins slowly."""

    def __init__(self, processes: int = 3) -> None:
        self.clock = ManualClock(1000.0)
        self.host = VirtualHost(self.clock, processes=processes, nodes=9)
        self.balancers: list[Balancer[Any]] = []

    def start(self, *nodes: str, slow: bool = True) -> Balancer[Any]:
        """Have the next process begin, with a balancer of these nodes."""
        health = HealthTracker(ConsecutiveFailurePolicy(1, 1, 5.0), clock=self.clock)
        balancer: Balancer[Any] = Balancer(
            list(nodes),
            clock=self.clock,
            health=health,
            host=self.host.processes[len(self.balancers)],
            slow_start=SlowStart(window=100.0) if slow else None,
        )
        self.balancers.append(balancer)
        return balancer

    def starts(self, node: str) -> list[float | None]:
        """What part of its weight a node has in each process."""
        return [
            next((each.slow_start for each in balancer.status() if each.id == node), -1.0)
            for balancer in self.balancers
        ]

    def recover(self, node: str, balancer: Balancer[Any]) -> None:
        """Have a node fail and come back, as one process finds out."""
        balancer.report(node, Outcome.FAILURE)
        self.clock.advance(10.0)
        assert isinstance(balancer.health, HealthTracker)
        for _ in range(100):
            with balancer.acquire():
                pass
            if balancer.health.status(node) is HealthStatus.HEALTHY:
                return


def test_a_node_that_is_back_warms_up_for_all_at_once() -> None:
    """From when one process found it back, however late the others pick; also for newcomers."""
    host = Host(4)
    one, other = host.start("a", "b"), host.start("a", "b")
    host.start("a", "b", slow=False)
    host.clock.advance(10.0)
    host.recover("a", one)
    host.clock.advance(20.0)
    assert host.starts("a") == [0.2, 0.2, None]
    host.start("a", "b")
    assert host.starts("a") == [0.2, 0.2, None, 0.2]
    assert host.starts("b") == [None] * 4
    picks = [other.pick() for _ in range(600)]
    assert 40 <= picks.count("a") <= 170  # a sixth
    host.recover("a", other)
    host.clock.advance(30.0)
    assert host.starts("a") == [0.3, 0.3, None, 0.3]
    host.clock.advance(70.0)
    assert host.starts("a") == [None] * 4


def test_a_node_that_is_new_to_the_host_warms_up_once() -> None:
    """From when the first process added it; where others have it long, it is warm."""
    host = Host()
    one, other, third = host.start("a", "b"), host.start("a"), host.start("a", "b")
    host.clock.advance(10.0)
    one.add("c")
    host.clock.advance(20.0)
    other.add("c")
    other.add("b")
    assert host.starts("c") == [0.2, 0.2, -1.0]
    assert host.starts("b") == [None, None, None]
    host.clock.advance(500.0)
    third.add("c")
    assert host.starts("c") == [None, None, None]
    for balancer in (one, other, third):
        balancer.remove("c")
    third.add("c")
    host.clock.advance(20.0)
    one.add("c")
    assert host.starts("c") == [0.2, -1.0, 0.2]


def test_who_has_no_slow_start_is_left_alone() -> None:
    """Processes may have different settings."""
    host = Host()
    plain, slow = host.start("a", "b", slow=False), host.start("a", "b")
    host.clock.advance(10.0)
    host.recover("a", plain)
    host.clock.advance(20.0)
    assert host.starts("a") == [None, 0.2]
    slow.remove("a")
    slow.add("a")
    assert host.starts("a") == [None, None]  # the other has it still


def test_real_processes_warm_a_node_up_together(path: Path) -> None:
    """By the clock of the host, also in a process that begins in the midst of it."""

    def seconds(of: Any) -> float:
        part = of.tell("starts")["a"]
        return 0.0 if part is None else 1000.0 * part

    with worker(path, "a", "b", more="slow") as one, worker(path, "a", "b", more="slow") as other:
        while not one.tell("acquire", 1)["a"]:
            pass
        one.tell("fail", "a")
        assert other.tell("healths")["a"] == "UNHEALTHY"
        assert seconds(one) == 0.0

        def is_back() -> bool:
            for node, number in one.tell("acquire", 1).items():
                for _ in range(number):
                    one.tell("succeed", node)
            return bool(one.tell("healths")["a"] == "HEALTHY")

        until(is_back)
        with worker(path, "a", "b", more="slow") as late:
            for each in (other, late):
                before, between, after = seconds(one), seconds(each), seconds(one)
                assert 0.0 < before <= between <= after


def test_weights_of_a_start_that_is_heard_of_count_at_the_next_pick() -> None:
    """Nothing else has changed, so that only the news can make a pick look again."""
    host = Host()
    one, other = host.start("a", "b"), host.start("a", "b", "c")
    host.clock.advance(10.0)
    picks = [other.pick() for _ in range(300)]
    assert 50 <= picks.count("b") <= 150  # a third
    shared = host.host.processes[0].share_starts(lambda _node, _since: None)
    assert one.pick() in {"a", "b"}
    shared.begin("b", host.clock())
    picks = [other.pick() for _ in range(600)]
    assert picks.count("b") < 80  # a twentieth
