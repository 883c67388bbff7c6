"""Panic: what log, collectors, status and explanations say of it."""

from __future__ import annotations

import logging
from threading import Thread

import pytest
from tests.balancer.panicking import kill, sicken, tracker_of

from loadwise import (
    Balancer,
    NoopCollector,
    RoundRobin,
)
from loadwise.testing import ManualClock


def test_one_log_line_tells_that_it_began(caplog: pytest.LogCaptureFixture) -> None:
    """It names the balancer and the numbers; a fleet that flickers does not fill the log."""
    clock = ManualClock()
    balancer = Balancer(["a", "b", "c"], clock=clock, name="search")
    caplog.set_level(logging.INFO, logger="loadwise")
    kill(balancer, "a", "b", "c")
    for _ in range(5):
        balancer.pick()
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "balancer 'search' is in panic: all 3 nodes are dead; requests go to them as a last resort"
    )
    for _ in range(3):
        tracker_of(balancer).report_success("a")
        tracker_of(balancer).report_success("b")
        assert balancer.panic is None
        kill(balancer, "a", "b")
        assert balancer.panic is not None
    assert len(caplog.records) == 1
    tracker_of(balancer).report_success("a")
    tracker_of(balancer).report_success("b")
    assert balancer.panic is None
    clock.advance(11.0)
    kill(balancer, "b")
    assert balancer.panic is not None
    assert len(caplog.records) == 2
    assert "1 of 3 nodes is available, below 50 %" in caplog.records[1].getMessage()


def test_a_clock_that_steps_back_silences_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Else no panic of the next hour would be in the log."""
    now = [10_000.0]
    balancer = Balancer(["a"], clock=lambda: now[0])
    caplog.set_level(logging.INFO, logger="loadwise")
    for _ in range(2):
        kill(balancer, "a")
        assert balancer.panic is not None
        tracker_of(balancer).report_success("a")
        assert balancer.panic is None
        now[0] -= 3_600.0
    assert len(caplog.records) == 2


def test_a_collector_that_wants_to_know_is_told_once_each() -> None:
    """``on_panic(True)`` when it begins and ``on_panic(False)`` when it ends."""
    told: list[bool] = []

    class Told(NoopCollector):
        def on_panic(self, entered: bool) -> None:  # noqa: FBT001
            told.append(entered)
            # It may ask the balancer, for no lock is held.
            assert (balancer.panic is not None) is entered
            balancer.explain()

    balancer = Balancer(["a", "b"], clock=ManualClock(), metrics=Told())
    for _ in range(3):
        kill(balancer, "a", "b")
        for _ in range(5):
            balancer.pick()
        tracker_of(balancer).report_success("b")
        balancer.pick()
        balancer.drain("a")
        balancer.resume("a")
        tracker_of(balancer).report_success("a")
        balancer.pick()
    assert told == [True, False] * 3
    quiet = Balancer(["a"], clock=ManualClock(), metrics=NoopCollector())
    kill(quiet, "a")
    assert quiet.pick() == "a", "a collector need not care"


def test_the_end_is_not_told_before_the_beginning() -> None:
    """A panic may end, in another thread, while a collector is still told that it began."""
    told: list[bool] = []

    class Slow(NoopCollector):
        def on_panic(self, entered: bool) -> None:  # noqa: FBT001
            if entered:
                other = Thread(target=recover)
                other.start()
                other.join(10.0)
            told.append(entered)

    balancer = Balancer(["a"], clock=ManualClock(), metrics=Slow())

    def recover() -> None:
        tracker_of(balancer).report_success("a")
        balancer.pick()

    kill(balancer, "a")
    balancer.pick()
    assert balancer.panic is None
    assert told == [True, False]


def test_a_collector_that_is_interrupted_is_told_the_next_time() -> None:
    """Ctrl-C while one is told must not silence the balancer for good."""
    told: list[bool] = []

    class Interrupted(NoopCollector):
        def on_panic(self, entered: bool) -> None:  # noqa: FBT001
            told.append(entered)
            if len(told) == 1:
                raise KeyboardInterrupt

    balancer = Balancer(["a"], clock=ManualClock(), metrics=Interrupted())
    kill(balancer, "a")
    with pytest.raises(KeyboardInterrupt):
        balancer.pick()
    tracker_of(balancer).report_success("a")
    balancer.pick()
    assert told == [True, False]


def test_explain_and_status_tell() -> None:
    """Both show who is ailing, and explain says how bad it is."""
    balancer = Balancer(["a", "ill", "dead"], RoundRobin(), clock=ManualClock(), name="search")
    sicken(balancer, "ill")
    kill(balancer, "dead")
    assert [(each.id, each.ailing) for each in balancer.status()] == [
        ("a", False),
        ("ill", True),
        ("dead", False),
    ]
    told = balancer.explain()
    assert told.panic == balancer.panic
    assert told.ailing == {"ill"}
    assert str(told).splitlines() == [
        "search: RoundRobin would choose 'a'",
        "  panic: 1 of 3 nodes is available, below 50 %; requests go to 1 ailing node, too",
        "  'a': eligible",
        "  'ill': eligible though ailing",
        "  'dead': unhealthy",
    ]
