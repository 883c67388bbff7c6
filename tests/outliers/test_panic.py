"""Outlier ejection and panic: to take nodes out must not make a fleet worse."""

from __future__ import annotations

from typing import Any

from tests.outliers.fleet import OutlierFleet

from loadwise import Balancer, HealthStatus, OutlierDetection
from loadwise.testing import ManualClock

RUNS: dict[str, Any] = {"success_rate": None, "failure_share": None, "significance": None}


def mostly_out(*, probe: bool = True) -> OutlierFleet:
    """Five nodes that answered well a moment ago, of which four have been ejected since."""
    fleet = OutlierFleet("abcde", **RUNS, max_ejected=1.0, probe=probe)
    for node in "abcde":
        for number in range(60):
            lease = fleet.balancer.acquire(exclude=set("abcde") - {node})
            assert lease.failure() if number % 2 else lease.success()
    for node in "abcd":
        fleet.load(node, bad=4)
    assert fleet.out == fleet.down == "abcd"
    return fleet


def test_ejected_nodes_are_given_requests_in_panic() -> None:
    """Where most are out, those that are ailing share the load, as with any other verdict."""
    fleet = mostly_out()
    panic = fleet.balancer.panic
    assert panic is not None
    assert (panic.available, panic.ailing, panic.members) == (1, 4, 5)
    assert {fleet.balancer.pick() for _ in range(100)} == set("abcde")
    assert {each.ailing for each in fleet.balancer.status() if each.id != "e"} == {True}


def test_successes_in_panic_do_not_end_an_ejection() -> None:
    """They keep a node ailing; it is UNHEALTHY until the end, and is back after that."""
    for probe in (True, False):
        fleet = mostly_out(probe=probe)
        for step in range(1, 30):
            fleet.at(float(step))
            for node in "abcd":
                fleet.balancer.acquire(exclude=set("abcde") - {node}).success()
            assert fleet.out == fleet.down == "abcd"
            assert all(each.ailing for each in fleet.balancer.status() if each.id != "e")
            assert fleet.reason("a") == "ejected: 5 failures in a row"
        fleet.at(30.0)
        if probe:
            for node in "abcd":
                fleet.balancer.acquire(exclude=set("abcde") - {node}).success()
        assert fleet.out == fleet.down == ""


def test_the_last_resort_does_not_end_an_ejection() -> None:
    """When a node answers after all were dead, the others are probed; an ejected one is not."""
    fleet = OutlierFleet("ab", **RUNS, health=True)
    assert fleet.balancer.health is not None
    fleet.load("a", bad=5)
    fleet.load("b", bad=3)
    assert (fleet.out, fleet.down) == ("a", "ab")
    assert fleet.balancer.panic is not None
    assert fleet.balancer.panic.last_resort
    fleet.at(1.0)
    fleet.balancer.acquire(exclude={"a"}).success()
    assert fleet.balancer.health.status("b") is HealthStatus.RECOVERING
    assert fleet.balancer.pick() == "b"
    assert (fleet.out, fleet.down) == ("a", "a")


def test_without_panic_an_ejection_can_leave_nobody() -> None:
    """With ``panic_threshold=None`` it is as with any node that is down."""
    clock, detection = ManualClock(), OutlierDetection(**RUNS)
    balancer = Balancer(["a"], outliers=detection, clock=clock, panic_threshold=None)
    for lease in [balancer.acquire() for _ in range(5)]:
        lease.failure()
    assert set(detection.ejections) == {"a"}
    assert balancer.explain().choice is None


def test_a_majority_of_outliers_is_no_outlier() -> None:
    """Three of five nodes fail half their requests: one at most is out, and the rest works on."""
    fleet = OutlierFleet("abcde", consecutive_failures=None)
    for sweep in range(1, 20):
        for node in "abcde":
            if node not in fleet.out:
                fleet.load(node, good=100, bad=100 if node in "abc" else 0)
        fleet.at(10.0 * sweep)
        assert len(fleet.out) <= 1
        assert fleet.balancer.panic is None
