"""What a balancer tells its collector: every event once, and never at the cost of a request."""

from __future__ import annotations

import functools
import gc
import logging
import weakref
from collections.abc import Callable, Hashable
from typing import Any

import pytest

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    HealthStatus,
    HealthTracker,
    LeastLoad,
    MetricsCollector,
    NoNodeAvailable,
    NoopCollector,
    Outcome,
    PeakEwma,
    PowerOfTwoChoices,
    RoundRobin,
)
from loadwise.testing import ManualClock


class Diary:
    """Writes down every event."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def on_selection(self, node_id: Hashable, strategy: str) -> None:
        self.events.append(("selection", node_id, strategy))

    def on_health_change(self, node_id: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        self.events.append(("health", node_id, old, new))

    def on_outcome(self, node_id: Hashable, outcome: Outcome, latency: float) -> None:
        self.events.append(("outcome", node_id, outcome, latency))

    def on_unavailable(self, reason: str) -> None:
        self.events.append(("unavailable", reason))


def test_every_event_is_told_once() -> None:
    """Choices, outcomes with latency, changes of health and vain requests, in order."""
    clock, diary = ManualClock(), Diary()
    health = HealthTracker(ConsecutiveFailurePolicy(2, recovery_successes=1), clock)
    balancer = Balancer(
        ["a"], RoundRobin(), health=health, metrics=diary, clock=clock, panic_threshold=None
    )
    for seconds in (1.0, 2.0):
        lease = balancer.acquire()
        clock.advance(seconds)
        lease.failure()
    with pytest.raises(NoNodeAvailable):
        balancer.acquire()
    with pytest.raises(NoNodeAvailable):
        balancer.pick(exclude=["a"])
    clock.advance(10.0)
    balancer.acquire().success()
    assert balancer.pick() == "a"
    balancer.acquire(where=lambda _: True).rate_limited(3.0)
    with pytest.raises(NoNodeAvailable):
        balancer.pick()
    chosen = ("selection", "a", "RoundRobin")
    well, failing, down = HealthStatus.HEALTHY, HealthStatus.DEGRADED, HealthStatus.UNHEALTHY
    assert diary.events == [
        chosen,
        ("health", "a", well, failing),
        ("outcome", "a", Outcome.FAILURE, 1.0),
        chosen,
        ("health", "a", failing, down),
        ("outcome", "a", Outcome.FAILURE, 2.0),
        ("unavailable", "unhealthy"),
        ("unavailable", "unhealthy"),
        chosen,
        ("health", "a", down, well),
        ("outcome", "a", Outcome.SUCCESS, 0.0),
        chosen,
        chosen,
        ("outcome", "a", Outcome.RATE_LIMITED, 0.0),
        ("unavailable", "rate_limited"),
    ]


def test_explain_and_status_are_not_events() -> None:
    """To look is not to choose."""
    diary = Diary()
    balancer = Balancer(["a"], metrics=diary)
    balancer.explain()
    balancer.explain(exclude=["a"])
    balancer.status()
    assert diary.events == []


def test_only_members_are_told_of() -> None:
    """Of a tracker shared with others, a collector hears what concerns its own members."""
    shared, diary = HealthTracker(), Diary()
    balancer = Balancer(["a"], health=shared, metrics=diary)
    for node in "ab":
        shared.report_failure(node)
        shared.report_failure(node)
    balancer.remove("a")
    shared.report_failure("a")
    shared.report_failure("a")
    assert diary.events == [("health", "a", HealthStatus.HEALTHY, HealthStatus.DEGRADED)]


def test_a_tracker_does_not_keep_balancers_alive() -> None:
    """A balancer that is gone is forgotten by the tracker that outlives it."""
    shared = HealthTracker(ConsecutiveFailurePolicy(1))
    diary = Diary()
    balancer = Balancer(["a"], health=shared, metrics=diary)
    gone = weakref.ref(balancer)
    del balancer
    gc.collect()
    assert gone() is None
    shared.report_failure("a")
    assert diary.events == []
    assert not shared._listeners


class Failing(Diary):
    """Writes down every event, and raises."""

    def _fail(self) -> None:
        raise RuntimeError("the metrics backend is away")

    def on_selection(self, node_id: Hashable, strategy: str) -> None:
        super().on_selection(node_id, strategy)
        self._fail()

    def on_health_change(self, node_id: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        super().on_health_change(node_id, old, new)
        self._fail()

    def on_outcome(self, node_id: Hashable, outcome: Outcome, latency: float) -> None:
        super().on_outcome(node_id, outcome, latency)
        self._fail()

    def on_unavailable(self, reason: str) -> None:
        super().on_unavailable(reason)
        self._fail()


class FailingObjects:
    """A collector made of callables that have no name."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []
        for kind in ("selection", "health_change", "outcome", "unavailable"):
            name = {"health_change": "health"}.get(kind, kind)
            setattr(self, f"on_{kind}", functools.partial(self._note, name))

    def _note(self, *event: object) -> None:
        self.events.append(event)
        raise RuntimeError("the metrics backend is away")


@pytest.mark.parametrize("make", [Failing, FailingObjects])
def test_a_failing_collector_harms_nobody(
    make: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A collector that raises at every event is logged once, and everything works."""
    collector = make()
    balancer = Balancer(["a", "b"], RoundRobin(), metrics=collector)
    with caplog.at_level(logging.WARNING, logger="loadwise"):
        for _ in range(3):
            assert balancer.acquire(exclude=["b"]).failure()
        assert [balancer.pick() for _ in range(3)] == ["b"] * 3
        with pytest.raises(NoNodeAvailable):
            balancer.pick(exclude=["b"])
    kinds = [event[0] for event in collector.events]
    assert sorted(set(kinds)) == ["health", "outcome", "selection", "unavailable"]
    assert kinds.count("selection") == 6
    assert [status.in_flight for status in balancer.status()] == [0, 0]
    [record] = [record for record in caplog.records if record.name == "loadwise"]
    assert "the metrics collector" in record.getMessage()
    assert record.exc_info is not None


def test_a_collector_of_a_few_events() -> None:
    """A subclass of `NoopCollector` hears what it defines; the class itself costs nothing."""

    class Vain(NoopCollector):
        count = 0

        def on_unavailable(self, reason: str) -> None:
            self.count += 1

    vain = Vain()
    balancer: Balancer[str] = Balancer([], metrics=vain)
    for _ in range(3):
        with pytest.raises(NoNodeAvailable):
            balancer.acquire()
    assert vain.count == 3
    assert Balancer(["a"], metrics=NoopCollector()).metrics is None


def test_measures_take_the_clock_of_the_balancer() -> None:
    """A peak EWMA without a clock of its own decays by the balancer's clock, and not otherwise."""
    clock = ManualClock()
    load = PeakEwma(tau=10.0)
    balancer = Balancer(["slow", "quick"], LeastLoad(load=load), clock=clock, health=False)
    for other, seconds in (("quick", 8.0), ("slow", 2.0)):
        lease = balancer.acquire(exclude=[other])
        clock.advance(seconds)
        lease.success()
    told = balancer.explain()
    assert told.choice == "quick"
    assert told.seen["slow"]["load"] == pytest.approx(8.0 * 2.718281828 ** (-2.0 / 10.0))
    clock.advance(20.0)
    assert balancer.explain().seen["quick"]["load"] == pytest.approx(2.0 * 2.718281828**-2.0)


def test_a_measure_goes_by_the_clock_of_its_balancer() -> None:
    """A clock given to the measure must be that of the balancer, for times of both are compared."""
    clock = ManualClock()
    strategy: PowerOfTwoChoices[str] = PowerOfTwoChoices(load=PeakEwma(clock=clock))
    balancer = Balancer(["a"], strategy, clock=clock)
    lease = balancer.acquire()
    clock.advance(4.0)
    lease.success()
    clock.advance(10.0)
    assert balancer.explain().seen["a"]["load"] == pytest.approx(4.0 / 2.718281828)
    with pytest.raises(ValueError, match=r"clock .* load measure .*PeakEwma.* the same clock"):
        Balancer(["a"], strategy, clock=ManualClock())


@pytest.mark.parametrize("step", [60.0, 1e5])
def test_a_clock_that_steps_back_breaks_no_request(step: float) -> None:
    """When a clock goes back, requests still begin and end, and the counts hold."""
    clock = ManualClock(1e6)
    strategy: PowerOfTwoChoices[str] = PowerOfTwoChoices(load=PeakEwma())
    balancer = Balancer(["a", "b"], strategy, clock=clock)
    for _ in range(4):
        leases = [balancer.acquire() for _ in range(4)]
        clock.advance(0.5)
        for lease in leases[:2]:
            lease.success()
        clock.now -= step
        for lease in leases[2:]:
            lease.success()
        assert balancer.pick() in ("a", "b")
    assert [status.in_flight for status in balancer.status()] == [0, 0]


def test_several_collectors_hear_of_everything() -> None:
    """Each of them, in order, also what only some care for."""

    class Curious(Diary):
        def on_panic(self, entered: bool) -> None:  # noqa: FBT001 - as it is called
            self.events.append(("panic", entered))

        def on_cooldown(self, node_id: Hashable, seconds: float) -> None:
            self.events.append(("cooldown", node_id, seconds))

        def on_wait(self, seconds: float, got: bool) -> None:  # noqa: FBT001 - as it is called
            self.events.append(("wait", seconds, got))

        def on_retry(self, node_id: Hashable, reason: str) -> None:
            self.events.append(("retry", node_id, reason))

        def on_retry_refused(self, reason: str) -> None:
            self.events.append(("refused", reason))

        def watch_budget(self, budget: object) -> None:
            self.events.append(("budget", budget))

    plain, curious = Diary(), Curious()
    health = HealthTracker(ConsecutiveFailurePolicy(1), ManualClock())
    balancer = Balancer(["a"], RoundRobin(), health=health, metrics=(curious, plain))
    assert balancer.metrics is not None
    balancer.metrics.on_retry("a", "failure")
    balancer.metrics.on_retry_refused("budget")
    balancer.metrics.watch_budget(5)
    balancer.metrics.on_wait(2.5, got=False)
    assert curious.events == [
        ("retry", "a", "failure"), ("refused", "budget"), ("budget", 5), ("wait", 2.5, False),
    ]  # fmt: skip
    assert plain.events == []
    curious.events.clear()
    balancer.acquire().failure()
    balancer.acquire().rate_limited(5.0)
    with pytest.raises(NoNodeAvailable):
        balancer.pick()
    expected = [
        ("selection", "a", "RoundRobin"),
        ("health", "a", HealthStatus.HEALTHY, HealthStatus.UNHEALTHY),
        ("outcome", "a", Outcome.FAILURE, 0.0),
        ("selection", "a", "RoundRobin"),
        ("outcome", "a", Outcome.RATE_LIMITED, 0.0),
        ("unavailable", "rate_limited"),
    ]
    assert plain.events == expected
    assert [event for event in curious.events if event[0] not in ("panic", "cooldown")] == expected
    assert [event for event in curious.events if event[0] in ("panic", "cooldown")] == [
        ("panic", True), ("cooldown", "a", 5.0),
    ]  # fmt: skip


def test_one_of_several_that_raises_keeps_none_from_hearing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each that fails is logged once, and the rest hear all."""
    before, between, after = Diary(), Diary(), Diary()
    failing = [Failing(), Failing()]
    balancer = Balancer(["a"], metrics=[before, failing[0], between, failing[1], after])
    for _ in range(3):
        balancer.acquire().success()
    assert len(before.events) == 6
    assert before.events == between.events == after.events == failing[0].events
    assert len(caplog.records) == 2


def test_a_list_of_one_or_none_is_as_good_as_that() -> None:
    """There is nothing between the balancer and a collector that is alone, or silent."""
    assert Balancer(["a"], metrics=[]).metrics is None
    assert Balancer(["a"], metrics=[NoopCollector()]).metrics is None
    several: list[list[MetricsCollector]] = [[Diary()], [NoopCollector(), Diary()]]
    for metrics in several:
        alone = Balancer(["a"], metrics=metrics).metrics
        assert alone is not None
        assert isinstance(alone._collector, Diary)


@pytest.mark.parametrize(
    ("metrics", "error", "text"),
    [
        ([Diary(), None], TypeError, "None; it lacks on_selection"),
        ([Diary], TypeError, "give an instance: Diary()"),
        ([[Diary()]], TypeError, "it lacks on_selection"),
        ("prometheus", TypeError, "metrics is 'prometheus'; it lacks on_selection"),
        ({"a": 1}, TypeError, "it lacks on_selection"),
    ],
)
def test_a_list_of_something_else_is_refused(
    metrics: Any, error: type[Exception], text: str
) -> None:
    """At construction, naming what is wrong."""
    with pytest.raises(error, match=text.replace("(", r"\(").replace(")", r"\)")):
        Balancer(["a"], metrics=metrics)


def test_the_same_collector_twice_is_refused() -> None:
    """It would count everything twice."""
    diary = Diary()
    with pytest.raises(ValueError, match="twice"):
        Balancer(["a"], metrics=[diary, Diary(), diary])


def test_a_balancer_that_is_gone_leaves_no_listener_behind() -> None:
    """Also if the tracker that it shared never has news again."""
    shared = HealthTracker()
    for _ in range(3):
        Balancer(["a"], health=shared)
    gc.collect()
    assert not shared._listeners
