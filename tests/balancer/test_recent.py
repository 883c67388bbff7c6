"""Counts of the requests of the last minute that went well, and that failed."""

from __future__ import annotations

from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadwise import Balancer, Outcome
from loadwise.testing import ManualClock


def recent(balancer: Balancer[Any]) -> tuple[int, int]:
    """The successes and failures of the last minute, of all nodes."""
    statuses = balancer.status()
    return (
        sum(status.recent_successes for status in statuses),
        sum(status.recent_failures for status in statuses),
    )


def test_each_end_is_counted_for_what_it_was() -> None:
    """Successes and failures are, however they are told; what says nothing of the node is not."""
    balancer = Balancer(["a"], health=False, clock=ManualClock())
    balancer.acquire().success()
    with balancer.acquire():
        pass
    balancer.acquire().failure("refused")
    with pytest.raises(OSError, match="reset"), balancer.acquire():
        raise OSError("reset")
    balancer.acquire().failure("busy", 0.0)
    balancer.acquire().cancel()
    balancer.acquire().rate_limited(0.0)
    assert recent(balancer) == (2, 3)
    balancer.report("a", Outcome.SUCCESS)
    balancer.report("a", Outcome.SUCCESS, latency=0.1)
    balancer.report("a", Outcome.FAILURE)
    balancer.report("a", Outcome.FAILURE, latency=0.1)
    balancer.report("a", Outcome.CANCELLED)
    assert recent(balancer) == (4, 5)


def test_what_is_old_is_forgotten_though_nobody_looked() -> None:
    """After a minute and 10 seconds without requests nothing is recent."""
    clock = ManualClock()
    balancer = Balancer(["a"], clock=clock)
    for _ in range(7):
        balancer.acquire().success()
    clock.advance(59.9)
    assert recent(balancer) == (7, 0)
    clock.advance(10.2)
    assert recent(balancer) == (0, 0)
    balancer.acquire().success()
    assert recent(balancer) == (1, 0)


def test_what_ended_late_in_its_step_counts_as_long_as_it_is_recent() -> None:
    """A step is forgotten when its last result may be old, not when its first is."""
    clock = ManualClock()
    balancer = Balancer(["a"], clock=clock)
    balancer.acquire().success()
    clock.advance(9.5)
    balancer.acquire().failure()
    clock.advance(59.0)
    assert recent(balancer) == (1, 1)
    clock.advance(2.0)
    assert recent(balancer) == (0, 0)


def test_a_step_begins_once() -> None:
    """Of two threads that both find it due, the second finds it done."""
    balancer = Balancer(["a"], clock=ManualClock())
    (slot,) = balancer._fleet.view.slots
    balancer._reporter.roll(slot, 0.0)
    balancer._reporter.roll(slot, 0.0)
    assert len(slot.buckets) == 1


STEPS = st.one_of(
    st.floats(0.0, 1.0), st.floats(0.0, 20.0), st.sampled_from([10.0, 60.0, 70.0, 600.0])
)


@given(events=st.lists(st.tuples(STEPS, st.sampled_from(["success", "failure", "nothing"]))))
def test_all_of_a_minute_counts_and_nothing_older_than_70_seconds(
    events: list[tuple[float, str]],
) -> None:
    """Whatever happens when, and however long nothing does."""
    clock = ManualClock()
    balancer = Balancer(["a"], health=False, clock=clock)
    ends: dict[str, list[float]] = {"success": [], "failure": []}
    for step, what in events:
        clock.advance(step)
        if what != "nothing":
            lease = balancer.acquire()
            assert lease.success() if what == "success" else lease.failure()
            ends[what].append(clock())
        for number, times in zip(recent(balancer), ends.values(), strict=True):
            least = sum(clock() - at < 60.0 - 1e-6 for at in times)
            most = sum(clock() - at <= 70.0 + 1e-6 for at in times)
            assert least <= number <= most


def test_counts_are_exact_under_threads() -> None:
    """No result is lost while threads begin new buckets of the same node at once."""
    clock = ManualClock()
    balancer = Balancer(["a"], health=False, clock=clock)

    def work(number: int) -> None:
        for turn in range(500):
            if not number and turn % 50 == 0:
                clock.advance(5.0)
            lease = balancer.acquire()
            assert lease.failure() if turn % 5 == 0 else lease.success()

    threads = [Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert recent(balancer) == (1600, 400)


def test_nodes_without_requests_keep_nothing() -> None:
    """What is kept of a node begins with its first result, and is bounded."""
    clock = ManualClock()
    balancer = Balancer(["a", "b"], health=False, clock=clock)
    for _ in range(100):
        balancer.acquire(exclude=["b"]).success()
        clock.advance(10.0)
    first, second = balancer._fleet.view.slots
    assert len(first.buckets) == 8
    assert second.buckets == ()
