"""A lease that nobody ends, or whose end fails, gives back its slot and its probe."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest
from tests.balancer.leases import Recorder, down_and_due, in_flight

from loadwise import (
    Balancer,
    HealthPolicy,
    HealthStatus,
    HealthTracker,
    Lease,
    NodeHealth,
    NoNodeAvailable,
    Outcome,
    PeakEwma,
    PowerOfTwoChoices,
)
from loadwise.testing import ManualClock


@pytest.mark.parametrize("in_a_cycle", [False, True])
def test_dropped_without_a_word(in_a_cycle: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    """A lease that is collected gives its slot back, warns, and is recorded as cancelled."""
    clock, recorder = ManualClock(), Recorder()
    balancer = Balancer(["a"], clock=clock, metrics=recorder)
    held: list[object] = [balancer.acquire()]
    clock.advance(4.0)
    drop = held.clear
    if in_a_cycle:
        held.append(held)
        drop = gc.collect  # type: ignore[assignment]  # what it returns does not matter
    del held
    assert in_flight(balancer) == 1
    with pytest.warns(ResourceWarning, match="lease on node 'a' was dropped"):
        drop()
    assert in_flight(balancer) == 0
    balancer.acquire().success()
    assert [outcome for _, outcome, _ in recorder.outcomes] == [Outcome.CANCELLED, Outcome.SUCCESS]
    assert balancer.health is not None
    assert balancer.health.snapshot() == {}


def test_an_ended_lease_is_dropped_in_silence() -> None:
    """Collection of a lease that was ended is nobody's concern (warnings are errors here)."""
    balancer = Balancer(["a"])
    lease = balancer.acquire()
    lease.success()
    cycle: list[object] = [lease]
    cycle.append(cycle)
    del lease, cycle
    gc.collect()
    assert in_flight(balancer) == 0


@pytest.mark.parametrize("asked_by", ["acquire", "explain", "status"])
def test_a_dropped_probe_is_free_again(asked_by: str) -> None:
    """When the lease that held a node's one probe is collected, the node may be probed again."""
    balancer = down_and_due(ManualClock())
    held = [balancer.acquire()]
    with pytest.raises(NoNodeAvailable):
        balancer.acquire()
    with pytest.warns(ResourceWarning, match="dropped"):
        held.clear()
    if asked_by == "explain":
        assert balancer.explain().choice == "a"
    elif asked_by == "status":
        assert balancer.status()[0].next_probe == 0.0
    probe = balancer.acquire()
    assert probe.success()
    assert balancer.status()[0].health is HealthStatus.RECOVERING


class Collecting(HealthPolicy):
    """A policy in whose midst, under the tracker's lock, garbage is collected."""

    @property
    def probe_interval(self) -> float:
        return 10.0

    def next_status(self, health: NodeHealth, outcome: Outcome) -> HealthStatus:
        gc.collect()
        return HealthStatus.UNHEALTHY


def test_a_stream_with_a_probe_may_be_collected_anywhere() -> None:
    """A generator that holds a probe waits for no lock when the collector closes it."""
    clock, recorder = ManualClock(), Recorder()
    health = HealthTracker(Collecting(), clock)
    balancer = Balancer(["a"], health=health, metrics=recorder)
    health.report_failure("a")
    clock.advance(10.0)
    leases: list[Lease[str]] = []

    def stream(_: object) -> Iterator[str]:
        with balancer.acquire() as lease:
            leases.append(lease)
            yield lease.node

    cycle: list[object] = []
    cycle.append(stream(cycle))
    assert next(cycle[0]) == "a"  # type: ignore[call-overload]  # it is the stream
    clock.advance(4.0)
    del cycle
    reporting = Thread(target=health.report_failure, args=("b",), daemon=True)
    reporting.start()
    reporting.join(10.0)
    assert not reporting.is_alive(), "it waits for the lock that it holds"
    assert (leases[0].outcome, leases[0].latency) == (Outcome.CANCELLED, 4.0)
    clock.advance(1.0)
    assert balancer.acquire().success(), "the probe is free again"
    assert recorder.outcomes[0] == ("a", Outcome.CANCELLED, 4.0)
    assert in_flight(balancer) == 0


class WordlessError(Exception):
    """An error that cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (503, "503"),
        (ConnectionError, "<class 'ConnectionError'>"),
        (WordlessError(), "WordlessError"),
        (ValueError("bad"), "ValueError: bad"),
    ],
)
def test_any_reason_is_told(reason: Any, words: str) -> None:  # also what types forbid
    """A failure counts whatever is given as its reason, and is told in words as far as it goes."""
    balancer = Balancer(["a"])
    assert balancer.acquire().failure(reason)
    assert balancer.status()[0].health_reason == f"1 failure, the last: {words}"


def test_an_error_without_words_leaves_the_block() -> None:
    """The caller gets its own exception, not one from the attempt to describe it."""
    balancer = Balancer(["a"])
    with pytest.raises(WordlessError), balancer.acquire():
        raise WordlessError
    assert balancer.status()[0].health_reason == "1 failure, the last: WordlessError"


class Unreliable(HealthPolicy):
    """A policy that fails when it is asked about a success."""

    @property
    def probe_interval(self) -> float:
        return 10.0

    def next_status(self, health: NodeHealth, outcome: Outcome) -> HealthStatus:
        if outcome is Outcome.SUCCESS:
            raise RuntimeError("no opinion")
        return HealthStatus.UNHEALTHY


def test_a_failing_policy_does_not_keep_the_probe() -> None:
    """An error in a policy of the user's own must not leave the node without probes for ever."""
    clock = ManualClock()
    balancer = down_and_due(clock, health=HealthTracker(Unreliable(), clock))
    probe = balancer.acquire()
    with pytest.raises(RuntimeError, match="no opinion"):
        probe.success()
    clock.advance(10.0)
    assert in_flight(balancer) == 0
    assert balancer.acquire().failure()


def test_a_dropped_lease_waits_no_more_and_is_no_news() -> None:
    """Nobody waits for a lease that was collected, and how long it was waited for is not known."""
    clock, measure = ManualClock(), PeakEwma()
    balancer = Balancer(["a"], PowerOfTwoChoices(load=measure), clock=clock)
    with balancer.acquire():
        clock.advance(0.5)
    held = [balancer.acquire()]
    clock.advance(60.0)
    with pytest.warns(ResourceWarning, match="dropped"):
        held.clear()
    cell = measure.cell("a")
    assert (len(cell), measure.waiting(cell)) == (0, {})
    balancer.status()
    assert measure.cost(cell) == pytest.approx(0.5 * math.exp(-6.0))
