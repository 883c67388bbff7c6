"""A forked child begins with nothing in flight and no lock held, and leaves the parent alone."""

from __future__ import annotations

import os
import pickle
import select
import signal
import warnings
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import pytest

from loadwise import (
    Balancer,
    ConsistentHash,
    HealthStatus,
    InFlight,
    Lease,
    LeastLoad,
    NoopCollector,
    PeakEwma,
    PowerOfTwoChoices,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    RoundRobin,
    Strategy,
)
from loadwise.testing import ManualClock

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

MANY = 40
"""Balancers per test: in which order their parts are reset in a child is left to chance."""


def in_child(work: Callable[[], object], seconds: float = 10.0) -> Any:
    """Run ``work`` in a forked child and return what it returns; fail if it hangs or raises."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Newer Pythons warn of forks beside threads, which is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            answer: tuple[bool, object] = (True, work())
        except BaseException as error:  # noqa: BLE001 - told to the parent
            answer = (False, repr(error))
        os.write(writing, pickle.dumps(answer))
        os._exit(0)
    os.close(writing)
    try:
        ready, _, _ = select.select([reading], [], [], seconds)
        if not ready:
            os.kill(child, signal.SIGKILL)
            pytest.fail(f"the child hangs: no answer after {seconds} s")
        data = b""
        while chunk := os.read(reading, 65536):
            data += chunk
    finally:
        os.close(reading)
        os.waitpid(child, 0)
    worked, result = pickle.loads(data)  # noqa: S301 - written by this very program
    assert worked, f"the child raised {result}"
    return result


def counts(balancer: Balancer[Any]) -> list[int]:
    """Return the requests in flight, node by node."""
    return [status.in_flight for status in balancer.status()]


STRATEGIES: list[Callable[[], Strategy[str]]] = [
    lambda: LeastLoad(load=InFlight()),
    lambda: LeastLoad(load=PeakEwma()),
    lambda: PowerOfTwoChoices(load=InFlight()),
    RoundRobin,
]


@pytest.mark.parametrize("make", STRATEGIES)
def test_a_child_counts_its_own_requests(make: Callable[[], Strategy[str]]) -> None:
    """What the parent has in flight is not in flight in the child; both count on correctly."""
    balancers = [Balancer(["a", "b"], make()) for _ in range(MANY)]
    leases = [balancer.acquire() for balancer in balancers for _ in range(6)]

    def child() -> tuple[set[int], set[int], set[int], list[bool], set[int]]:
        before = {sum(counts(balancer)) for balancer in balancers}
        own = [balancer.acquire() for balancer in balancers for _ in range(2)]
        during = {max(counts(balancer)) for balancer in balancers}
        ended = [lease.failure() for lease in leases]
        after = {sum(counts(balancer)) for balancer in balancers}
        for lease in own:
            lease.success()
        return before, during, after, ended, {sum(counts(balancer)) for balancer in balancers}

    try:
        before, during, after, ended, last = in_child(child)
        in_parent = {sum(counts(balancer)) for balancer in balancers}
    finally:
        ended_here = [lease.success() for lease in leases]
    assert before == {0}
    assert during == {1}, "two requests on two nodes: the strategy reads what the balancer counts"
    assert after == {2}, "the parent's leases, ended in the child, are nobody's requests there"
    assert ended == [True] * len(leases)
    assert last == {0}
    assert in_parent == {6}
    assert ended_here == [True] * len(leases)
    assert {sum(counts(balancer)) for balancer in balancers} == {0}


def test_a_parents_lease_in_the_child_says_nothing_of_the_node() -> None:
    """A failure of the parent's request, ended in the child, is not the child's experience."""
    balancer = Balancer(["a"], clock=ManualClock())
    leases = [balancer.acquire() for _ in range(5)]

    def child() -> tuple[HealthStatus, list[int]]:
        for lease in leases:
            lease.failure()
        assert balancer.health is not None
        return balancer.health.status("a"), counts(balancer)

    assert in_child(child) == (HealthStatus.HEALTHY, [0])
    for lease in leases:
        lease.cancel()


def test_a_dropped_lease_of_the_parent() -> None:
    """The parent's lease, collected in the child, warns there and changes no count."""
    balancer = Balancer(["a"])
    leases = [balancer.acquire()]

    def child() -> list[int]:
        with pytest.warns(ResourceWarning, match="dropped"):
            leases.clear()
        balancer.acquire().success()
        return counts(balancer)

    assert in_child(child) == [0]
    assert counts(balancer) == [1]
    assert leases[0].cancel()


def test_locks_held_at_the_fork_are_free_in_the_child() -> None:
    """Whatever lock some thread of the parent holds, the child works."""
    balancers: list[Balancer[Any]] = []
    strategies: list[Any] = []
    for number in range(MANY):
        measure = PeakEwma()
        strategy: Any = [
            PowerOfTwoChoices(load=measure),
            RoundRobin(),
            ConsistentHash(virtual_nodes=4),
            LeastLoad(load=measure),
        ][number % 4]
        quota = QuotaTracker() if number % 2 else None
        balancers.append(Balancer(["a", "b"], strategy, quota=quota))
        strategies += [strategy, measure]
    owners: list[Any] = [
        *strategies,
        *(balancer.health for balancer in balancers),
        *(balancer._quota_source for balancer in balancers),
        *(balancer._fleet for balancer in balancers),
    ]

    def child() -> bool:
        for balancer in balancers:
            for end in (Lease.success, Lease.failure, Lease.rate_limited, Lease.cancel):
                end(balancer.acquire(hash_key="k"))
                balancer.replace(["a", "b"])
            balancer.add("c")
            balancer.drain("a")
            balancer.explain(hash_key="k")
            balancer.remove("a")
            balancer.pick(hash_key="k")
            assert counts(balancer) == [0, 0]
        return True

    for owner in owners:
        owner._lock.acquire()
    try:
        assert in_child(child)
    finally:
        for owner in owners:
            owner._lock.release()


def test_forks_amid_traffic() -> None:
    """Forks while eight threads send requests give children that work, one after another."""
    balancer = Balancer([f"n{i}" for i in range(5)], PowerOfTwoChoices(load=PeakEwma()))
    over = Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while not over.is_set():
                with balancer.acquire():
                    pass
                balancer.acquire().rate_limited(0)
        except Exception as error:  # noqa: BLE001 - reported by the thread that started this
            errors.append(error)

    def child() -> list[int]:
        for _ in range(50):
            balancer.acquire().failure()
            balancer.replace([*balancer.nodes[1:], balancer.nodes[0]])
            balancer.acquire().success()
        return counts(balancer)

    workers = [Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(5):
            assert in_child(child) == [0] * 5
    finally:
        over.set()
        for worker in workers:
            worker.join(timeout=30)
    assert errors == []
    assert counts(balancer) == [0] * 5


def test_what_a_child_inherits() -> None:
    """Membership, drains, health, latencies, cooldowns and quotas are known in the child, too."""
    clock = ManualClock()
    quota = QuotaTracker(clock)
    quota.register("quota", QuotaConfig([QuotaDimension("rpm", limit=5)]))
    balancer = Balancer(
        ["well", "down", "drained", "paused", "quota"],
        RoundRobin(),
        quota=quota,
        clock=clock,
    )
    assert balancer.health is not None
    for _ in range(3):
        balancer.health.report_failure("down")
    quota.mark_exhausted("paused", 30.0)
    balancer.drain("drained")
    for _ in range(5):
        balancer.acquire(exclude=["well"]).success()
    lease = balancer.acquire()
    clock.advance(2.0)
    lease.success()

    def child() -> tuple[dict[object, str], object, float | None]:
        told = balancer.explain()
        [well] = [status for status in balancer.status() if status.id == "well"]
        return dict(told.ineligible), told.choice, well.latency

    assert in_child(child) == (
        {"down": "unhealthy", "drained": "drained", "paused": "rate_limited", "quota": "quota"},
        "well",
        2.0,
    )


def test_the_parents_probe_does_not_bind_the_child() -> None:
    """A probe that the parent has under way is not the child's: it may send one of its own."""
    clock = ManualClock()
    balancer = Balancer(["a"], clock=clock)
    assert balancer.health is not None
    for _ in range(3):
        balancer.health.report_failure("a")
    clock.advance(10.0)
    probe = balancer.acquire()

    def child() -> tuple[bool, HealthStatus]:
        done = balancer.acquire().success()
        assert balancer.health is not None
        return done, balancer.health.status("a")

    assert in_child(child) == (True, HealthStatus.RECOVERING)
    assert balancer.health.status("a") is HealthStatus.UNHEALTHY
    assert probe.success()


def test_a_child_tells_of_a_panic_that_nobody_had_noticed_at_the_fork() -> None:
    """The parent's next pick tells the parent's collector, the child's must tell the child's."""
    told: list[bool] = []

    class Told(NoopCollector):
        def on_panic(self, entered: bool) -> None:  # noqa: FBT001
            told.append(entered)

    balancers = [Balancer(["a"], metrics=Told(), clock=ManualClock()) for _ in range(MANY)]
    for balancer in balancers:
        assert balancer.health is not None
        for _ in range(3):
            balancer.health.report_failure("a")
    picks = [balancer.pick for balancer in balancers]
    assert in_child(lambda: ([pick() for pick in picks], told)[1]) == [True] * MANY
    for pick in picks:
        pick()
    assert told == [True] * MANY
    # Told before the fork, it is not told again.
    assert in_child(lambda: ([pick() for pick in picks], told)[1]) == [True] * MANY


def test_what_the_parent_counted_of_late_is_not_the_childs() -> None:
    """The child counts its own requests; a cooldown goes on there, with its reason."""
    clock = ManualClock()
    balancer = Balancer(["a", "b"], RoundRobin(start=0), clock=clock)
    balancer.acquire().success()
    balancer.acquire().failure("busy", 60.0)
    clock.advance(1.0)

    def work() -> tuple[object, ...]:
        first, second = balancer.status()
        assert second.cooldown is not None
        before = (first.recent_successes, second.recent_failures, second.cooldown.reason)
        balancer.acquire().success()
        first, second = balancer.status()
        return (*before, first.recent_successes, first.state_seconds, balancer.lift("b"))

    told = in_child(work)
    assert told == (0, 0, "failure: busy, retry after 60 s", 1, 1.0, True)
    assert [status.recent_successes for status in balancer.status()] == [1, 0]
    assert balancer.status()[1].cooldown is not None


def test_a_child_may_be_made_while_a_bucket_or_a_cooldown_begins() -> None:
    """Locks that another thread held at the fork are not held in the child."""
    balancer = Balancer(["a"], clock=ManualClock())
    held, done = Event(), Event()

    def hold() -> None:
        with balancer._reporter._rolling, balancer._cooldowns._lock:
            held.set()
            done.wait(20)

    thread = Thread(target=hold)
    thread.start()
    try:
        assert held.wait(20)

        def work() -> tuple[int, bool]:
            balancer.acquire().success()
            balancer.acquire().rate_limited(60.0)
            return balancer.status()[0].recent_successes, balancer.lift("a")

        assert in_child(work) == (1, True)
    finally:
        done.set()
        thread.join(20)
