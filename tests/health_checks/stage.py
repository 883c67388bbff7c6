"""A plan on a stage: a clock that goes when told, and nodes that answer by a script."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterator
from typing import Any

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    HealthStatus,
    HealthTracker,
    NodeHealth,
    Outcome,
)
from loadwise.health_checks.plan import Check, CheckPlan
from loadwise.health_checks.settings import CheckSettings
from loadwise.testing import ManualClock

START = 1000.0
MOST_TURNS = 10_000


class Recording:
    """The default policy, which writes down what it is told."""

    probe_interval = 3600.0

    def __init__(self) -> None:
        self.inner = ConsecutiveFailurePolicy()
        self.told: list[str] = []

    def next_status(self, health: NodeHealth, outcome: Outcome) -> HealthStatus:
        self.told.append(outcome.name[0])
        return self.inner.next_status(health, outcome)


class Stage:
    """A balancer, a plan for its checks, and a clock."""

    def __init__(
        self,
        nodes: str = "a",
        *,
        policy: Any = None,
        tracker: HealthTracker | None = None,
        regular: bool = True,
        **options: Any,
    ) -> None:
        self.clock = ManualClock(START)
        self.tracker = tracker or HealthTracker(policy, clock=self.clock)
        self.balancer = Balancer(list(nodes), health=self.tracker)
        defaults: dict[str, Any] = {"jitter": 0.0, "rng": random.Random(0)}
        settings = CheckSettings(**(defaults | options))
        self.plan = CheckPlan(self.balancer, settings, regular=regular)

    def turn(self) -> list[Check[str]]:
        """The checks to start now."""
        return self.plan.turn(self.clock())[0]

    def play(
        self, seconds: float, verdict: Callable[[Hashable], str | None] = lambda _: None
    ) -> dict[Hashable, list[float]]:
        """Let time pass; every node answers at once. Return when each was asked."""
        asked: dict[Hashable, list[float]] = {}
        end = self.clock() + seconds
        for _ in range(MOST_TURNS):
            for check in self.turn():
                asked.setdefault(check.id, []).append(self.clock() - START)
                self.plan.ended(check, verdict(check.id), self.clock())
            wait = self.plan.wait(self.clock())
            if self.clock() + wait > end:
                self.clock.advance(end - self.clock())
                return asked
            self.clock.advance(wait)
        raise AssertionError("there is always something to do at once")


def failing(*nodes: str) -> Callable[[Hashable], str | None]:
    """The verdicts where these nodes fail and the others pass."""
    return lambda node: "boom" if node in nodes else None


def script(letters: str) -> Callable[[Hashable], str | None]:
    """The verdicts of one node, F for a failure and P for a pass, and passes after that."""
    verdicts: Iterator[str] = iter(letters)
    return lambda _node: "boom" if next(verdicts, "P") == "F" else None
