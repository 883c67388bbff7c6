"""Checks on demand: what `check_now` asks of a plan, and what it is told."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.health_checks.stage import Stage, failing

from loadwise import (
    ConsecutiveFailurePolicy,
    HealthStatus,
    LoadwiseError,
)
from loadwise.health_checks.plan import Check
from loadwise.health_checks.round import Round
from loadwise.testing import ScriptedRandom


class Call:
    """A round of `CheckPlan.check_now`, and how often it was told to be finished."""

    def __init__(self, stage: Stage) -> None:
        self.finished = 0
        self.members = set(stage.balancer.nodes)
        self.round = Round(self._finish)
        stage.plan.check_now(self.round, stage.clock())

    def _finish(self) -> None:
        self.finished += 1


def test_check_now_asks_everybody_and_the_schedule_goes_on_from_there() -> None:
    """Each node is asked once, at once, and next an interval after that."""
    stage = Stage("abc", interval=5.0)
    stage.play(2.0)
    call = Call(stage)
    assert call.finished == 0
    assert stage.play(0.0, failing("b")) == {node: [2.0] for node in "abc"}
    assert call.finished == 1
    assert call.round.result("x") == {"a": None, "b": "boom", "c": None}
    assert list(call.round.verdicts) == ["a", "b", "c"]
    assert stage.tracker.health("b").consecutive_failures == 1
    assert stage.play(10.0) == {node: [7.0, 12.0] for node in "abc"}


def test_check_now_takes_no_verdict_of_a_probe_that_began_before() -> None:
    """Who is under way is not asked twice at a time, but asked again when it has returned.

    All who call meanwhile share that one.
    """
    stage = Stage("ab", interval=5.0)
    old, other = stage.turn()
    first, second = Call(stage), Call(stage)
    assert stage.turn() == []
    stage.plan.ended(other, None, stage.clock())
    stage.plan.ended(old, None, stage.clock())
    assert (first.finished, second.finished) == (0, 0)
    new = stage.turn()
    assert [check.id for check in new] == ["b", "a"]
    for check in new:
        stage.plan.ended(check, "boom", stage.clock())
    assert (first.finished, second.finished) == (1, 1)
    assert first.round.result("x") == second.round.result("x") == {"a": "boom", "b": "boom"}
    assert stage.turn() == []


def test_check_now_does_not_wait_for_a_probe_that_hangs() -> None:
    """Its timeout is the verdict, and it is one failure; later it is that there is no answer."""
    stage = Stage(interval=5.0, timeout=1.0)
    stage.turn()
    call = Call(stage)
    stage.clock.advance(1.0)
    started, overdue = stage.plan.turn(stage.clock())
    assert (started, [check.id for check in overdue]) == ([], ["a"])
    assert call.round.result("x") == {"a": "no answer within 1 s"}
    assert stage.tracker.health("a").consecutive_failures == 1

    again = Call(stage)
    assert stage.turn() == []
    assert again.round.result("x") == {"a": "still no answer to the check before"}
    assert (call.finished, again.finished) == (1, 1)


def test_check_now_keeps_to_the_concurrency() -> None:
    """Who finds no room is asked when there is some; the rest is not held up by one that hangs."""
    stage = Stage("abcde", concurrency=2, interval=60.0, timeout=1.0, regular=False)
    call = Call(stage)
    asked = []
    for _ in range(5):
        begun = stage.turn()
        assert len(begun) <= 2
        asked += [check.id for check in begun]
        for check in begun:
            if check.id != "a":
                stage.plan.ended(check, None, stage.clock())
    assert asked == list("abcde")
    stage.clock.advance(1.0)
    stage.turn()
    assert call.round.result("x") == dict.fromkeys("abcde") | {"a": "no answer within 1 s"}
    assert call.finished == 1


@pytest.mark.parametrize("moment", ["waits", "under way", "asked again"])
def test_check_now_leaves_out_who_leaves(moment: str) -> None:
    """Nobody waits for the verdict of a node that is a member no more, or of one that joined."""
    stage = Stage("ab")
    begun = stage.turn() if moment == "asked again" else []
    call = Call(stage)
    begun += stage.turn() if moment == "under way" else []
    stage.balancer.remove("a")
    stage.balancer.add("c")
    stage.clock.advance(0.6)
    for check in begun + stage.turn():
        stage.plan.ended(check, None, stage.clock())
    stage.play(0.0)
    assert call.finished == 1
    assert call.round.result("x") == {"b": None}


def test_check_now_of_nobody_is_done_at_once() -> None:
    """An empty balancer has no verdicts to wait for."""
    call = Call(Stage(""))
    assert (call.finished, call.round.result("x")) == (1, {})


def test_check_now_goes_through_the_thresholds() -> None:
    """What is not yet a streak is returned but not reported, whatever asked for the check."""
    stage = Stage(interval=5.0, unhealthy_threshold=2, policy=ConsecutiveFailurePolicy(1, 1))
    stage.play(0.0, failing("a"))
    assert stage.tracker.status("a") is HealthStatus.HEALTHY
    call = Call(stage)
    stage.play(0.0, failing("a"))
    assert call.round.result("x") == {"a": "boom"}
    assert stage.tracker.status("a") is HealthStatus.UNHEALTHY


def test_a_verdict_is_reported_before_check_now_is_finished() -> None:
    """Listeners have heard of it, too."""
    stage = Stage(policy=ConsecutiveFailurePolicy(1, 1))
    order: list[object] = []
    stage.tracker.subscribe(lambda *change: order.append(change[2]))
    stage.plan.check_now(Round(lambda: order.append("finished")), stage.clock())
    stage.play(0.0, failing("a"))
    assert order == [HealthStatus.UNHEALTHY, "finished"]


def test_a_plan_that_is_not_regular_only_checks_on_demand() -> None:
    """It is idle before and after; made regular, each node is due an interval after its check."""
    stage = Stage("ab", interval=5.0, regular=False)
    stage.tracker.report_failure("a")
    assert stage.plan.idle
    assert stage.play(20.0) == {}
    call = Call(stage)
    assert not stage.plan.idle
    assert stage.play(2.0) == {"a": [20.0], "b": [20.0]}
    assert (call.finished, stage.plan.idle) == (1, True)
    stage.balancer.add("c")
    assert stage.play(1.0) == {}
    stage.plan.go_regular(stage.clock())
    assert not stage.plan.idle
    assert stage.play(3.0) == {"c": [23.0], "a": [25.0], "b": [25.0]}


def test_a_plan_that_becomes_regular_finds_who_is_due_for_long() -> None:
    """They are asked at once, spread by the jitter as at the start."""
    stage = Stage("a", interval=5.0, jitter=0.1, rng=ScriptedRandom([0.5] * 9), regular=False)
    Call(stage)
    stage.play(100.0)
    stage.plan.go_regular(stage.clock())
    assert stage.play(1.0) == {"a": [100.25]}


def test_check_now_is_told_that_a_node_could_not_be_asked() -> None:
    """It is no pass, though nothing is reported."""
    stage = Stage(interval=5.0)
    call = Call(stage)
    (check,) = stage.turn()
    stage.plan.put_off(check, stage.clock())
    assert call.round.result("x") == {"a": "it could not be checked"}
    assert stage.tracker.snapshot() == {}
    assert stage.play(5.0)["a"] == [5.0]


@pytest.mark.parametrize("asked", ["before", "since"])
def test_stopping_a_plan_ends_all_rounds_once(asked: str) -> None:
    """Each is told so, though several nodes are open; a probe that returns later is too late."""
    stage = Stage("ab")
    begun = stage.turn() if asked == "before" else []
    calls = [Call(stage), Call(stage)]
    begun += stage.turn()
    stage.plan.stop()
    for check in begun:
        stage.plan.ended(check, None, stage.clock())
    assert [call.finished for call in calls] == [1, 1]
    with pytest.raises(LoadwiseError, match="checker of balancer 'x' was stopped before check_now"):
        calls[0].round.result("x")


class Bustle:
    """A plan to which everything happens in any order."""

    def __init__(self, **options: Any) -> None:
        self.stage = Stage("abc", interval=2.0, timeout=1.0, jitter=0.5, **options)
        self.calls: list[Call] = []
        self.under_way: list[Check[str]] = []
        self._names = (f"n{number}" for number in count())
        self.happens: dict[str, Callable[[], object]] = {
            "turn": self.turn,
            "pass": lambda: self.end(None),
            "fail": lambda: self.end("boom"),
            "time": lambda: self.stage.clock.advance(0.4),
            "call": lambda: self.calls.append(Call(self.stage)),
            "add": lambda: self.stage.balancer.add(next(self._names)),
            "remove": self.remove,
        }

    def turn(self) -> list[Check[str]]:
        """Start what is due; nobody is asked who has not answered."""
        begun = self.stage.turn()
        assert not set(begun) & set(self.under_way)
        self.under_way += begun
        return begun

    def end(self, fault: str | None) -> None:
        """Let the oldest probe return."""
        if self.under_way:
            self.stage.plan.ended(self.under_way.pop(0), fault, self.stage.clock())

    def remove(self) -> None:
        """Take out the oldest member."""
        if self.stage.balancer.nodes:
            self.stage.balancer.remove(self.stage.balancer.nodes[0])


@given(
    events=st.lists(
        st.sampled_from(["turn", "pass", "fail", "time", "call", "add", "remove"]), max_size=60
    ),
    options=st.fixed_dictionaries({"concurrency": st.integers(1, 3), "regular": st.booleans()}),
)
def test_every_call_is_finished_once_with_the_members_verdicts(
    events: list[str], options: dict[str, Any]
) -> None:
    """Whatever happens meanwhile: one probe at a time per node, and no call waits for ever."""
    bustle = Bustle(**options)
    for event in events:
        bustle.happens[event]()
    for _ in range(100):
        # Those under way hang from now on, all others that are asked pass.
        for check in bustle.turn():
            bustle.under_way.remove(check)
            bustle.stage.plan.ended(check, None, bustle.stage.clock())
        bustle.stage.clock.advance(0.25)
    stayed = set(bustle.stage.balancer.nodes)
    for call in bustle.calls:
        assert call.finished == 1
        assert call.members & stayed <= call.round.result("x").keys() <= call.members
    assert options["regular"] or bustle.stage.plan.idle
