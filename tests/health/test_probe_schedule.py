"""When nodes that are down are probed: spread, ever less often, and at once where it helps."""

from __future__ import annotations

import random
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
