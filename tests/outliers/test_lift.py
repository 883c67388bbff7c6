"""`Balancer.lift` of ejected nodes: by whom they are let back, and what stays."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.outliers.fleet import OutlierFleet
from tests.outliers.test_threads import together

from loadwise import Balancer, HealthStatus, HealthTracker, Outcome, OutlierDetection
from loadwise.testing import ManualClock

ONE: dict[str, Any] = {
    "consecutive_failures": 1,
    "success_rate": None,
    "failure_share": None,
    "significance": None,
}


def test_without_a_probe_it_is_healthy_at_once() -> None:
    """The next request may already get it; nobody waits for a sweep."""
    fleet = OutlierFleet("abc", probe=False, **ONE)
    fleet.load("b", bad=1)
    assert (fleet.out, fleet.down) == ("b", "b")
    assert fleet.balancer.lift("b")
    assert (fleet.out, fleet.down) == ("", "")
    assert fleet.balancer.pick(exclude=["a", "c"]) == "b"
    assert not fleet.balancer.lift("b")


@pytest.mark.parametrize("outcome", [Outcome.SUCCESS, Outcome.FAILURE])
def test_with_a_probe_that_decides(outcome: Outcome) -> None:
    """It is due now, however long the ejection would have lasted."""
    fleet = OutlierFleet("abc", probe=True, **ONE)
    fleet.load("b", bad=1)
    assert fleet.balancer.lift("b")
    assert (fleet.out, fleet.down) == ("", "b")
    assert fleet.balancer.status()[1].next_probe == 0.0
    lease = fleet.balancer.acquire(exclude=["a", "c"])
    assert lease.node == "b"
    assert lease.success() if outcome is Outcome.SUCCESS else lease.failure("still bad")
    assert fleet.down == ("" if outcome is Outcome.SUCCESS else "b")


def test_a_cooldown_and_an_ejection_end_together() -> None:
    """Of a node that is drained, too, which it stays; and of no other."""
    fleet = OutlierFleet("abcd", probe=False, max_ejected=1.0, **ONE)
    for node in "bc":
        fleet.load(node, bad=1)
        fleet.balancer.report(node, Outcome.RATE_LIMITED)
    fleet.balancer.drain("b")
    assert fleet.balancer.lift("b")
    told = fleet.balancer.status()
    assert [each.cooldown is None for each in told] == [True, True, False, True]
    assert [each.ejected for each in told] == [False, False, True, False]
    assert told[1].drained


def test_a_node_that_is_down_for_its_failures_is_not_lifted() -> None:
    """Health has its own probes."""
    clock = ManualClock()
    balancer = Balancer(["a", "b"], clock=clock)
    for _ in range(5):
        balancer.report("a", Outcome.FAILURE)
    before = balancer.status()[0]
    assert before.health is HealthStatus.UNHEALTHY
    assert not balancer.lift("a")
    assert balancer.status()[0] == before


@pytest.mark.parametrize("has_outliers", [True, False])
def test_an_ejection_by_another_balancer(has_outliers: bool) -> None:  # noqa: FBT001 - a parameter
    """A tracker that is shared shares ejections, and any of its balancers may lift them."""
    clock = ManualClock()
    health = HealthTracker(clock=clock)
    mine = OutlierDetection(**ONE) if has_outliers else None
    its = OutlierDetection(**ONE)
    first: Balancer[str] = Balancer(["a", "b", "c"], health=health, outliers=its, clock=clock)
    other: Balancer[str] = Balancer(["a", "b", "c"], health=health, outliers=mine, clock=clock)
    first.report("b", Outcome.FAILURE)
    assert other.status()[1].ejected
    assert other.lift("b")
    assert not other.lift("b")
    assert not first.status()[1].ejected
    with other.acquire(exclude=["a", "c"]) as lease:
        assert lease.node == "b"
    assert other.status()[1].health is not HealthStatus.UNHEALTHY
    clock.advance(10.0)
    assert not its.ejections


def test_the_next_ejection_is_longer_all_the_same() -> None:
    """Whoever lifts one may be wrong; the count falls with the intervals that go well."""
    fleet = OutlierFleet("abc", probe=False, base_ejection=10.0, **ONE)
    fleet.load("b", bad=1)
    assert fleet.balancer.lift("b")
    fleet.load("b", bad=1)
    found = fleet.detection.ejections["b"]
    assert (found.count, found.until - found.since) == (2, 20.0)
    fleet.balancer.lift("b")
    for interval in range(1, 5):
        fleet.at(interval * 10.0)
        fleet.load("b", good=1)
    fleet.load("b", bad=1)
    assert fleet.detection.ejections["b"].count == 1


def test_threads_that_eject_and_lift() -> None:
    """The detection and health agree in the end, and a node that was lifted is in use."""
    names = [f"n{number}" for number in range(6)]
    clock = ManualClock()
    detection = OutlierDetection(max_ejected=1.0, interval=1.0, probe=False, **ONE)
    balancer = Balancer(names, outliers=detection, health=False, clock=clock)

    def work(number: int) -> None:
        draw = random.Random(number)
        for turn in range(60):
            node = draw.choice(names)
            balancer.report(node, draw.choice((Outcome.FAILURE, Outcome.SUCCESS)))
            balancer.lift(draw.choice(names))
            if number == 0 and turn % 10 == 0:
                clock.advance(0.5)

    together(work)
    out = set(detection.ejections)
    assert out == {each.id for each in balancer.status() if each.ejected}
    for name in names:
        assert balancer.lift(name) is (name in out)
    assert not detection.ejections
    assert {each.health for each in balancer.status()} == {HealthStatus.HEALTHY}
