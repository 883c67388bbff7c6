"""When nodes that are down are probed: spread, ever less often, and at once where it helps."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any

import pytest

from loadwise import ConsecutiveFailurePolicy, HealthStatus, HealthTracker, NodeHealth, Outcome
from loadwise.testing import ManualClock

UNHEALTHY = HealthStatus.UNHEALTHY


def fail_a_probe(tracker: HealthTracker, clock: ManualClock, node: str) -> float:
    """Wait for a node's next probe, let it fail, and return how long that took."""
    due = tracker.next_probe(node)
    assert due is not None
    waited = due - clock.now
    clock.now = due
    probe = tracker.grant_probe(node)
    assert probe is not None
    tracker.report(node, Outcome.FAILURE, probe=probe)
    tracker.end_probe(node, probe)
    return waited


def test_a_dead_node_is_asked_ever_less_often() -> None:
    """Each failed probe doubles the wait, up to the maximum; a success begins again."""
    clock = ManualClock()
    policy = ConsecutiveFailurePolicy(1, 2, 10.0, probe_backoff=2.0, max_probe_interval=60.0)
    tracker = HealthTracker(policy, clock)
    for _ in range(2):
        tracker.report_failure("a")
        assert [fail_a_probe(tracker, clock, "a") for _ in range(5)] == [10, 20, 40, 60, 60]
        tracker.report_success("a")
        assert tracker.status("a") is HealthStatus.RECOVERING


def test_fifty_nodes_that_failed_together_are_not_probed_together() -> None:
    """With a jitter of a half their probes are due between 10 and 15 seconds later, spread."""
    clock = ManualClock()
    policy = ConsecutiveFailurePolicy(1, jitter=0.5)
    tracker = HealthTracker(policy, clock, random.Random(7))
    for number in range(50):
        tracker.report_failure(number)
    dues = [tracker.next_probe(number) for number in range(50)]
    waits = sorted(due for due in dues if due is not None)
    assert len(set(waits)) == 50
    assert 10.0 <= waits[0] < 10.5
    assert 14.5 < waits[-1] <= 15.0
    assert sum(wait < 12.5 for wait in waits) in range(10, 41)


def test_the_jitter_is_drawn_once() -> None:
    """Who asks again when the probe is due is told the same; a seed tells it in advance."""
    policy = ConsecutiveFailurePolicy(1, jitter=1.0)
    told = []
    for _ in range(2):
        tracker = HealthTracker(policy, ManualClock(), random.Random(3))
        tracker.report_failure("a")
        told += [tracker.next_probe("a") for _ in range(3)]
    assert len(set(told)) == 1


def test_a_policy_without_a_delay_of_its_own_has_its_interval() -> None:
    """A policy needs no more than a ``probe_interval``."""

    class Strict:
        probe_interval = 4.0

        def next_status(self, health: NodeHealth, outcome: Outcome) -> HealthStatus:
            return UNHEALTHY if outcome is Outcome.FAILURE else HealthStatus.HEALTHY

    clock = ManualClock()
    tracker = HealthTracker(Strict(), clock)
    tracker.report_failure("a")
    assert [fail_a_probe(tracker, clock, "a") for _ in range(3)] == [4.0, 4.0, 4.0]


class Custom:
    """A policy whose waits are whatever it is given."""

    probe_interval = 4.0

    def __init__(self, answer: Callable[[], object]) -> None:
        self._answer = answer

    def next_status(self, health: NodeHealth, outcome: Outcome) -> HealthStatus:
        return UNHEALTHY if outcome is Outcome.FAILURE else HealthStatus.HEALTHY

    def probe_delay(self, failed: int, draw: Callable[[], float]) -> Any:
        return self._answer()


@pytest.mark.parametrize("seconds", [Decimal(3), Fraction(3), 3])
def test_a_wait_of_any_kind_of_number_adds_up_with_times(seconds: object) -> None:
    """A float and a Decimal do not."""
    clock = ManualClock(0.5)
    tracker = HealthTracker(Custom(lambda: seconds), clock)
    tracker.report_failure("a")
    assert [fail_a_probe(tracker, clock, "a") for _ in range(3)] == [3.0, 3.0, 3.0]


def _in_turn(answers: Iterator[Callable[[], object]]) -> object:
    return next(answers)()


async def later() -> float:
    """Return a wait that nobody can wait for."""
    return 1.0


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (later, r"Custom\.probe_delay returned <coroutine .*, which is to be awaited"),
        (lambda: None, r"what Custom\.probe_delay returned is None; it must be a number"),
        (lambda: math.nan, r"Custom\.probe_delay returned nan; it must return seconds"),
    ],
)
def test_a_wait_that_is_none_is_refused_and_changes_nothing(
    answer: Callable[[], object], message: str
) -> None:
    """Else the node would be down for some and up for others."""
    answers: list[Callable[[], object]] = [answer, lambda: 1.0, answer]
    clock = ManualClock()
    tracker = HealthTracker(Custom(partial(_in_turn, iter(answers))), clock)
    with pytest.raises((TypeError, ValueError), match=message):
        tracker.report_failure("a")
    assert tracker.status("a") is HealthStatus.HEALTHY
    assert tracker.down() == []
    tracker.report_failure("a")
    before = tracker.health("a")
    clock.advance(1.0)
    assert tracker.should_probe("a")
    with pytest.raises((TypeError, ValueError), match=message):
        tracker.report_failure("a")
    assert tracker.health("a") == before


def test_refuses_a_policy_whose_optional_members_are_of_the_wrong_kind() -> None:
    """They are asked for in the middle of picks and reports."""
    policy: Any = Custom(lambda: 1.0)
    policy.probe_delay = later
    with pytest.raises(TypeError, match="whose probe_delay is to be awaited"):
        HealthTracker(policy)
    policy.probe_delay = 5
    with pytest.raises(TypeError, match=r"probe_delay of .* is no function"):
        HealthTracker(policy)
    for wrong in (None, Decimal(2), "2"):
        policy = Custom(lambda: 1.0)
        policy.recovery_successes = wrong
        with pytest.raises(TypeError, match=r"recovery_successes is .*; it must be an int"):
            HealthTracker(policy)


def test_probes_can_be_hastened() -> None:
    """A probe is due at once of those that are down, unless theirs is under way."""
    clock = ManualClock()
    tracker = HealthTracker(ConsecutiveFailurePolicy(1, 2, 10.0), clock)
    for node in ("a", "b", "c"):
        tracker.report_failure(node)
    clock.advance(10.0)
    assert tracker.grant_probe("c") is not None
    for node in ("a", "b"):
        fail_a_probe(tracker, clock, node)
    tracker.report_success("b")
    version = tracker.version
    tracker.hasten_probes(["a", "b", "c", "nobody"])
    assert tracker.version != version
    assert dict(tracker.down()) == {"a": True, "c": False}
    assert tracker.next_probe("b") is None
    version = tracker.version
    tracker.hasten_probes(["nobody"])
    assert tracker.version == version


@pytest.mark.parametrize("rng", [random, 5, random.Random])
def test_refuses_what_is_no_random_source(rng: Any) -> None:
    """The module and the class are no generator."""
    with pytest.raises(TypeError, match=r"rng is .*; it must be a random\.Random"):
        HealthTracker(rng=rng)
