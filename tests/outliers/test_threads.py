"""Outlier detection among threads, members that come and go, and forks."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from threading import Barrier, Thread
from typing import Any

import pytest
from tests.balancer.test_forked_balancer import in_child
from tests.outliers.fleet import OutlierFleet

from loadwise import Balancer, HealthStatus, OutlierDetection, SlowShare, SuccessRate
from loadwise.testing import ManualClock

THREADS, REQUESTS = 8, 1500


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def together(work: Callable[[int], None]) -> None:
    """Have eight threads begin at once, and fail with what one of them raises."""
    barrier, raised = Barrier(THREADS), list[BaseException]()

    def run(number: int) -> None:
        try:
            barrier.wait(60)
            work(number)
        except BaseException as error:  # noqa: BLE001 - raised below
            raised.append(error)

    threads = [Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert raised == []


def test_all_results_are_counted_once() -> None:
    """What the sweeps of eight threads have taken is all that was reported, no more and no less."""
    clock, detection = ManualClock(), OutlierDetection(max_ejected=0.0, interval=1.0)
    balancer = Balancer(list("abcd"), outliers=detection, health=False, clock=clock)
    ejector = balancer._reporter.ejector
    assert ejector is not None
    taken: list[tuple[int, int]] = []

    class Counting(SuccessRate):
        def find(self, samples: Any, significance: float | None) -> Any:
            taken.append((sum(each.good for each in samples), sum(each.bad for each in samples)))
            return []

    counting = Counting()
    ejector._rules = ejector._rules._replace(
        success_rate=counting, failure_share=None, consecutive_failures=None
    )

    def work(number: int) -> None:
        for turn in range(REQUESTS):
            lease = balancer.acquire()
            assert lease.failure() if turn % 10 == 0 else lease.success()
            if number == 0 and turn % 20 == 0:
                clock.advance(1.0)

    together(work)
    clock.advance(1.0)
    assert detection.ejections == {}
    bad = THREADS * REQUESTS // 10
    assert (sum(good for good, _ in taken), sum(bad for _, bad in taken)) == (
        THREADS * REQUESTS - bad,
        bad,
    )
    assert len(taken) > 10


def test_ejections_and_health_agree_in_the_end() -> None:
    """Nodes are ejected and let back, removed and added by eight threads; nothing is left over."""
    names = [f"n{number}" for number in range(10)]
    clock = ManualClock()
    detection = OutlierDetection(
        interval=1.0,
        base_ejection=2.0,
        max_ejection=4.0,
        max_ejected=0.5,
        success_rate=SuccessRate(min_requests=5),
        slow_share=SlowShare(),
        significance=None,
        probe=False,
    )
    balancer = Balancer(names, outliers=detection, health=False, clock=clock)
    health = balancer._health
    assert health is not None

    def work(number: int) -> None:
        draw = random.Random(number)
        for turn in range(REQUESTS):
            lease = balancer.acquire()
            bad = draw.random() < (0.7 if lease.node in names[:3] else 0.05)
            assert lease.failure() if bad else lease.success()
            if number == 0 and turn % 10 == 0:
                clock.advance(0.5)
            if number == 1 and turn % 15 == 0:
                balancer.remove(names[turn % 10])
                balancer.add(names[turn % 10])

    together(work)
    out = set(detection.ejections)
    down = {each.id for each in balancer.status() if each.health is HealthStatus.UNHEALTHY}
    assert out == down
    assert len(out) <= 6
    for seconds in (1.0, 100.0):
        clock.advance(seconds)
        out = set(detection.ejections)
    assert out == set()
    assert {each.health for each in balancer.status()} == {HealthStatus.HEALTHY}
    assert {health.is_ejected(name) for name in names} == {False}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_goes_on() -> None:
    """Ejections last in the child as long as in the parent; counts begin at zero in it."""
    fleet = OutlierFleet("ab", significance=None, probe=False)
    fleet.load("a", bad=5)
    fleet.load("b", bad=4)

    def work() -> tuple[str, str, str, str]:
        seen = fleet.out
        fleet.load("b", bad=4)
        still = fleet.down
        fleet.at(30.0)
        back = fleet.down
        fleet.load("b", bad=5)
        return seen, still, back, fleet.down

    assert in_child(work) == ("a", "a", "", "b")
    assert fleet.out == fleet.down == "a"
    fleet.at(30.0)
    assert fleet.out == fleet.down == ""


def test_a_request_costs_the_same_in_a_fleet_of_any_size() -> None:
    """Neither a request between two sweeps nor a failure asks all members."""
    counts = {}
    for size in (10, 10_000):
        fleet = OutlierFleet("", slow_share=SlowShare())
        fleet.balancer.replace(range(size))
        fleet.at(10.0)
        fleet.balancer.acquire().success()
        called = 0

        def profile(_frame: object, event: str, _: object) -> None:
            nonlocal called
            called += event in {"call", "c_call"}

        sys.setprofile(profile)
        try:
            for _ in range(50):
                fleet.balancer.acquire().success()
                fleet.balancer.acquire().failure()
        finally:
            sys.setprofile(None)
        counts[size] = called
    assert counts[10_000] <= counts[10] * 1.5
