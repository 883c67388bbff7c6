"""What users of `Balancer.pick` say of their requests."""

from __future__ import annotations

import math
from typing import Any

import pytest

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    Endpoint,
    HealthStatus,
    HealthTracker,
    LeastLoad,
    NoNodeAvailable,
    NoopCollector,
    Outcome,
    PeakEwma,
    RoundRobin,
    UnknownNode,
)
from loadwise.testing import ManualClock


class Diary(NoopCollector):
    """Writes down outcomes."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[object, Outcome, float]] = []

    def on_outcome(self, node_id: object, outcome: Outcome, latency: float) -> None:
        self.outcomes.append((node_id, outcome, latency))


def test_a_failure_counts_for_health() -> None:
    """Failures that are reported make a node unhealthy, and a success a recovering one."""
    balancer = Balancer([Endpoint("a"), Endpoint("b")], RoundRobin())
    for _ in range(3):
        balancer.report("a", Outcome.FAILURE, reason="refused")
    status = balancer.status()[0]
    assert status.health is HealthStatus.UNHEALTHY
    assert status.health_reason == "3 failures in a row, the last: refused"
    assert {balancer.pick().id for _ in range(4)} == {"b"}
    balancer.report(balancer.nodes[0], Outcome.SUCCESS)
    assert balancer.status()[0].health is HealthStatus.RECOVERING


@pytest.mark.parametrize("identity", ["node-2", Endpoint("node-2")])
def test_an_id_that_is_no_members_is_refused(identity: Any) -> None:
    """It would be remembered for ever, and heeded by nobody."""
    balancer = Balancer(["node-1", "other"], name="search")
    with pytest.raises(UnknownNode, match=r"'search' has no .* 'node-2'; did you mean 'node-1'"):
        balancer.report(identity, Outcome.FAILURE)
    assert balancer.health is not None
    assert balancer.health.snapshot() == {}


@pytest.mark.parametrize("latency", [-1, math.nan, math.inf])
def test_a_latency_out_of_range(latency: float) -> None:
    """It must be a time, and nothing is recorded if it is none."""
    diary = Diary()
    balancer = Balancer(["a"], metrics=diary)
    with pytest.raises(ValueError, match=r"latency is .*; it must be finite and at least 0"):
        balancer.report("a", Outcome.FAILURE, latency=latency)
    assert (balancer.status()[0].health_reason, diary.outcomes) == (None, [])


def test_an_outcome_by_its_value_is_none() -> None:
    """The value of an outcome is not the outcome."""
    wrong: Any = "failure"
    with pytest.raises(TypeError, match=r"outcome is 'failure'; it must be one of Outcome\."):
        Balancer(["a"]).report("a", wrong)


def test_a_latency_reaches_load_measures_and_metrics() -> None:
    """With it, all are told that a lease tells; without it, health alone."""
    clock, diary = ManualClock(100.0), Diary()
    strategy: LeastLoad[str] = LeastLoad(PeakEwma())
    balancer = Balancer(["a", "b"], strategy, clock=clock, metrics=diary)
    balancer.report("a", Outcome.SUCCESS)
    assert diary.outcomes == []
    balancer.report("a", Outcome.SUCCESS, latency=2.0)
    balancer.report("b", Outcome.FAILURE, latency=3.0, reason="502")
    assert diary.outcomes == [("a", Outcome.SUCCESS, 2.0), ("b", Outcome.FAILURE, 3.0)]
    assert balancer.explain().seen == {"a": {"load": 2.0}, "b": {"load": 3.0}}
    a, b = balancer.status()
    assert (a.latency, b.latency, b.health_reason) == (2.0, None, "1 failure, the last: 502")
    assert (a.in_flight, b.in_flight) == (0, 0)


def test_a_rate_limit_has_the_node_sit_out() -> None:
    """A second, as a lease that is not told how long; and it says nothing of health."""
    clock = ManualClock()
    balancer = Balancer(["a"], clock=clock)
    balancer.report("a", Outcome.RATE_LIMITED)
    with pytest.raises(NoNodeAvailable, match="1 rate limited; retry after 1 s"):
        balancer.pick()
    clock.advance(1.0)
    assert balancer.pick() == "a"
    assert balancer.status()[0].health is HealthStatus.HEALTHY


@pytest.mark.parametrize("latency", [None, 0.5])
@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_report_ends_a_probe(outcome: Outcome, latency: float | None) -> None:
    """The probe that a pick was granted is over with any word on it."""
    clock = ManualClock()
    health = HealthTracker(ConsecutiveFailurePolicy(1, 1), clock)
    balancer = Balancer(["a"], health=health, panic_threshold=None)
    balancer.report("a", Outcome.FAILURE)
    clock.advance(10.0)
    assert balancer.pick() == "a"
    with pytest.raises(NoNodeAvailable):
        balancer.pick()
    clock.advance(1.0)
    balancer.report("a", outcome, latency=latency)
    clock.advance(10.0 if outcome is Outcome.FAILURE else 1.0)
    assert balancer.pick() == "a", "ten seconds after the pick, the probe would only have lapsed"


def test_without_health_there_is_nothing_to_tell() -> None:
    """A balancer without health takes the report all the same."""
    balancer = Balancer(["a"], health=False)
    balancer.report("a", Outcome.FAILURE)
    balancer.report("a", Outcome.SUCCESS, latency=1.0)
    assert balancer.status()[0].latency == pytest.approx(1.0)
