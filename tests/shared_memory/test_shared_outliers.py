"""Outlier detection by a host: what one process ejects is out for all, and all are counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.shared_memory.workers import worker

from loadwise import (
    Balancer,
    HealthStatus,
    HealthTracker,
    NoopCollector,
    Outcome,
    OutlierDetection,
    RoundRobin,
    SuccessRate,
)
from loadwise.outliers import Ejection
from loadwise.shared_memory import HostState
from loadwise.shared_memory.virtual_host import VirtualHost
from loadwise.testing import ManualClock

NODES = "abcdefghij"


class Ejections(NoopCollector):
    """Counts ejections that a balancer tells of."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def on_ejection(self, node_id: object, ejection: Ejection) -> None:
        """Count one."""
        self.told.append((node_id, ejection.rule))


class Host:
    """Processes of one host, each with a balancer of the same nodes."""

    def __init__(self, processes: int = 3, *, health: Any = None, **options: Any) -> None:
        self.clock = ManualClock(1000.0)
        host = VirtualHost(self.clock, processes=processes, nodes=len(NODES))
        self.metrics = [Ejections() for _ in range(processes)]
        self.detections = [OutlierDetection(**options) for _ in range(processes)]
        self.balancers = [
            Balancer(
                list(NODES),
                RoundRobin(start=0),
                clock=self.clock,
                host=process,
                outliers=detection,
                metrics=metrics,
                health=HealthTracker(clock=self.clock) if health is None else health,
            )
            for process, detection, metrics in zip(
                host.processes, self.detections, self.metrics, strict=True
            )
        ]

    def load(self, process: int, good: int, **bad: int) -> None:
        """Have requests to all nodes end well in one process, but those that are said to fail."""
        for node in NODES:
            for number in range(good):
                failed = number >= good - bad.get(node, 0)
                self.balancers[process].report(node, Outcome.FAILURE if failed else Outcome.SUCCESS)

    @property
    def out(self) -> list[str]:
        """Who is ejected, as each process has it after a pick."""
        for balancer in self.balancers:
            balancer.pick()
        return ["".join(sorted(map(str, each.ejections))) for each in self.detections]


@pytest.mark.parametrize("health", [None, False])
def test_who_is_ejected_by_one_is_out_for_all(health: Any) -> None:
    """With the reason, and until one probe has gone well anywhere; one process has done it."""
    host = Host(health=health)
    host.load(0, 20)
    host.load(0, 5, c=5)
    assert host.out == ["c", "c", "c"]
    for balancer, other in zip(host.balancers, host.detections, strict=True):
        (status,) = [each for each in balancer.status() if each.id == "c"]
        assert status.ejected
        assert status.health is HealthStatus.UNHEALTHY
        assert str(status.health_reason).startswith("ejected: 5 failures in a row")
        assert other.ejections["c"].until == 1030.0
        assert other.ejections["c"].rule == "consecutive_failures"
        assert "c" not in {balancer.pick() for _ in range(30)}
    assert [metrics.told for metrics in host.metrics] == [[("c", "consecutive_failures")], [], []]
    host.clock.now = 1029.0
    assert host.out == ["c", "c", "c"]
    host.clock.now = 1030.0
    for _ in range(1000):
        with host.balancers[1].acquire():
            pass
        if {each.health for each in host.balancers[1].status()} == {HealthStatus.HEALTHY}:
            break
    host.clock.now = 1040.0
    assert host.out == ["", "", ""]
    for balancer in host.balancers:
        assert {each.health for each in balancer.status()} == {HealthStatus.HEALTHY}


def test_the_share_that_may_be_out_is_that_of_the_host() -> None:
    """One of ten by whoever is first; another process may eject none beside it."""
    host = Host(max_ejected=0.1)
    for process in range(3):
        host.load(process, 20)
    host.load(0, 5, c=5)
    host.load(1, 5, d=5)  # before it has heard of c
    host.load(2, 5, e=5)
    assert host.out == ["c", "c", "c"]
    more = Host(max_ejected=0.2)
    for process in range(3):
        more.load(process, 20)
    for process, node in enumerate("cde"):
        more.load(process, 5, **{node: 5})
    assert more.out == ["cd", "cd", "cd"]


def test_all_processes_results_are_judged() -> None:
    """None of them has enough requests of a node alone; after two intervals all have seen all."""
    host = Host(processes=4, consecutive_failures=None, failure_share=None,
                success_rate=SuccessRate(min_requests=100))  # fmt: skip
    found: list[str] = []
    for interval in range(1, 3):
        for process in range(4):
            host.load(process, 30, e=12)
        host.clock.now = 1000.0 + 10.0 * interval
        found = host.out
    assert found == ["e"] * 4
    assert sum(len(each.told) for each in host.metrics) == 1
    alone = Host(processes=1, consecutive_failures=None, failure_share=None,
                 success_rate=SuccessRate(min_requests=100))  # fmt: skip
    for interval in range(1, 6):
        alone.load(0, 30, e=12)
        alone.clock.now = 1000.0 + 10.0 * interval
    assert alone.out == [""]


def test_every_result_is_judged_once() -> None:
    """Whoever sweeps when: after a first sweep, what each adds up is what all have reported."""
    host = Host(processes=3, consecutive_failures=None)
    sums = [0, 0, 0]

    def sweep(process: int, when: float) -> int:
        host.clock.now = when + process
        host.balancers[process].pick()
        ejector = host.detections[process]._ejector
        assert ejector is not None
        return sum(each.before.total for each in ejector._watched.values())

    for process in range(3):
        assert sweep(process, 1010.0) == 0
    for interval in range(2, 10):
        for process in range(3):
            host.load(process, 1 + (interval * (process + 1)) % 4)
        for process in range(3):
            sums[process] += sweep(process, 1000.0 + 10.0 * interval)
    for process in range(3):
        sums[process] += sweep(process, 1100.0)
    reported = sum(1 + (i * (p + 1)) % 4 for i in range(2, 10) for p in range(3))
    assert sums == [reported * len(NODES)] * 3


def ejecting(path: Path, **options: Any) -> tuple[Balancer[str], OutlierDetection]:
    """Return a balancer of this process, and its outlier detection."""
    detection = OutlierDetection(**options)
    return Balancer(list(NODES), host=HostState(path), outliers=detection, health=False), detection


def test_real_processes_share_ejections(path: Path) -> None:
    """Who comes later knows of them, too, and whoever has no outlier detection."""
    with worker(path, *NODES) as plain:
        balancer, detection = ejecting(path)
        for node in NODES:
            for number in range(25):
                bad = node == "c" and number >= 20
                balancer.report(node, Outcome.FAILURE if bad else Outcome.SUCCESS)
        assert set(detection.ejections) == {"c"}
        assert plain.tell("healths")["c"] == "UNHEALTHY"
        with worker(path, *NODES, more="outliers") as late:
            assert late.tell("healths")["c"] == "UNHEALTHY"
            assert late.tell("eject", "d") == ["c"]
            assert set(detection.ejections) == {"c"}
