"""The tracker around the policy: memory, probes, listeners, threads and forks.

The states themselves and `version` are compared with a reference in tests/properties.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Thread
from typing import Any, TypeVar

import pytest

from loadwise import (
    ConsecutiveFailurePolicy,
    Endpoint,
    HealthStatus,
    HealthTracker,
    LoadwiseError,
    NodeHealth,
    Outcome,
)
from loadwise.health import KNOWN_DOWN
from loadwise.testing import ManualClock

HEALTHY, DEGRADED = HealthStatus.HEALTHY, HealthStatus.DEGRADED
UNHEALTHY, RECOVERING = HealthStatus.UNHEALTHY, HealthStatus.RECOVERING
THREADS = 8
TIMEOUT = 30.0

T = TypeVar("T")


@pytest.fixture
def clock() -> ManualClock:
    """A clock at 100 seconds."""
    return ManualClock(100.0)


@pytest.fixture
def fragile(clock: ManualClock) -> HealthTracker:
    """A tracker for which one failure is enough, and one success mends it."""
    return HealthTracker(ConsecutiveFailurePolicy(1, 1, 10.0), clock)


def entries(tracker: HealthTracker) -> int:
    """How many entries all containers of a tracker and its probes hold together."""
    parts = [*vars(tracker).values(), *vars(tracker._probes).values()]
    return sum(len(part) for part in parts if isinstance(part, dict | list | set))


def together(work: Callable[[], T]) -> list[T]:
    """Return what ``work`` returns in each of 8 threads that start together and switch often."""
    barrier = Barrier(THREADS)

    def start(_: int) -> T:
        barrier.wait(TIMEOUT)
        return work()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(start, range(THREADS)))
    finally:
        sys.setswitchinterval(interval)


def test_unknown_ids_are_healthy_and_take_no_memory(fragile: HealthTracker) -> None:
    """Asking about an id, and all outcomes but a failure, leave nothing behind."""
    before = fragile.version
    for number in range(10_000):
        assert fragile.status(number) is HEALTHY
        assert fragile.health(number) == NodeHealth(number)
        assert not fragile.should_probe(number)
        for outcome in (Outcome.SUCCESS, Outcome.RATE_LIMITED, Outcome.CANCELLED):
            fragile.report(number, outcome)
        fragile.remove(number)
    assert entries(fragile) == 0
    assert fragile.version == before


def test_nodes_that_come_and_go_leave_nothing_behind(
    fragile: HealthTracker, clock: ManualClock
) -> None:
    """A node that recovers or is removed is forgotten whole, whatever state it was in.

    After the 32nd success in a row its share of failures is below 1 %, and need not be kept.
    """
    for number in range(2_000):
        fragile.report_failure(number, "timeout")
        if number % 2:
            clock.advance(10.0)
            assert fragile.should_probe(number)
        if number % 3:
            fragile.remove(number)
        else:
            for _ in range(33):
                fragile.report_success(number)
    assert fragile.snapshot() == {}
    assert entries(fragile) == 0


@pytest.mark.parametrize("outcome", [Outcome.RATE_LIMITED, Outcome.CANCELLED])
def test_a_pause_or_a_hang_up_says_nothing_about_health(outcome: Outcome) -> None:
    """RATE_LIMITED and CANCELLED change no count and no state, and do not break a row."""
    tracker = HealthTracker(ConsecutiveFailurePolicy(3, 3))
    for step in (*[Outcome.FAILURE] * 3, Outcome.SUCCESS, Outcome.SUCCESS, Outcome.SUCCESS):
        tracker.report("a", step)
        before, version = tracker.health("a"), tracker.version
        tracker.report("a", outcome, "not the node's fault")
        assert tracker.health("a") == before
        assert tracker.version == version
    assert tracker.status("a") is HEALTHY


def test_health_says_why() -> None:
    """The counts, the time of the last failure and the reason given are kept."""
    clock = ManualClock(5.0)
    tracker = HealthTracker(clock=clock)
    tracker.report_failure("a")
    assert tracker.health("a") == NodeHealth("a", HEALTHY, 1, 0, 5.0, reason="1 failure")
    clock.advance(1.0)
    tracker.report_failure("a", "connection refused")
    reason = "2 failures in a row, the last: connection refused"
    assert tracker.health("a") == NodeHealth("a", DEGRADED, 2, 0, 6.0, reason=reason)
    clock.advance(1.0)
    tracker.report_failure("a")
    assert tracker.health("a") == NodeHealth(
        "a", UNHEALTHY, 3, 0, 7.0, down_since=7.0, reason="3 failures in a row"
    )


def test_snapshot_is_a_copy(fragile: HealthTracker) -> None:
    """A snapshot holds the nodes with something to remember, and changing it changes nothing."""
    fragile.report_failure("a")
    fragile.report_success("b")
    snapshot = fragile.snapshot()
    assert list(snapshot) == ["a"]
    snapshot.clear()
    assert fragile.status("a") is UNHEALTHY
    fragile.report_success("a")
    fragile.report_failure("c")
    assert list(fragile.snapshot()) == ["c"]


def test_only_a_failed_probe_begins_the_next_wait(
    fragile: HealthTracker, clock: ManualClock
) -> None:
    """Failures of requests that were under way, or sent in panic, do not put the probe off."""
    fragile.report_failure("a")
    clock.advance(9.0)
    fragile.report_failure("a")
    fragile.report("a", Outcome.FAILURE, probe=KNOWN_DOWN)
    assert fragile.next_probe("a") == 110.0
    assert not fragile.should_probe("a")
    clock.advance(1.0)
    assert fragile.should_probe("a")
    assert not fragile.should_probe("a"), "only one at a time"
    clock.advance(4.0)
    fragile.report_failure("a")
    clock.advance(9.0)
    assert not fragile.should_probe("a")
    clock.advance(1.0)
    assert fragile.should_probe("a")
    fragile.report_success("a")
    assert fragile.status("a") is HEALTHY
    assert not fragile.should_probe("a"), "a healthy node needs none"


def test_a_probe_of_which_nothing_is_reported_lapses(
    fragile: HealthTracker, clock: ManualClock
) -> None:
    """After another interval somebody else may try; a word that says nothing ends it at once."""
    fragile.report_failure("a")
    clock.advance(10.0)
    assert fragile.should_probe("a")
    clock.advance(9.0)
    assert not fragile.should_probe("a")
    clock.advance(1.0)
    assert fragile.should_probe("a")
    fragile.report("a", Outcome.CANCELLED)
    assert fragile.should_probe("a")


def test_a_lease_holds_its_probe_until_it_ends_it(
    fragile: HealthTracker, clock: ManualClock
) -> None:
    """A probe granted without a lapse ends by its holder alone, whatever else is reported."""
    fragile.report_failure("a")
    clock.advance(10.0)
    probe = fragile.grant_probe("a")
    assert probe is not None
    fragile.report("a", Outcome.CANCELLED)
    fragile.report_failure("a")
    clock.advance(1000.0)
    assert fragile.grant_probe("a") is None
    assert not fragile.should_probe("a")
    assert fragile.next_probe("a") is None
    assert fragile.down() == [("a", False)]
    fragile.end_probe("a", probe)
    second = fragile.grant_probe("a")
    assert second is not None
    fragile.end_probe("a", probe)
    assert fragile.grant_probe("a") is None, "a probe that has ended cannot end its successor"


@pytest.mark.parametrize("outcome", [Outcome.SUCCESS, Outcome.FAILURE])
def test_old_news_change_nothing(
    fragile: HealthTracker, clock: ManualClock, outcome: Outcome
) -> None:
    """A request that began before the node went down, or at that very moment, says nothing."""
    fragile.report_failure("a")
    clock.advance(5.0)
    before, version = fragile.health("a"), fragile.version
    for began in (99.0, 100.0):
        fragile.report("a", outcome, began=began)
        assert fragile.health("a") == before
        assert fragile.version == version
    assert fragile.next_probe("a") == 110.0
    fragile.report("a", outcome, began=100.5)
    assert fragile.health("a") != before


def test_a_probe_is_never_old_news(clock: ManualClock) -> None:
    """Without an interval the probe begins at the very moment at which the node went down."""
    eager = HealthTracker(ConsecutiveFailurePolicy(1, 1, 0.0), clock)
    eager.report_failure("a")
    probe = eager.grant_probe("a")
    assert probe is not None
    eager.report("a", Outcome.SUCCESS, began=clock(), probe=probe)
    assert eager.status("a") is HEALTHY


def test_what_happened_earlier_counts_from_then(clock: ManualClock) -> None:
    """A failure that is reported late is stamped with the time at which it happened."""
    tracker = HealthTracker(ConsecutiveFailurePolicy(1), clock)
    tracker.report("a", Outcome.FAILURE, at=97.0)
    assert (tracker.health("a").last_failure, tracker.health("a").down_since) == (97.0, 97.0)
    assert tracker.next_probe("a") == 107.0
    tracker.report("a", Outcome.SUCCESS, began=98.0)
    assert tracker.status("a") is RECOVERING


@pytest.mark.parametrize("outcome", Outcome)
def test_old_news_leave_the_probe_alone(
    fragile: HealthTracker, clock: ManualClock, outcome: Outcome
) -> None:
    """A request from before the node was down is not the probe, so it does not end it."""
    fragile.report_failure("a")
    clock.advance(10.0)
    assert fragile.should_probe("a")
    fragile.report("a", outcome, began=99.0)
    assert not fragile.should_probe("a")
    fragile.report("a", Outcome.CANCELLED, began=110.0)
    assert fragile.should_probe("a")


class Polite:
    """An id that lets other threads go first whenever it is looked up."""

    def __hash__(self) -> int:
        time.sleep(0)
        return id(self)


@pytest.mark.parametrize("method", ["should_probe", "grant_probe"])
def test_threads_that_race_for_a_probe(method: str) -> None:
    """Of 8 threads that ask at the same moment exactly one is granted the probe."""
    clock = ManualClock()
    tracker = HealthTracker(ConsecutiveFailurePolicy(failure_threshold=1), clock)
    ids = [Polite() for _ in range(300)]
    for identity in ids:
        tracker.report_failure(identity)
    clock.advance(10.0)
    ask = getattr(tracker, method)
    granted = together(lambda: [bool(ask(identity)) for identity in ids])
    assert [sum(answers) for answers in zip(*granted, strict=True)] == [1] * len(ids)


def test_threads_that_report_lose_no_failure() -> None:
    """4,000 failures by 8 threads count 4,000, and each change of state is told once."""
    tracker = HealthTracker(ConsecutiveFailurePolicy(failure_threshold=4_000))
    told: list[tuple[HealthStatus, HealthStatus]] = []
    tracker.subscribe(lambda _, old, new: told.append((old, new)))

    def work() -> None:
        for _ in range(500):
            tracker.report_failure("a")

    together(work)
    assert tracker.health("a").consecutive_failures == 4_000
    assert sorted(told, key=str) == [(DEGRADED, UNHEALTHY), (HEALTHY, DEGRADED)]


def test_listeners_are_told_of_every_change() -> None:
    """A listener gets id, old and new state, once they hold, and may use the tracker itself."""
    tracker = HealthTracker(ConsecutiveFailurePolicy(2, 2))
    told: list[tuple[Hashable, HealthStatus, HealthStatus]] = []

    def listen(identity: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        assert tracker.status(identity) is new
        tracker.report_failure("another one")
        told.append((identity, old, new))

    unsubscribe = tracker.subscribe(listen)
    for outcome in (*[Outcome.FAILURE] * 3, *[Outcome.SUCCESS] * 3):
        tracker.report("a", outcome)
    assert [change for change in told if change[0] == "a"] == [
        ("a", HEALTHY, DEGRADED),
        ("a", DEGRADED, UNHEALTHY),
        ("a", UNHEALTHY, RECOVERING),
        ("a", RECOVERING, HEALTHY),
    ]
    told.clear()
    unsubscribe()
    unsubscribe()
    tracker.report_failure("b")
    assert told == []


def test_listeners_that_raise_harm_nobody(
    fragile: HealthTracker, caplog: pytest.LogCaptureFixture
) -> None:
    """What a listener raises is logged; the report counts and the next listener is told."""
    told: list[Hashable] = []

    def fail(identity: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        raise RuntimeError("listener out of order")

    fragile.subscribe(fail)
    fragile.subscribe(lambda identity, *_: told.append(identity))
    with caplog.at_level(logging.ERROR, logger="loadwise"):
        fragile.report_failure("a")
    assert fragile.status("a") is UNHEALTHY
    assert told == ["a"]
    (record,) = caplog.records
    assert "'a'" in record.getMessage()
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "listener out of order"


def test_a_subscription_ends_alone(fragile: HealthTracker) -> None:
    """A function subscribed twice is told twice, and ending one of the two leaves the other."""
    told: list[Hashable] = []

    def listen(identity: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        told.append(identity)

    fragile.subscribe(listen)
    unsubscribe = fragile.subscribe(listen)
    fragile.report_failure("a")
    unsubscribe()
    fragile.report_failure("b")
    assert told == ["a", "a", "b"]


class ShareOfFailures:
    """Down at half of the last 4 outcomes; so it must see the successes of healthy nodes, too."""

    probe_interval = 1.0

    def __init__(self) -> None:
        self.seen: dict[Hashable, list[Outcome]] = {}

    def next_status(self, health: NodeHealth, outcome: Outcome) -> HealthStatus:
        last = [*self.seen.get(health.id, []), outcome][-4:]
        self.seen[health.id] = last
        return UNHEALTHY if last.count(Outcome.FAILURE) >= 2 else HEALTHY


class IndifferentShare(ShareOfFailures):
    """The same, but it says that it does not mind the successes of healthy nodes."""

    ignores_success_when_healthy = True


def test_a_policy_of_ones_own_sees_every_outcome() -> None:
    """Without the attribute, successes of healthy nodes reach the policy; noise never does."""
    policy = ShareOfFailures()
    tracker = HealthTracker(policy)
    version = tracker.version
    for _ in range(5):
        tracker.report_success("a")
        tracker.report("a", Outcome.RATE_LIMITED)
    assert policy.seen == {"a": [Outcome.SUCCESS] * 4}
    assert tracker.version == version
    assert entries(tracker) == 0
    tracker.report_failure("a")
    assert tracker.status("a") is HEALTHY
    tracker.report_success("a")
    tracker.report_failure("a")
    assert tracker.status("a") is UNHEALTHY
    assert tracker.version != version


def test_a_policy_may_be_spared_the_successes_of_healthy_nodes() -> None:
    """With ignores_success_when_healthy it is asked only where there is a failure to remember."""
    policy = IndifferentShare()
    tracker = HealthTracker(policy)
    tracker.report_success("a")
    assert "a" not in tracker.tracked_ids
    assert policy.seen == {}
    tracker.report_failure("a")
    assert "a" in tracker.tracked_ids
    tracker.report_success("a")
    assert policy.seen == {"a": [Outcome.FAILURE, Outcome.SUCCESS]}
    tracker.report_success("a")
    assert len(policy.seen["a"]) == 2


class Unfinished:
    """A policy that lacks half of what it needs."""

    probe_interval = 1.0


def test_refuses_the_class_of_a_policy() -> None:
    """A class has the names that a policy needs, but cannot be asked: brackets are missing."""
    with pytest.raises(
        TypeError, match=r"policy is the class Conse\w+; give an instance: Conse\w+\("
    ):
        HealthTracker(ConsecutiveFailurePolicy)  # type: ignore[arg-type]  # the point of the test


def test_refuses_what_is_no_policy() -> None:
    """A policy without next_status is refused at construction, naming it and what is missing."""
    wrong: Any = Unfinished()
    with pytest.raises(TypeError, match=r"Unfinished.*needs `next_status`"):
        HealthTracker(wrong)


class Careless:
    """A policy with a wrong answer or a wrong interval."""

    def __init__(self, answer: object = HEALTHY, probe_interval: float = 1.0) -> None:
        self.answer: Any = answer
        self.probe_interval = probe_interval

    def next_status(self, health: NodeHealth, outcome: Outcome) -> HealthStatus:
        answer: HealthStatus = self.answer
        return answer


@pytest.mark.parametrize("answer", [None, "UNHEALTHY", True, [], UNHEALTHY | DEGRADED])
def test_refuses_an_answer_that_is_no_state(answer: object) -> None:
    """A policy that returns anything but one state is told so, and the node stays as it was."""
    tracker = HealthTracker(Careless(answer))
    with pytest.raises(LoadwiseError, match=r"Careless.next_status returned .*HealthStatus\.HEALT"):
        tracker.report_failure("a")
    assert tracker.health("a") == NodeHealth("a")
    assert entries(tracker) == 0


@pytest.mark.parametrize(
    ("interval", "error"), [("3", TypeError), (-1.0, ValueError), (float("nan"), ValueError)]
)
def test_refuses_a_wrong_probe_interval(interval: float, error: type[Exception]) -> None:
    """A policy's interval is checked where the policy is given, and not at some pick."""
    with pytest.raises(error, match=r"probe_interval is .*; it must be a"):
        HealthTracker(Careless(probe_interval=interval))


def test_a_probe_interval_may_be_infinite(clock: ManualClock) -> None:
    """A node is then never given a probe: only a report from outside brings it back."""
    tracker = HealthTracker(Careless(UNHEALTHY, math.inf), clock)
    tracker.report_failure("a")
    clock.advance(1e9)
    assert not tracker.should_probe("a")
    assert tracker.next_probe("a") is None


@pytest.mark.parametrize("wrong", ["failure", None, True])
def test_refuses_what_is_no_outcome(fragile: HealthTracker, wrong: Outcome) -> None:
    """A report of anything but an Outcome is refused, naming the choices, and counts nothing."""
    with pytest.raises(TypeError, match=r"Outcome\.SUCCESS, Outcome\.FAILURE, Outcome\.RATE_LIM"):
        fragile.report("a", wrong)
    assert fragile.snapshot() == {}


def test_a_clock_that_steps_backwards_only_makes_the_probe_wait() -> None:
    """Nothing is raised, and no probe is granted before the clock says that it is due."""
    readings = ManualClock(100.0)
    tracker = HealthTracker(ConsecutiveFailurePolicy(failure_threshold=1), readings)
    tracker.report_failure("a")
    readings.now = 40.0
    assert not tracker.should_probe("a")
    assert tracker.next_probe("a") == 110.0
    readings.now = 110.0
    assert tracker.should_probe("a")


class SlowPolicy(ShareOfFailures):
    """A policy that thinks about one node for as long as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.thinking, self.answer = Event(), Event()

    def next_status(self, health: NodeHealth, outcome: Outcome) -> HealthStatus:
        if health.id == "slow":
            self.thinking.set()
            assert self.answer.wait(TIMEOUT)
        return UNHEALTHY


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_goes_on() -> None:
    """A lock held by another thread at the fork holds up no child; states stay, probes end."""
    clock = ManualClock()
    policy = SlowPolicy()
    tracker = HealthTracker(policy, clock)
    tracker.report_failure("down")
    clock.advance(1.0)
    assert tracker.grant_probe("down") is not None
    version = tracker.version
    holder = Thread(target=tracker.report_failure, args=("slow",))
    holder.start()
    assert policy.thinking.wait(TIMEOUT)

    def child() -> None:
        assert tracker.status("down") is UNHEALTHY
        assert tracker.version != version
        assert tracker.should_probe("down"), "the parent's probe is not the child's"
        tracker.report_failure("new")
        assert tracker.status("new") is UNHEALTHY

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(TIMEOUT)
    hung = process.is_alive()
    process.kill()
    policy.answer.set()
    holder.join(TIMEOUT)
    assert not hung, "the child waits for a lock that nobody will release"
    assert process.exitcode == 0
    assert tracker.status("new") is HEALTHY, "the child's reports are its own"


def test_a_node_is_taken_by_its_id() -> None:
    """A node in the place of its id is as good, in every method, whatever else it has."""
    clock = ManualClock()
    tracker = HealthTracker(ConsecutiveFailurePolicy(failure_threshold=1), clock)
    node, again = Endpoint("a"), Endpoint("a", weight=3)
    tracker.report_failure(node)
    assert tracker.status("a") is tracker.status(again) is UNHEALTHY
    assert tracker.health(again) == tracker.health("a")
    assert tracker.next_probe(again) == 10.0
    clock.advance(10.0)
    assert tracker.should_probe(again)
    assert not tracker.should_probe("a")
    tracker.report(again, Outcome.SUCCESS)
    tracker.report_success(node)
    assert tracker.status("a") is HEALTHY
    tracker.report_failure("a")
    tracker.remove(again)
    assert tracker.snapshot() == {}


def test_a_last_success_that_only_the_reporter_knows_counts() -> None:
    """A node without a record that fails once, and is UNHEALTHY by that, is ailing: not dead."""
    clock = ManualClock(100.0)
    tracker = HealthTracker(ConsecutiveFailurePolicy(failure_threshold=1), clock=clock)
    tracker.report("seen", Outcome.FAILURE, last_success=99.0)
    tracker.report("never", Outcome.FAILURE)
    assert tracker.is_ailing("seen", window=5.0)
    assert not tracker.is_ailing("never", window=5.0)
    clock.advance(4.5)  # the window, put off to its next tenth
    assert not tracker.is_ailing("seen", window=5.0)
