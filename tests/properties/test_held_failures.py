"""Held failures against a reference: section 3 of the design, kept as plainly as possible."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    HealthStatus,
    HealthTracker,
    Outcome,
    SelectionContext,
)
from loadwise.balancer.held_failures import Blame
from loadwise.testing import ManualClock

EMPTY = SelectionContext()
IDS = ("a", "b", "c", "d", "e")
WORDS = ("success", "failure", "unsent", "limited", "cancel", "raise", "mistake")


class InOrder:
    """A strategy that takes the first node there is."""

    def select(self, candidates: Sequence[str], context: SelectionContext = EMPTY) -> int | None:
        """Return the first index, if any."""
        return 0 if len(candidates) else None


class Heard(HealthTracker):
    """A tracker that remembers the failures that were reported, and when they had happened."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(ConsecutiveFailurePolicy(10_000, 2, 10.0), clock=clock)
        self.failures: list[tuple[Hashable, float]] = []

    def report(
        self,
        node_id: Hashable,
        outcome: Outcome,
        reason: str | None = None,
        began: float | None = None,
        *,
        at: float | None = None,
        **more: Any,
    ) -> None:
        """Remember a failure."""
        if outcome is Outcome.FAILURE:
            self.failures.append((node_id, self.clock() if at is None else at))
        super().report(node_id, outcome, reason, began, at=at, **more)


@dataclass
class Reference:
    """What is to be reported of one request."""

    reported: list[tuple[Hashable, float]] = field(default_factory=list)
    held: list[tuple[Hashable, float]] = field(default_factory=list)
    failed: bool = False

    def failure(self, node: Hashable, when: float, *, at_once: bool) -> None:
        """Report the first failure and those that count at once; hold the others."""
        if at_once or not self.failed:
            self.reported.append((node, when))
        else:
            self.held = [each for each in self.held if each[0] != node] + [(node, when)]
        self.failed = True

    def success(self, node: Hashable) -> None:
        """Report what is held of other nodes."""
        self.reported += [each for each in self.held if each[0] != node]
        self.held = []


@given(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=5),
    st.sets(st.sampled_from(IDS), max_size=3),
)
def test_what_a_loop_of_attempts_reports(words: list[str], recovering: set[str]) -> None:
    """Whatever happens to the attempts of a request, its failures are reported by the rule."""
    clock = ManualClock()
    health = Heard(clock)
    balancer = Balancer(IDS, InOrder(), clock=clock, health=health)
    health.policy = ConsecutiveFailurePolicy(1, 2, 0.0)
    for node in recovering:
        health.report(node, Outcome.FAILURE)
        health.report(node, Outcome.SUCCESS)
        assert health.status(node) is HealthStatus.RECOVERING
    # From here on no failure changes who may be chosen, unless the node is on trial.
    health.policy = ConsecutiveFailurePolicy(10_000, 2, 0.0)
    health.failures.clear()
    reference = Reference()
    plan = iter(words)
    with suppress(ConnectionError, ValueError):
        for attempt in balancer.attempts(len(words), retry_on=ConnectionError):
            with attempt as lease:
                clock.advance(1.0)
                word, node, now = next(plan), lease.node, clock()
                on_trial = health.status(node) is not HealthStatus.HEALTHY
                match word:
                    case "success":
                        lease.success()
                        reference.success(node)
                    case "failure":
                        reference.failure(node, now, at_once=on_trial)
                        lease.failure()
                    case "unsent":
                        reference.failure(node, now, at_once=True)
                        lease.refund()
                        raise ConnectionError
                    case "limited":
                        lease.rate_limited()
                    case "cancel":
                        lease.cancel()
                    case "raise":
                        reference.failure(node, now, at_once=on_trial)
                        raise ConnectionError
                    case _:
                        raise ValueError
    assert health.failures == reference.reported


STEPS = st.lists(
    st.tuples(st.sampled_from(["fails", "fails at once", "succeeds"]), st.sampled_from(IDS)),
    max_size=30,
)


@given(STEPS)
def test_what_is_held_of_a_node_that_is_tried_again(steps: list[tuple[str, str]]) -> None:
    """With the same nodes over and over: at most one per node, none older than its success."""
    blame, reference = Blame(), Reference()
    reported: list[tuple[Hashable, float]] = []
    for now, (what, node) in enumerate(steps):
        failure = (node, float(now))
        if what == "succeeds":
            blame.succeeded(node)
            reference.success(node)
            continue
        first = blame.counts_at_once()
        if first or what == "fails at once":
            reported.append(failure)
        else:
            blame.hold(node, lambda failure=failure: reported.append(failure))  # type: ignore[misc]
        reference.failure(*failure, at_once=what == "fails at once")
    assert reported == reference.reported
