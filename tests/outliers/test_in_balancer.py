"""Outlier ejection in a balancer: who is counted, who is told, and what becomes of the nodes."""

from __future__ import annotations

import logging
import random
from collections.abc import Hashable
from typing import Any

import pytest
from tests.outliers.fleet import OutlierFleet

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    Ejection,
    FailureShare,
    HealthStatus,
    HealthTracker,
    NoNodeAvailable,
    NoopCollector,
    Outcome,
    OutlierDetection,
    SlowShare,
    SuccessRate,
)
from loadwise.testing import ManualClock

RUNS: dict[str, Any] = {"success_rate": None, "failure_share": None, "significance": None}
ONE: dict[str, Any] = {**RUNS, "consecutive_failures": 1}
NONE: dict[str, Any] = {**RUNS, "consecutive_failures": None}
GRAY = 400


def gray(nodes: str, *, swept: bool = True, **options: Any) -> OutlierFleet:
    """A fleet whose last node has failed a quarter of its requests, after the first sweep."""
    fleet = OutlierFleet(nodes, consecutive_failures=None, **options)
    for node in nodes:
        fleet.load(node, good=GRAY * 3 // 4)
        fleet.load(node, **{"bad" if node == nodes[-1] else "good": GRAY // 4})
    fleet.at(10.0)
    if swept:
        assert fleet.detection.ejections is not None
    return fleet


def test_picks_sweep_before_they_choose() -> None:
    """The first request after the interval already goes to another node."""
    for way in ("pick", "acquire", "call", "attempts"):
        fleet = gray("ab", swept=False)
        nodes = set[str]()
        for _ in range(20):
            if way == "pick":
                nodes.add(fleet.balancer.pick())
            elif way == "acquire":
                with fleet.balancer.acquire() as lease:
                    nodes.add(lease.node)
            elif way == "call":
                fleet.balancer.call(nodes.add)
            else:
                for attempt in fleet.balancer.attempts(2):
                    with attempt as lease:
                        nodes.add(lease.node)
        assert nodes == {"a"}, way


def test_two_nodes_are_enough() -> None:
    """Below ``min_nodes`` the test of significance decides alone; one node is never an outlier."""
    fleet = gray("ab")
    assert fleet.out == "b"
    assert fleet.reason("b") == "ejected: success rate 75 % is below that of the others"
    assert gray("b").out == ""
    assert gray("ab", significance=None).out == ""


def test_a_difference_by_chance_is_left_alone() -> None:
    """Three failures more than the others are no outlier."""
    fleet = OutlierFleet("abcde", consecutive_failures=None)
    for node in "abcde":
        fleet.load(node, good=197, bad=0 if node != "e" else 3)
    fleet.at(10.0)
    assert fleet.out == ""


def test_nodes_with_few_requests_are_not_judged() -> None:
    """Below ``min_requests`` a node stays, however badly it does."""
    fleet = OutlierFleet("abc", consecutive_failures=None)
    fleet.load("a", good=1000)
    fleet.load("c", bad=49)
    fleet.at(10.0)
    assert fleet.out == ""
    fleet.load("a", good=1000)
    fleet.load("c", bad=50)
    fleet.at(20.0)
    assert fleet.out == "c"


def test_a_probe_decides_when_the_ejection_is_over() -> None:
    """Not before, and it is one: a success leads back by the policy, a failure does not."""
    fleet = gray("abcde", health=True)
    balancer = fleet.balancer
    assert balancer.health is not None
    fleet.at(39.9)
    assert not balancer.health.should_probe("e")
    assert {balancer.pick() for _ in range(50)} == set("abcd")
    fleet.at(40.0)
    assert fleet.out == ""
    assert fleet.down == "e"
    probe = balancer.acquire(exclude=set("abcd"))
    with pytest.raises(NoNodeAvailable):
        balancer.acquire(exclude=set("abcd"))
    probe.failure("status 503")
    assert fleet.down == "e"
    fleet.at(50.0)
    balancer.acquire(exclude=set("abcd")).success()
    assert balancer.health.status("e") is HealthStatus.RECOVERING
    balancer.acquire(exclude=set("abcd")).success()
    assert balancer.health.status("e") is HealthStatus.HEALTHY


def test_without_a_probe_it_is_back_at_once() -> None:
    """As in Envoy, whatever health thought of it before."""
    fleet = gray("abcde", health=True, probe=False)
    balancer = fleet.balancer
    assert balancer.health is not None
    fleet.at(39.9)
    assert fleet.down == "e"
    fleet.at(40.0)
    assert balancer.acquire(exclude=set("abcd")).success()
    assert balancer.health.status("e") is HealthStatus.HEALTHY


def test_one_probe_is_enough_without_health() -> None:
    """The private tracker takes a node for well after one success."""
    fleet = gray("abcde")
    fleet.at(40.0)
    assert fleet.down == "e"
    fleet.balancer.acquire(exclude=set("abcd")).success()
    assert fleet.down == ""


def test_without_health_failures_alone_take_nobody_out() -> None:
    """The private tracker knows of ejections and of nothing else."""
    fleet = OutlierFleet("ab", **NONE)
    fleet.load("a", bad=500)
    fleet.at(10.0)
    assert fleet.down == ""
    assert [each.recent_failures for each in fleet.balancer.status()] == [500, 0]


def test_a_node_that_waits_for_its_probe_stays_ejected_in_a_row() -> None:
    """Time that it is not in the fleet takes nothing from its count; failed probes add to a run."""
    fleet = OutlierFleet("ab", **RUNS)
    fleet.load("a", bad=5)
    now = 30.0
    for _ in range(5):
        fleet.at(now)
        assert fleet.out == ""
        fleet.balancer.acquire(exclude={"b"}).failure("refused")
        now += 10.0
    assert fleet.detection.ejections["a"].count == 2
    fleet.at(130.0)
    fleet.balancer.acquire(exclude={"b"}).success()
    assert fleet.down == ""
    for seconds in (140.0, 150.0, 160.0):
        fleet.at(seconds)
        assert fleet.out == ""
    fleet.load("a", bad=5)
    assert fleet.detection.ejections["a"].count == 1


def test_only_successes_and_failures_count() -> None:
    """Rate limits and cancellations neither begin, nor go on with, nor end a run."""
    fleet = OutlierFleet("a", **RUNS)
    balancer = fleet.balancer
    for _ in range(10):
        balancer.acquire().cancel()
        balancer.acquire().rate_limited(0.0)
    fleet.load("a", bad=4)
    balancer.acquire().cancel()
    assert fleet.out == ""
    fleet.load("a", bad=1)
    assert fleet.out == "a"


def test_failures_that_are_held_count_when_the_request_is_sound() -> None:
    """What fails on every node counts once, for its first node; else each counts."""
    fleet = OutlierFleet("abc", **ONE)
    for attempt in fleet.balancer.attempts(3):
        with attempt as lease:
            lease.failure("bad request")
    assert len(fleet.out) == 1
    fleet = OutlierFleet("abc", **ONE, max_ejected=1.0)
    failed = set[str]()
    for attempt in fleet.balancer.attempts(3):
        with attempt as lease:
            if attempt.number < 3:
                failed.add(lease.node)
                lease.failure("refused")
    assert set(fleet.out) == failed


def test_hung_requests_count() -> None:
    """A request given up after ``hung_after`` is a failure for this, too."""
    clock, detection = ManualClock(), OutlierDetection(**ONE)
    balancer = Balancer(["a", "b"], outliers=detection, clock=clock, hung_after=2.0)
    lease = balancer.acquire()
    clock.advance(2.0)
    lease.cancel()
    assert set(detection.ejections) == {lease.node}


def test_it_is_told_in_status_explain_and_metrics(caplog: pytest.LogCaptureFixture) -> None:
    """Each says it once, and the log has one line."""
    told: list[tuple[Hashable, Ejection]] = []
    changes: list[tuple[Hashable, str]] = []

    class Told(NoopCollector):
        def on_ejection(self, node_id: Hashable, ejection: Ejection) -> None:
            told.append((node_id, ejection))

        def on_health_change(self, node_id: Hashable, old: HealthStatus, new: HealthStatus) -> None:
            changes.append((node_id, f"{old.name} {new.name}"))

    clock, detection = ManualClock(), OutlierDetection(**RUNS, probe=False)
    metrics = [Told(), NoopCollector(), Told()]
    balancer = Balancer(
        ["a", "b"], health=False, outliers=detection, clock=clock, metrics=metrics, name="api"
    )
    with caplog.at_level(logging.WARNING, logger="loadwise"):
        for lease in [balancer.acquire(exclude={"b"}) for _ in range(7)]:
            lease.failure("status 503")
    ejection = detection.ejections["a"]
    assert ejection == Ejection(
        0.0, 30.0, 1, "ejected: 5 failures in a row", "consecutive_failures"
    )
    assert told == [("a", ejection)] * 2
    assert caplog.messages == ["balancer 'api': node 'a' is ejected: 5 failures in a row, for 30 s"]
    assert balancer.explain().ineligible == {"a": "unhealthy"}
    status = balancer.status()[0]
    assert (status.health, status.health_reason) == (HealthStatus.UNHEALTHY, ejection.reason)
    assert status.next_probe == 30.0
    assert [each.ejected for each in balancer.status()] == [True, False]
    assert balancer.status_dict()["counts"]["UNHEALTHY"] == 1
    clock.advance(30.0)
    assert balancer.explain().ineligible == {}
    assert [each.ejected for each in balancer.status()] == [False, False]
    assert changes == [("a", "HEALTHY UNHEALTHY")] * 2 + [("a", "UNHEALTHY HEALTHY")] * 2


def test_a_refusal_tells_when_the_ejection_is_over() -> None:
    """Who may have no other node is told when to come back, and who waits gets it then."""
    fleet = OutlierFleet("ab", **RUNS)
    fleet.load("a", bad=5)
    fleet.at(12.0)
    with pytest.raises(NoNodeAvailable) as refused:
        fleet.balancer.acquire(exclude={"b"})
    assert refused.value.reason == "unhealthy"
    assert refused.value.retry_after == pytest.approx(18.0)


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("consecutive_failures", {"consecutive_failures": 100}),
        ("success_rate", {"success_rate": SuccessRate()}),
        ("failure_share", {"failure_share": FailureShare(threshold=0.2)}),
    ],
)
def test_an_ejection_names_the_rule(rule: str, options: dict[str, Any]) -> None:
    """By the name of the argument that sets it."""
    fleet = OutlierFleet("abcdef", **{**NONE, **options})
    for node in "abcdef":
        fleet.load(node, good=300, bad=100 * (node == "f"))
    fleet.at(10.0)
    assert [each.rule for each in fleet.detection.ejections.values()] == [rule]


def test_jitter_lengthens_it() -> None:
    """By a random time up to the maximum."""
    ends = set[float]()
    for seed in range(20):
        fleet = OutlierFleet("a", **RUNS, jitter=7.0, rng=random.Random(seed))
        fleet.load("a", bad=5)
        ends.add(fleet.detection.ejections["a"].until)
    assert len(ends) == 20
    assert 30.0 <= min(ends) < 32.0
    assert 35.0 < max(ends) <= 37.0


def test_two_balancers_with_one_tracker() -> None:
    """A node ejected by one is down for both, and is ejected once."""
    clock = ManualClock()
    health = HealthTracker(ConsecutiveFailurePolicy(failure_threshold=100), clock)
    first, second = OutlierDetection(**RUNS, probe=False), OutlierDetection(**RUNS, probe=False)
    one = Balancer(["a", "b"], health=health, outliers=first)
    other = Balancer(["a", "b"], health=health, outliers=second)
    leases = [each.acquire(exclude={"b"}) for _ in range(5) for each in (one, other)]
    for lease in leases:
        lease.failure()
    assert set(first.ejections) == {"a"}
    assert second.ejections == {}
    assert {other.pick() for _ in range(20)} == {"b"}
    clock.advance(30.0)
    assert {one.pick() for _ in range(20)} == {other.pick() for _ in range(20)} == {"a", "b"}
    assert health.status("a") is HealthStatus.HEALTHY


def test_a_node_forgotten_by_the_tracker_is_no_longer_ejected() -> None:
    """Another balancer with the same tracker may have removed it."""
    clock = ManualClock()
    health = HealthTracker(clock=clock)
    detection = OutlierDetection(**RUNS)
    balancer = Balancer(["a", "b"], health=health, outliers=detection)
    for lease in [balancer.acquire(exclude={"b"}) for _ in range(5)]:
        lease.failure()
    assert set(detection.ejections) == {"a"}
    health.remove("a")
    clock.advance(10.0)
    assert detection.ejections == {}


def test_a_clock_that_steps_back_lets_nobody_out_for_longer() -> None:
    """What is left of an ejection is left, and sweeps go on."""
    fleet = OutlierFleet("ab", **RUNS, probe=False)
    fleet.at(1000.0)
    fleet.load("a", bad=5)
    assert fleet.out == "a"
    fleet.at(5.0)
    assert fleet.out == "a"
    fleet.at(34.0)
    assert fleet.out == "a"
    fleet.at(45.0)
    assert fleet.out == fleet.down == ""
    fleet.load("b", bad=5)
    assert fleet.out == "b"


def test_a_clock_that_leaps_ahead() -> None:
    """A sweep that is late by years is one sweep."""
    fleet = OutlierFleet("ab", **RUNS, probe=False)
    fleet.load("a", bad=5)
    fleet.at(1e9)
    assert fleet.out == fleet.down == ""
    fleet.load("a", bad=5)
    assert fleet.detection.ejections["a"].count == 1


def take(fleet: OutlierFleet, node: str, latency: float, number: int) -> None:
    """Have a node answer well, and in its time."""
    for _ in range(number):
        fleet.balancer.report(node, Outcome.SUCCESS, latency=latency)


def test_a_slow_node_is_ejected() -> None:
    """Most of its answers take more than three times the fleet's median, though none fails."""
    fleet = OutlierFleet("abcd", slow_share=SlowShare())
    for sweep in (10.0, 20.0):
        assert fleet.out == ""
        for node in "abcd":
            take(fleet, node, 0.1 if node != "d" else 0.5, 100)
        fleet.at(sweep)
    assert fleet.out == "d"
    assert fleet.detection.ejections["d"].rule == "slow_share"
    assert fleet.reason("d") == (
        "ejected: 100 % of 100 answers took more than 3 times the median, at least 50 %"
    )


def test_a_slow_fleet_is_left_alone() -> None:
    """Where all nodes become slow at once none is an outlier."""
    fleet = OutlierFleet("abcd", slow_share=SlowShare())
    for sweep in (10.0, 20.0, 30.0):
        for node in "abcd":
            take(fleet, node, 0.5 if sweep > 10.0 else 0.1, 100)
        fleet.at(sweep)
        assert fleet.out == ""


def test_streams_count_up_to_their_first_byte() -> None:
    """How long an answer is says nothing of how fast its node is."""
    fleet = OutlierFleet("abc", slow_share=SlowShare(min_requests=20))
    for sweep in range(1, 4):
        for node in "abc":
            for _ in range(20):
                lease = fleet.balancer.acquire(exclude=set("abc") - {node})
                fleet.clock.advance(0.01)
                lease.first_byte()
                fleet.clock.advance(0.1 if node == "c" else 0.0)
                lease.success()
        fleet.at(10.0 * sweep)
        assert fleet.out == ""


def test_success_rate_of_its_own_numbers() -> None:
    """The numbers of a rule are the rule's."""
    fleet = OutlierFleet(
        "abc",
        consecutive_failures=None,
        significance=None,
        success_rate=SuccessRate(stdev_factor=1.0, min_nodes=3, min_requests=10),
    )
    for node in "abc":
        fleet.load(node, good=9, bad=1 if node != "c" else 9)
    fleet.at(10.0)
    assert fleet.out == "c"
