"""Balancers whose leases are watched, and strategies that measure them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from loadwise import (
    Balancer,
    FallbackChain,
    HealthStatus,
    HealthTracker,
    InFlight,
    LoadMeasure,
    NoopCollector,
    Outcome,
    PeakEwma,
    PowerOfTwoChoices,
    Strategy,
)
from loadwise.testing import ManualClock


class Recorder(NoopCollector):
    """Remembers how requests ended."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[Hashable, Outcome, float]] = []

    def on_outcome(self, node_id: Hashable, outcome: Outcome, latency: float) -> None:
        self.outcomes.append((node_id, outcome, latency))


def in_flight(balancer: Balancer[Any]) -> int:
    """Return the requests in flight on all nodes."""
    return sum(status.in_flight for status in balancer.status())


def down_and_due(clock: ManualClock, health: HealthTracker | None = None) -> Balancer[str]:
    """Return a balancer of one node that is UNHEALTHY and due for its probe."""
    tracker = health or HealthTracker(clock=clock)
    balancer = Balancer(["a"], clock=clock, health=tracker, panic_threshold=None)
    assert balancer.health is not None
    while balancer.health.status("a") is not HealthStatus.UNHEALTHY:
        balancer.health.report_failure("a")
    clock.advance(10.0)
    return balancer


def both_loads() -> tuple[Strategy[str], tuple[LoadMeasure, ...]]:
    """Return a strategy that feeds several measures, and these."""
    measures = (InFlight(), PeakEwma(), PeakEwma(tau=1.0))
    strategies = [PowerOfTwoChoices[str](load=measure) for measure in measures]
    return FallbackChain(strategies), measures


def peak_ewma() -> tuple[Strategy[str], tuple[LoadMeasure, ...]]:
    """Return a strategy that feeds one measure, and that."""
    measure = PeakEwma()
    return PowerOfTwoChoices(load=measure), (measure,)
