"""Who is asked when and what is reported, by moving a clock."""

from __future__ import annotations

import logging
import random
from collections.abc import Hashable
from itertools import pairwise
from typing import Any

import pytest
from tests.health_checks.stage import START, Recording, Stage, failing, script

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    HealthFilter,
    HealthStatus,
    HealthTracker,
    NodeHealth,
    Outcome,
)
from loadwise.health_checks.plan import CheckPlan
from loadwise.health_checks.settings import CheckSettings
from loadwise.testing import ManualClock, ScriptedRandom

UNHEALTHY, HEALTHY = HealthStatus.UNHEALTHY, HealthStatus.HEALTHY


def test_every_node_is_asked_at_once_and_then_at_the_interval() -> None:
    """Without jitter, checks are exactly `interval` seconds apart, from the start on."""
    assert Stage("abc", interval=5.0).play(16.0) == {node: [0.0, 5.0, 10.0, 15.0] for node in "abc"}


def test_jitter_varies_each_interval_by_its_share() -> None:
    """With interval 5 and jitter 0.1 an interval is 5 * (1 + 0.1 * (2u - 1)): 4.5 to 5.5."""
    draws = [0.5, 0.0, 0.75, 0.25, 0.5]
    asked = Stage(interval=5.0, jitter=0.1, rng=ScriptedRandom(draws)).play(19.0)
    assert asked["a"] == pytest.approx([0.25, 4.75, 10.0, 14.75])

    many = Stage("abcdef", interval=5.0, jitter=0.1, rng=random.Random(1)).play(200.0)
    gaps = [later - sooner for times in many.values() for sooner, later in pairwise(times)]
    assert 4.5 <= min(gaps) < 4.6
    assert 5.4 < max(gaps) <= 5.5


def test_a_node_in_trouble_is_asked_at_the_shorter_interval() -> None:
    """It holds from the first failure on, and until the node is HEALTHY again."""
    stage = Stage("ab", interval=5.0, unhealthy_interval=1.0)
    letters = {"a": iter("FFFFPPPP"), "b": iter("PPPPPPPP")}
    asked = stage.play(16.0, lambda node: "boom" if next(letters[str(node)]) == "F" else None)
    assert asked == {
        # four failures, and the pass that leads to RECOVERING; the next leads to HEALTHY
        "a": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 15.0],
        "b": [0.0, 5.0, 10.0, 15.0],
    }


def test_a_node_that_traffic_found_unhealthy_is_asked_sooner() -> None:
    """Its next check is not as far off as it was planned while the node was HEALTHY."""
    stage = Stage("ab", interval=60.0, unhealthy_interval=2.0)
    stage.play(1.0)
    for _ in range(3):
        stage.tracker.report_failure("a", "seen by a request")
    asked = stage.play(100.0)
    soon = asked["a"][0]
    assert 1.0 <= soon <= 1.0 + 0.5 + 2.0
    assert asked == {"a": [soon, soon + 2.0, soon + 62.0], "b": [60.0]}
    assert stage.tracker.status("a") is HEALTHY


@pytest.mark.parametrize(
    ("results", "healthy", "unhealthy", "reported"),
    [
        ("FPFFPP", 1, 1, "FSFFSS"),
        ("FFPFFFF", 1, 3, "SFF"),
        ("PFPPFPPPP", 3, 1, "FFSS"),
        ("FPFPFPFP", 2, 2, ""),
        ("FFPPFFF", 2, 2, "FSFF"),
    ],
)
def test_thresholds_hold_back_what_is_not_yet_a_streak(
    results: str, healthy: int, unhealthy: int, reported: str
) -> None:
    """A result is reported once it is the n-th of its kind in a row, and so is each after it."""
    policy = Recording()
    stage = Stage(
        policy=policy, interval=1.0, healthy_threshold=healthy, unhealthy_threshold=unhealthy
    )
    stage.play(len(results) - 1, script(results))
    assert "".join(policy.told) == reported


@pytest.mark.parametrize("unhealthy", [1, 2, 4])
@pytest.mark.parametrize("healthy", [1, 3])
def test_thresholds_come_before_the_policy_s(healthy: int, unhealthy: int) -> None:
    """It takes unhealthy_threshold + failure_threshold - 1 failures in a row to be UNHEALTHY.

    And healthy_threshold + recovery_successes - 1 passes in a row to be HEALTHY again.
    """
    policy = ConsecutiveFailurePolicy(failure_threshold=3, recovery_successes=2)
    stage = Stage(
        policy=policy, interval=1.0, healthy_threshold=healthy, unhealthy_threshold=unhealthy
    )
    statuses = []
    verdict = script("F" * (unhealthy + 2) + "P" * (healthy + 1))
    for _ in range(unhealthy + 2 + healthy + 1):
        stage.play(0.0, verdict)
        statuses.append(stage.tracker.status("a"))
        stage.clock.advance(1.0)
    assert statuses.index(UNHEALTHY) == unhealthy + 1
    assert statuses.index(HEALTHY, unhealthy + 1) == len(statuses) - 1


@pytest.mark.parametrize("fault", [None, "boom"])
def test_a_check_that_began_before_the_node_went_down_is_old_news(fault: str | None) -> None:
    """Neither does its pass let the node back, nor does its failure count again."""
    stage = Stage()
    (check,) = stage.turn()
    stage.clock.advance(0.5)
    for _ in range(3):
        stage.tracker.report_failure("a", "seen by a request")
    down = stage.tracker.health("a")
    stage.plan.ended(check, fault, stage.clock())
    assert stage.tracker.health("a") == down
    assert down.status is UNHEALTHY


def test_failing_checks_put_off_the_probe_with_live_traffic() -> None:
    """A failed check of a node that is down is a failed probe, and begins its next interval.

    So no request is spent on a node that does not pass its checks: none in a minute here, where
    without the checks it would be one every 10 seconds.
    """
    stage = Stage("ab", interval=5.0)
    picked = set()
    for _ in range(120):
        stage.play(0.5, failing("a"))
        if stage.tracker.status("a") is UNHEALTHY:
            picked |= {stage.balancer.pick() for _ in range(3)}
    assert stage.tracker.next_probe("a") == START + 60.0 + 10.0
    assert picked == {"b"}


def test_failing_checks_count_for_the_backoff_of_probes() -> None:
    """Each doubles the interval, as a failed request would: 10 s, 20, 40, 80, and a pass resets it.

    The node goes down at the third failure, so the first failed probe is the fourth.
    """
    policy = ConsecutiveFailurePolicy(probe_interval=10.0, probe_backoff=2.0)
    stage = Stage(policy=policy, interval=5.0)
    verdict = script("FFFFFFPF")
    dues = []
    for _ in range(8):
        stage.play(0.0, verdict)
        dues.append(stage.tracker.next_probe("a"))
        stage.play(4.5)
        stage.clock.advance(0.5)
    assert dues == [
        None,
        None,
        START + 10.0 + 10.0,
        START + 15.0 + 20.0,
        START + 20.0 + 40.0,
        START + 25.0 + 80.0,
        None,
        START + 35.0 + 10.0,
    ]


def test_a_check_under_way_when_the_node_went_down_is_no_probe() -> None:
    """It puts off nothing, for it says nothing of the node since; the next one does."""
    stage = Stage(interval=5.0)
    (check,) = stage.turn()
    stage.clock.advance(0.5)
    for _ in range(3):
        stage.tracker.report_failure("a", "seen by a request")
    stage.clock.advance(0.25)
    stage.plan.ended(check, "boom", stage.clock())
    assert stage.tracker.next_probe("a") == START + 0.5 + 10.0
    stage.play(5.0, failing("a"))
    assert stage.tracker.next_probe("a") == START + 5.75 + 10.0


def test_a_check_that_hangs_is_a_failed_probe_each_time_the_node_is_due() -> None:
    """No request is sent to a node that has not even answered its last check."""
    stage = Stage("ab", interval=5.0, timeout=1.0)
    hanging, quick = stage.turn()
    stage.plan.ended(quick, None, stage.clock())
    stage.play(31.0)
    assert hanging.id == "a"
    assert stage.tracker.next_probe("a") == START + 31.0 + 10.0


def test_failures_that_thresholds_hold_back_put_off_nothing() -> None:
    """They are not reported; the first that is reported begins the next interval."""
    stage = Stage(interval=5.0, unhealthy_threshold=3)
    for _ in range(3):
        stage.tracker.report_failure("a", "seen by a request")
    stage.clock.advance(1.0)
    stage.play(5.0, failing("a"))
    assert stage.tracker.next_probe("a") == START + 10.0
    stage.play(5.0, failing("a"))
    assert stage.tracker.next_probe("a") == START + 11.0 + 10.0


def test_a_probe_that_does_not_return_fails_at_the_timeout_and_is_not_repeated() -> None:
    """It is overdue at the timeout, a failure again each time the node is due, and blocks nobody.

    What it returns in the end does not count, and then the node is asked again.
    """
    stage = Stage("ab", interval=5.0, timeout=1.0)
    (hanging, quick) = stage.turn()
    stage.plan.ended(quick, None, stage.clock())
    assert stage.plan.wait(stage.clock()) <= 1.0
    stage.clock.advance(1.0)
    assert stage.plan.turn(stage.clock()) == ([], [hanging])
    reason = "1 failure, the last: active check: no answer within 1 s"
    assert stage.tracker.health("a").reason == reason

    assert stage.play(10.5).keys() == {"b"}  # a is due at 6 and 11
    again = "3 failures in a row, the last: active check: still no answer to the check before"
    assert stage.tracker.health("a").reason == again
    assert stage.tracker.status("a") is UNHEALTHY

    stage.plan.ended(hanging, None, stage.clock())
    assert stage.tracker.status("a") is UNHEALTHY
    assert stage.play(5.0)["a"] == [16.0]
    assert stage.tracker.status("a") is HealthStatus.RECOVERING


def test_no_more_checks_at_a_time_than_allowed() -> None:
    """The others wait their turn, in order; one that is overdue gives its place back."""
    stage = Stage("abcdef", concurrency=2, interval=5.0, timeout=1.0)
    first = stage.turn()
    assert [check.id for check in first] == ["a", "b"]
    assert stage.turn() == []
    assert stage.plan.wait(stage.clock()) > 0
    stage.plan.ended(first[0], None, stage.clock())
    assert [check.id for check in stage.turn()] == ["c"]
    stage.clock.advance(1.0)
    started, overdue = stage.plan.turn(stage.clock())
    assert [check.id for check in overdue] == ["b", "c"]
    assert [check.id for check in started] == ["d", "e"]


def test_checks_follow_membership() -> None:
    """A node that was added is asked within half a second, one that was removed no more."""
    stage = Stage("ab", interval=60.0)
    stage.play(1.1)
    stage.balancer.remove("a")
    stage.balancer.add("c")
    asked = stage.play(120.0)
    assert asked["b"] == [60.0, 120.0]
    assert 1.1 <= asked["c"][0] <= 1.6
    assert "a" not in asked


class LeavesBefore(HealthTracker):
    """A tracker with a node that leaves the balancer at the worst moment."""

    balancer: Balancer[str]

    def report(self, node_id: Hashable, *what: Any, **when: Any) -> None:
        self.balancer.remove("a")
        super().report(node_id, *what, **when)


@pytest.mark.parametrize("moment", ["under way", "overdue", "as it is reported"])
def test_a_late_result_of_a_removed_node_leaves_no_record(moment: str) -> None:
    """The tracker remembers nothing of it, whenever it left, and nobody hears of it any more."""
    tracker = LeavesBefore(clock=ManualClock(START)) if moment == "as it is reported" else None
    stage = Stage("ab", policy=ConsecutiveFailurePolicy(1, 1), tracker=tracker, interval=5.0)
    heard: list[object] = []
    stage.tracker.subscribe(lambda *change: heard.append(change))
    if isinstance(tracker, LeavesBefore):
        tracker.balancer = stage.balancer
    check = stage.turn()[0]
    if moment == "under way":
        stage.balancer.remove("a")
    elif moment == "overdue":
        stage.clock.advance(1.0)
        stage.balancer.remove("a")
        stage.turn()
    before = len(heard)
    stage.plan.ended(check, "boom", stage.clock())
    assert len(heard) == before
    assert "a" not in stage.tracker.snapshot()
    assert "a" not in stage.play(20.0)


def test_a_node_that_is_back_before_it_answered_is_not_asked_twice() -> None:
    """Removal and return under the same id keep to one probe at a time."""
    stage = Stage("ab", interval=5.0, timeout=60.0)
    (check, _) = stage.turn()
    stage.balancer.remove("a")
    stage.play(1.0)
    stage.balancer.add("a")
    assert "a" not in stage.play(10.0)
    stage.plan.ended(check, "boom", stage.clock())
    assert "active check: boom" in str(stage.tracker.health("a").reason)
    assert stage.play(5.0)["a"] == [16.0]


def test_a_tracker_of_its_own_makes_checks_decide_alone() -> None:
    """Then successes of live traffic do not outvote failing checks, and who leaves is forgotten."""
    checks = HealthTracker(ConsecutiveFailurePolicy(1, 1))
    balancer = Balancer(["a", "b"], where=HealthFilter.available(checks))
    clock = ManualClock(START)
    plan = CheckPlan(balancer, CheckSettings(health=checks, jitter=0.0))
    for check in plan.turn(clock())[0]:
        plan.ended(check, "draining" if check.id == "a" else None, clock())
    for _ in range(20):
        with balancer.acquire() as lease:
            assert lease.node == "b"
    assert balancer.status()[0].health is HEALTHY
    assert checks.status("a") is UNHEALTHY
    balancer.remove("a")
    clock.advance(1.0)
    plan.turn(clock())
    assert checks.snapshot() == {}


def test_a_check_that_could_not_be_made_says_nothing() -> None:
    """It is tried again an interval later."""
    stage = Stage(interval=5.0)
    (check,) = stage.turn()
    stage.plan.put_off(check, stage.clock())
    assert stage.tracker.snapshot() == {}
    assert stage.play(5.0)["a"] == [5.0]


def test_a_turn_ends_however_short_the_interval() -> None:
    """Even an interval too short to move the clock does not make a turn endless."""
    stage = Stage(interval=1e-15, timeout=1e-15)
    stage.turn()
    for _ in range(3):
        stage.clock.advance(1e-9)
        stage.turn()
    assert stage.tracker.health("a").consecutive_failures >= 1


def test_a_policy_that_raises_does_not_end_the_checks(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and all nodes are asked again."""

    class Broken:
        probe_interval = 1.0

        def next_status(self, health: NodeHealth, outcome: Outcome) -> HealthStatus:
            raise ZeroDivisionError

    stage = Stage("ab", policy=Broken(), interval=5.0)
    with caplog.at_level(logging.ERROR, "loadwise"):
        assert stage.play(6.0) == {"a": [0.0, 5.0], "b": [0.0, 5.0]}
    assert "of node 'a' could not be reported" in caplog.text
