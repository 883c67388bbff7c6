"""The health tracker against a reference: the design's table, kept as plainly as possible."""

from __future__ import annotations

import math
from functools import partial
from itertools import product

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from loadwise import ConsecutiveFailurePolicy, HealthStatus, HealthTracker, Outcome
from loadwise.health import Probe
from loadwise.testing import ManualClock

INTERVAL = 10.0
IDS = ("a", "b", "c")


class Reference:
    """One node's state by the table of the design, section 2."""

    def __init__(self, threshold: int, recovery: int) -> None:
        self.threshold = threshold
        self.recovery = recovery
        self.state = "HEALTHY"
        self.failures = 0
        self.successes = 0
        self.last_failure = -math.inf
        self.down_since: float | None = None
        self.holder: object = None
        self.lapses = -math.inf

    def report(self, outcome: Outcome, now: float, began: float | None = None) -> None:
        """Follow the table by one step, unless the request is from before the node was down."""
        if self.holder is not None and self.lapses < math.inf:
            self.holder = None
        if began is None or self.down_since is None or began >= self.down_since:
            self.follow(outcome, now)

    def follow(self, outcome: Outcome, now: float) -> None:
        """Follow the table by one step."""
        before = self.state
        if outcome is Outcome.FAILURE:
            self.failures += 1
            self.successes = 0
            self.last_failure = now
            if self.state in {"UNHEALTHY", "RECOVERING"} or self.failures >= self.threshold:
                self.state = "UNHEALTHY"
            elif self.failures >= self.threshold / 2:
                self.state = "DEGRADED"
        elif outcome is Outcome.SUCCESS:
            self.failures = 0
            if self.state in {"UNHEALTHY", "RECOVERING"}:
                self.successes += 1
                self.state = "RECOVERING" if self.successes < self.recovery else "HEALTHY"
            else:
                self.state = "HEALTHY"
        if self.state == "HEALTHY":
            self.down_since = None
        elif self.state == "UNHEALTHY" != before:
            self.down_since = now

    @property
    def remembered(self) -> bool:
        """Whether there is anything to keep in memory."""
        return self.state != "HEALTHY" or self.failures > 0

    @property
    def due(self) -> float:
        """When a probe may be granted, if nothing more happens; inf for never."""
        if self.state != "UNHEALTHY":
            return math.inf
        due = self.last_failure + INTERVAL
        return due if self.holder is None else max(due, self.lapses)


@pytest.mark.parametrize("recovery", [1, 2, 3])
@pytest.mark.parametrize("threshold", [1, 2, 3, 5])
def test_every_short_story_ends_as_the_table_says(threshold: int, recovery: int) -> None:
    """All 1,024 sequences of 10 successes and failures lead through the table's states."""
    tracker = HealthTracker(ConsecutiveFailurePolicy(threshold, recovery), ManualClock())
    for story in product((Outcome.SUCCESS, Outcome.FAILURE), repeat=10):
        reference = Reference(threshold, recovery)
        for step, outcome in enumerate(story, start=1):
            reference.report(outcome, 0.0)
            tracker.report(story, outcome)
            assert tracker.status(story).name == reference.state, story[:step]


Fingerprint = tuple[tuple[HealthStatus, ...], frozenset[object]]


class TrackerMachine(RuleBasedStateMachine):
    """Reports, probes and time in any order, on a tracker and on its reference."""

    @initialize(threshold=st.sampled_from([1, 2, 3, 5]), recovery=st.sampled_from([1, 2, 3]))
    def begin(self, threshold: int, recovery: int) -> None:
        """Make both."""
        self.clock = ManualClock(1000.0)
        self.leases: list[tuple[str, Probe]] = []
        policy = ConsecutiveFailurePolicy(threshold, recovery, INTERVAL)
        self.tracker = HealthTracker(policy, self.clock)
        self.fresh = partial(Reference, threshold, recovery)
        self.nodes = {identity: self.fresh() for identity in IDS}
        self.told: list[tuple[object, HealthStatus, HealthStatus]] = []
        self.tracker.subscribe(lambda *change: self.told.append(change))
        self.seen = self.observe()

    def observe(self) -> tuple[int, float, Fingerprint]:
        """Return what a cache would keep: version, next change, and who may be chosen."""
        tracker = self.tracker
        return (
            tracker.version,
            tracker.next_change(),
            (tuple(tracker.status(identity) for identity in IDS), frozenset(tracker.down())),
        )

    @rule(seconds=st.sampled_from([0.5, 3.0, 5.0, 9.5, 10.0, 12.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    @rule()
    def wait_for_the_next_change(self) -> None:
        """Let time pass exactly until a probe is due."""
        then = self.tracker.next_change()
        if then < math.inf:
            self.clock.now = then

    @rule(
        identity=st.sampled_from(IDS),
        outcome=st.sampled_from([Outcome.FAILURE, Outcome.FAILURE, *Outcome]),
        took=st.none() | st.sampled_from([0.0, 0.5, 5.0, 12.0]),
    )
    def report(self, identity: str, outcome: Outcome, took: float | None) -> None:
        """A request ends; only what may change eligibility changes the version."""
        node, version = self.nodes[identity], self.tracker.version
        old, held, failures = node.state, node.holder, node.failures
        began = None if took is None or held == "should_probe" else self.clock.now - took
        node.report(outcome, self.clock.now, began)
        self.told.clear()
        self.tracker.report(identity, outcome, began=began)
        changed = node.state != old
        assert [(i, o.name, n.name) for i, o, n in self.told] == [
            (identity, old, node.state) for _ in range(changed)
        ]
        failed_again = node.failures > failures and node.state == "UNHEALTHY"
        may_change = changed or failed_again or held is not node.holder
        assert (self.tracker.version != version) == may_change

    @rule(identity=st.sampled_from(IDS))
    def ask_for_a_probe(self, identity: str) -> None:
        """It is granted when it is due and nobody has it, and only then the version changes."""
        node, version = self.nodes[identity], self.tracker.version
        due = node.due <= self.clock.now
        assert self.tracker.should_probe(identity) is due
        assert (self.tracker.version != version) == due
        if due:
            node.holder, node.lapses = "should_probe", self.clock.now + INTERVAL

    @rule(identity=st.sampled_from(IDS))
    def lease_a_probe(self, identity: str) -> None:
        """A lease's probe is granted by the same rule and does not lapse."""
        node = self.nodes[identity]
        probe = self.tracker.grant_probe(identity)
        assert (probe is not None) == (node.due <= self.clock.now)
        if probe is not None:
            node.holder, node.lapses = probe, math.inf
            self.leases.append((identity, probe))

    @rule(which=st.integers(0, 5))
    def end_a_lease(self, which: int) -> None:
        """A probe ends if its holder still has it; else nothing happens."""
        if not self.leases:
            return
        identity, probe = self.leases[which % len(self.leases)]
        node, version = self.nodes[identity], self.tracker.version
        self.tracker.end_probe(identity, probe)
        assert (self.tracker.version != version) == (node.holder is probe)
        if node.holder is probe:
            node.holder = None

    @rule(identity=st.sampled_from(IDS))
    def remove(self, identity: str) -> None:
        """A node that leaves is forgotten; one of which nothing is known changes nothing."""
        version = self.tracker.version
        self.tracker.remove(identity)
        if not self.nodes[identity].remembered:
            assert self.tracker.version == version
        self.nodes[identity] = self.fresh()

    @invariant()
    def both_agree(self) -> None:
        """States, counts and probes are those of the reference, and no more is remembered."""
        tracker, now = self.tracker, self.clock.now
        snapshot = tracker.snapshot()
        assert set(snapshot) == {i for i, node in self.nodes.items() if node.remembered}
        for identity, node in self.nodes.items():
            assert tracker.status(identity).name == node.state
            assert tracker.health(identity).consecutive_failures == node.failures
            assert tracker.health(identity).down_since == node.down_since
            assert tracker.next_probe(identity) == (None if node.due == math.inf else node.due)
        down = {i: node.due for i, node in self.nodes.items() if node.state == "UNHEALTHY"}
        assert dict(tracker.down()) == {i: due <= now for i, due in down.items()}
        assert tracker.next_change() == min((d for d in down.values() if d > now), default=math.inf)

    @invariant()
    def caches_hold(self) -> None:
        """Who may be chosen stays the same until the version or `next_change` says otherwise."""
        version, next_change, fingerprint = self.seen
        self.seen = self.observe()
        if self.seen[0] == version:
            same = self.clock.now < next_change
            assert (self.seen[2] == fingerprint) == same


def test_any_story_matches_the_reference() -> None:
    """Any mix of reports, probes, removals and time gives the states of the design's table."""
    run_state_machine_as_test(
        TrackerMachine,
        settings=settings(max_examples=150, stateful_step_count=40, deadline=None),
    )
