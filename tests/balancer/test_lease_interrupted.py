"""A lease interrupted at any place leaves nothing behind: no slot, no probe, no entry."""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable

import pytest
from tests.balancer.interrupting import strike_at
from tests.balancer.leases import both_loads, in_flight, peak_ewma
from tests.compiled import COMPILED

from loadwise import (
    Balancer,
    HealthStatus,
    HealthTracker,
    Lease,
    LoadMeasure,
    Outcome,
    PeakEwma,
    QuotaTracker,
    Strategy,
)
from loadwise.testing import ManualClock


class Interrupting:
    """A clock and a collector in whose midst Ctrl-C strikes."""

    def __init__(self) -> None:
        self.strikes = False
        self.now = 0.0

    def __call__(self) -> float:
        self._strike()
        return self.now

    def on_selection(self, node_id: Hashable, strategy: str) -> None:
        self._strike()

    def on_health_change(self, node_id: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        self._strike()

    def on_outcome(self, node_id: Hashable, outcome: Outcome, latency: float) -> None:
        self._strike()

    def on_unavailable(self, reason: str) -> None:
        self._strike()

    def _strike(self) -> None:
        if self.strikes:
            raise KeyboardInterrupt


@pytest.mark.parametrize("place", ["clock", "metrics"])
def test_interrupted_while_acquiring(place: str) -> None:
    """Ctrl-C between the pick and the lease leaves nothing counted."""
    interrupting = Interrupting()
    balancer = Balancer(
        ["a"],
        clock=interrupting if place == "clock" else ManualClock(),
        metrics=interrupting if place == "metrics" else None,
    )
    interrupting.strikes = True
    with pytest.raises(KeyboardInterrupt):
        balancer.acquire()
    interrupting.strikes = False
    balancer.acquire().success()
    assert in_flight(balancer) == 0


@pytest.mark.skipif(COMPILED, reason="compiled code cannot be interrupted there, nor profiled")
@pytest.mark.filterwarnings("ignore:a lease on node:ResourceWarning")
def test_interrupted_anywhere() -> None:
    """Wherever Ctrl-C strikes in a request, its slot is given back when the lease is collected.

    Python runs signal handlers when a function begins and after a call of a built-in one. The
    profiler is called at the same places, so it can strike at each of them in turn.
    """
    balancer = Balancer(["a"])
    strikes = 0
    while strike_at(strikes, lambda: balancer.acquire().success()):
        strikes += 1
        assert in_flight(balancer) == 0, f"leaked by strike {strikes}"
    assert strikes > 5


@pytest.mark.skipif(COMPILED, reason="compiled code cannot be interrupted there, nor profiled")
@pytest.mark.filterwarnings("ignore:a lease on node:ResourceWarning")
@pytest.mark.parametrize("make", [peak_ewma, both_loads])
@pytest.mark.parametrize("end", [Lease.success, Lease.failure, Lease.cancel])
@pytest.mark.parametrize("streamed", [False, True])
def test_interrupted_anywhere_nothing_is_left_waiting(
    make: Callable[[], tuple[Strategy[str], tuple[LoadMeasure, ...]]],
    end: Callable[[Lease[str]], bool],
    streamed: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    """Wherever Ctrl-C strikes, no measure counts a request that is no more, nor has it age."""
    strategy, measures = make()
    balancer = Balancer(["a"], strategy, health=False)

    def request() -> None:
        lease = balancer.acquire()
        if streamed:
            lease.first_byte()
        end(lease)

    strikes, struck = 0, True
    while struck:
        other = balancer.acquire()
        struck = strike_at(strikes, request)
        for measure in measures:
            cell = measure.cell("a")
            assert len(cell) == 1, f"leaked by strike {strikes}"
            if isinstance(measure, PeakEwma):
                assert list(measure.waiting(cell)) == [id(other)], f"left by strike {strikes}"
        other.success()
        strikes += 1
    assert strikes > 8


@pytest.mark.skipif(COMPILED, reason="compiled code cannot be interrupted there, nor profiled")
@pytest.mark.filterwarnings("ignore:a lease on node:ResourceWarning")
def test_ctrl_c_in_a_loop_of_attempts_leaks_nothing() -> None:
    """Wherever it strikes while failures are held or reported, slots are given back.

    No node is blamed twice.
    """
    strikes, struck = 0, True
    while struck:
        balancer = Balancer(["a", "b", "c"], hung_after=1.0, failures=OSError)

        def request() -> None:
            for attempt in balancer.attempts(3):  # noqa: B023 - used at once
                with attempt as lease:
                    if attempt.number == 2:
                        lease.failure("status 503", retry_after=1.0)
                    elif attempt.number == 1:
                        raise OSError

        gc.disable()  # what it calls is none of this
        try:
            struck = strike_at(strikes, request)
        finally:
            gc.enable()
        strikes += 1
        assert in_flight(balancer) == 0, f"leaked by strike {strikes}"
        assert balancer.health is not None
        known = balancer.health.snapshot().values()
        assert all(health.consecutive_failures == 1 for health in known)
        assert len(known) <= 2
    assert strikes > 50
    assert len(known) == 2


@pytest.mark.skipif(COMPILED, reason="compiled code cannot be interrupted there, nor profiled")
@pytest.mark.filterwarnings("ignore:a lease on node:ResourceWarning")
@pytest.mark.parametrize("with_quota", [False, True])
@pytest.mark.parametrize("after_a_drop", [False, True])
def test_a_probe_interrupted_anywhere_is_free_again(
    with_quota: bool,  # noqa: FBT001 - a parameter of pytest
    after_a_drop: bool,  # noqa: FBT001
) -> None:
    """Wherever Ctrl-C strikes in the request that is a probe, the node may be probed again."""
    clock = ManualClock()
    quota = QuotaTracker(clock) if with_quota else None
    strikes, struck = 0, True
    while struck:
        health = HealthTracker(clock=clock)
        balancer = Balancer(["a"], health=health, quota=quota)
        for _ in range(3):
            health.report_failure("a")
        clock.advance(10.0)
        if after_a_drop:
            balancer.acquire()
        struck = strike_at(strikes, lambda: balancer.acquire().failure())  # noqa: B023 - used at once
        clock.advance(10.0)
        assert balancer.acquire().success(), f"kept by strike {strikes}"
        assert in_flight(balancer) == 0, f"leaked by strike {strikes}"
        strikes += 1
    assert strikes > 5


@pytest.mark.parametrize("end", ["success", "failure"])
def test_a_probe_whose_end_is_interrupted_is_free_again(end: str) -> None:
    """Ctrl-C or an error at the end of a probe must not leave the node without probes for ever."""
    interrupting = Interrupting()
    health = HealthTracker(clock=interrupting)
    for _ in range(3):
        health.report_failure("a")
    interrupting.now = 10.0
    balancer = Balancer(["a"], health=health)
    probe = balancer.acquire()
    interrupting.strikes = True
    with pytest.raises(KeyboardInterrupt):
        getattr(probe, end)()
    interrupting.strikes = False
    assert balancer.acquire().success()
