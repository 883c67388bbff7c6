"""What stands between a balancer and a metrics collector."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Hashable
from functools import partial
from threading import Barrier, Thread
from typing import Any

import pytest

from loadwise import HealthStatus, MetricsCollector, NoopCollector, Outcome
from loadwise.metrics import GuardedCollector

EVENTS: dict[str, tuple[object, ...]] = {
    "on_selection": ("a", "RoundRobin"),
    "on_health_change": ("a", HealthStatus.HEALTHY, HealthStatus.DEGRADED),
    "on_outcome": ("a", Outcome.SUCCESS, 0.25),
    "on_unavailable": ("unhealthy",),
}
EXTRA_EVENTS: dict[str, tuple[object, ...]] = {
    "on_retry": ("a", "timeout"),
    "on_retry_refused": ("budget",),
}


class Recorder:
    """Takes down every event."""

    def __init__(self) -> None:
        self.events: dict[str, tuple[object, ...]] = {}

    def __getattr__(self, method: str) -> Callable[..., None]:
        if method not in EVENTS | EXTRA_EVENTS:
            raise AttributeError(method)

        def record(*arguments: object) -> None:
            self.events[method] = arguments

        return record


class Broken:
    """Raises at every event."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def on_selection(self, node_id: Hashable, strategy: str) -> None:
        raise self.error("on_selection is broken")

    def on_health_change(self, node_id: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        raise self.error("on_health_change is broken")

    def on_outcome(self, node_id: Hashable, outcome: Outcome, latency: float) -> None:
        raise self.error("on_outcome is broken")

    def on_unavailable(self, reason: str) -> None:
        raise self.error("on_unavailable is broken")


def tell(collector: MetricsCollector, method: str) -> None:
    """Pass one event to a collector."""
    getattr(collector, method)(*EVENTS[method])


def test_the_guard_passes_everything_on() -> None:
    """Each event reaches the collector with its arguments, in their order."""
    recorder: Any = Recorder()
    for method in EVENTS:
        tell(GuardedCollector(recorder), method)
    GuardedCollector(recorder).on_retry("a", "timeout")
    GuardedCollector(recorder).on_retry_refused("budget")
    assert recorder.events == EVENTS | EXTRA_EVENTS


def test_a_collector_need_not_care_for_retries() -> None:
    """A collector of the four events alone is told nothing of retries, and none is needed."""
    guarded = GuardedCollector(Broken(RuntimeError))
    guarded.on_retry("a", "timeout")
    guarded.on_retry_refused("budget")


@pytest.mark.parametrize("method", EVENTS)
def test_methods_may_be_any_callables(method: str, caplog: pytest.LogCaptureFixture) -> None:
    """What raises need not be a method with a name of its own, such as a partial."""
    collector: Any = NoopCollector()
    setattr(collector, method, partial(getattr(Broken(ValueError), method)))
    tell(GuardedCollector(collector), method)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("first", EVENTS)
def test_a_collector_that_raises_is_logged_once(
    first: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The first failure is logged with its traceback, later ones not; none is raised."""
    guarded = GuardedCollector(Broken(ValueError))
    with caplog.at_level(logging.DEBUG, logger="loadwise"):
        for method in (first, *EVENTS, first):
            tell(guarded, method)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert re.search(rf"failed in {first}\b.*further failures are not", record.getMessage())
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == f"{first} is broken"


def test_threads_in_which_it_raises_at_once_log_it_once(caplog: pytest.LogCaptureFixture) -> None:
    """Whichever thread is first speaks for all."""
    for _ in range(50):
        both = Barrier(2, timeout=20)
        collector = Broken(ValueError)
        collector.on_selection = lambda *_, both=both: 1 // (both.wait() * 0)  # type: ignore[method-assign]
        guarded = GuardedCollector(collector)
        workers = [Thread(target=tell, args=(guarded, "on_selection")) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(timeout=20)
    assert len(caplog.records) == 50


def test_each_collector_is_logged_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    """One that has failed before keeps nobody from hearing of another."""
    for _ in range(2):
        tell(GuardedCollector(Broken(ValueError)), "on_selection")
    assert len(caplog.records) == 2


@pytest.mark.parametrize("method", EVENTS)
def test_an_interruption_is_not_swallowed(method: str) -> None:
    """Ctrl-C in a collector still ends the program."""
    with pytest.raises(KeyboardInterrupt):
        tell(GuardedCollector(Broken(KeyboardInterrupt)), method)


@pytest.mark.parametrize("missing", EVENTS)
def test_refuses_a_collector_that_lacks_a_method(missing: str) -> None:
    """It is refused at once, naming what it lacks and the base that would supply it."""
    methods: dict[str, Any] = {name: print for name in EVENTS if name != missing}
    for collector in (
        type("Partial", (), methods)(),
        type("Partial", (), methods | {missing: "not a method"})(),
    ):
        with pytest.raises(TypeError, match=rf"Partial.*lacks {missing}\(\).*NoopCollector"):
            GuardedCollector(collector)


def test_the_silent_collector_is_a_base() -> None:
    """NoopCollector ignores every event; a subclass need define only those it wants."""
    reasons: list[str] = []

    class Alarm(NoopCollector):
        def on_unavailable(self, reason: str) -> None:
            reasons.append(reason)

    for method in EVENTS:
        tell(NoopCollector(), method)
        tell(GuardedCollector(Alarm()), method)
    assert reasons == ["unhealthy"]
