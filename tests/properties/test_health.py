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
from loadwise.health import KNOWN_DOWN, Probe
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
        self.down_since: float | None = None
        self.probe_from = -math.inf
        self.holder: object = None
        self.lapses = -math.inf
        self.share = 1.0
        self.last_success: float | None = None

    def report(
        self, outcome: Outcome, now: float, began: float | None = None, *, probe: bool = False
    ) -> None:
        """Follow the table by one step, unless the request is from before the node was down."""
        old_news = self.down_since is not None and began is not None and began <= self.down_since
        if old_news and not probe:
            return
        if self.holder is not None and self.lapses < math.inf:
            self.holder, probe = None, True
        self.follow(outcome, now, probe=probe)

    def follow(self, outcome: Outcome, now: float, *, probe: bool) -> None:
        """Follow the table by one step."""
        before = self.state
        if outcome is Outcome.FAILURE:
            self.failures += 1
            self.successes = 0
            if probe and before == "UNHEALTHY":
                self.probe_from = now
            if self.state in {"UNHEALTHY", "RECOVERING"} or self.failures >= self.threshold:
                self.state = "UNHEALTHY"
            elif self.failures >= self.threshold / 2:
                self.state = "DEGRADED"
        elif outcome is Outcome.SUCCESS:
            self.settle(now)
            self.failures = 0
            if self.state in {"UNHEALTHY", "RECOVERING"}:
                self.successes += 1
                self.state = "RECOVERING" if self.successes < self.recovery else "HEALTHY"
            else:
                self.state = "HEALTHY"
        if self.state == "HEALTHY":
            self.down_since = None
        elif self.state == "UNHEALTHY" != before:
            self.down_since = self.probe_from = now
        if not self.remembered and not self.standing:
            self.share, self.last_success = 1.0, None

    def settle(self, now: float) -> None:
        """Work a run of failures and the success that ends it into the share of good answers."""
        if self.remembered or self.standing:
            self.share *= 0.95**self.failures
            self.share += 0.05 * (1.0 - self.share)
            self.last_success = now

    @property
    def remembered(self) -> bool:
        """Whether there is anything to keep in memory."""
        return self.state != "HEALTHY" or self.failures > 0

    @property
    def standing(self) -> bool:
        """Whether its share of failures is too high to be taken for none."""
        return 1.0 - self.share > 0.01

    @property
    def explained(self) -> bool:
        """Whether its present run of failures is one that it would produce by itself."""
        return max(1.0 - self.share, 0.01) ** self.failures >= 0.001

    def ailing(self, now: float, window: float) -> bool | None:
        """Whether it is down but not dead; ``None`` where a lapse may be put off, by a tenth."""
        if self.state != "UNHEALTHY" or not self.explained or self.last_success is None:
            return False
        age = now - self.last_success
        return True if age < window else False if age >= window * 1.1 else None

    @property
    def due(self) -> float:
        """When a probe may be granted, if nothing more happens; inf for never."""
        if self.state != "UNHEALTHY":
            return math.inf
        due = self.probe_from + INTERVAL
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
        probe=st.sampled_from([None, None, Probe(), KNOWN_DOWN]),
    )
    def report(
        self, identity: str, outcome: Outcome, took: float | None, probe: Probe | None
    ) -> None:
        """A request ends; only what may change who may be chosen changes the version."""
        node, version = self.nodes[identity], self.tracker.version
        old, held, explained = node.state, node.holder, node.explained
        due_from = node.probe_from
        began = None if took is None else self.clock.now - took
        if probe is KNOWN_DOWN:
            began = None  # never old news, and yet no probe
        node.report(outcome, self.clock.now, began, probe=probe not in (None, KNOWN_DOWN))
        self.told.clear()
        self.tracker.report(identity, outcome, began=began, probe=probe)
        changed = node.state != old
        assert [(i, o.name, n.name) for i, o, n in self.told] == [
            (identity, old, node.state) for _ in range(changed)
        ]
        if changed or held is not node.holder or node.probe_from != due_from:
            assert self.tracker.version != version
        elif node.state != "UNHEALTHY" or node.explained == explained:
            probed = outcome is Outcome.FAILURE and probe not in (None, KNOWN_DOWN)
            assert self.tracker.version == version or (node.state == "UNHEALTHY" and probed)

    @rule(identity=st.sampled_from(IDS), failures=st.integers(0, 3), times=st.integers(1, 40))
    def live_on(self, identity: str, failures: int, times: int) -> None:
        """A node answers for a while, now and then badly: its share of good answers settles."""
        for _ in range(times):
            self.report(identity, Outcome.SUCCESS, None, None)
            for _ in range(failures):
                self.report(identity, Outcome.FAILURE, None, None)

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
        for window in (1.0, INTERVAL):
            ailing = tracker.ailing(window)
            for identity, node in self.nodes.items():
                expected = node.ailing(now, window)
                assert expected is None or (identity in ailing) is expected
                assert tracker.is_ailing(identity, window) is (identity in ailing)
                assert ailing.get(identity, math.inf) > now
        for identity, node in self.nodes.items():
            assert tracker.good_share(identity) == pytest.approx(node.share)
            needed = tracker.successes_needed(identity)
            assert (needed is None) == (node.state != "RECOVERING")
            assert needed is None or needed == node.recovery - node.successes
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
