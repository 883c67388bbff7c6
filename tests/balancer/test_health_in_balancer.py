"""Health at work: who is down gets no traffic but one probe at a time, and says when."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from threading import Barrier, Thread

import pytest

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    HealthStatus,
    HealthTracker,
    Lease,
    NoNodeAvailable,
    Outcome,
    PeakEwma,
    PowerOfTwoChoices,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    RoundRobin,
)
from loadwise.testing import ManualClock


@pytest.fixture
def _eager_threads() -> Iterator[None]:
    """Have threads interrupt one another often."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def tracker(balancer: Balancer[str]) -> HealthTracker:
    """Return the balancer's tracker, which is there."""
    assert balancer.health is not None
    return balancer.health


def bring_down(balancer: Balancer[str], *ids: str) -> None:
    """Report failures until the nodes are UNHEALTHY."""
    for node in ids:
        for _ in range(3):
            tracker(balancer).report_failure(node, "status 500")
        assert tracker(balancer).status(node) is HealthStatus.UNHEALTHY


def health_of(balancer: Balancer[str], node: str) -> HealthStatus:
    """Return a member's state as the balancer shows it."""
    [found] = [status.health for status in balancer.status() if status.id == node]
    return found


def test_failures_of_requests_take_a_node_out_of_the_rotation() -> None:
    """The third failure in a row makes a node UNHEALTHY; from then on it gets nothing."""
    balancer = Balancer(["a", "b"], RoundRobin(), clock=ManualClock())
    states = []
    for _ in range(3):
        balancer.acquire().failure()
        balancer.acquire().success()
        states.append(health_of(balancer, "a"))
    assert states == [HealthStatus.HEALTHY, HealthStatus.DEGRADED, HealthStatus.UNHEALTHY]
    assert {balancer.pick() for _ in range(100)} == {"b"}
    assert {balancer.acquire().success() for _ in range(3)} == {True}
    assert [status.picks for status in balancer.status()] == [3, 106]


def test_three_neighbours_down_leave_equal_shares() -> None:
    """Round robin over 10 nodes with 3 neighbours down gives the other 7 the same, within 1."""
    nodes = [f"n{i}" for i in range(10)]
    balancer = Balancer(nodes, RoundRobin(), clock=ManualClock())
    bring_down(balancer, "n3", "n4", "n5")
    shares = Counter(balancer.pick() for _ in range(703))
    assert set(shares) == set(nodes) - {"n3", "n4", "n5"}
    assert max(shares.values()) - min(shares.values()) <= 1


def test_one_probe_at_a_time_then_on_trial_then_well() -> None:
    """After the interval one request goes to the node; its success leads back step by step."""
    clock = ManualClock()
    balancer = Balancer(["a", "b"], RoundRobin(), clock=clock)
    bring_down(balancer, "a")
    clock.advance(9.999)
    assert {balancer.pick() for _ in range(10)} == {"b"}
    clock.advance(0.001)
    leases = [balancer.acquire() for _ in range(20)]
    [probe] = [lease for lease in leases if lease.node == "a"]
    clock.advance(1000.0)
    assert {balancer.pick() for _ in range(20)} == {"b"}, "a probe under way does not lapse"
    assert probe.success()
    assert health_of(balancer, "a") is HealthStatus.RECOVERING
    trials = [balancer.acquire() for _ in range(2)]
    leases += trials
    trial = next(lease for lease in trials if lease.node == "a")
    assert trial.success()
    assert health_of(balancer, "a") is HealthStatus.HEALTHY
    for lease in leases:
        lease.cancel()


def test_a_failed_probe_starts_the_wait_anew() -> None:
    """The next probe comes an interval after the failure of the last."""
    clock = ManualClock()
    balancer = Balancer(["a"], clock=clock, panic_threshold=None)
    bring_down(balancer, "a")
    for _ in range(3):
        clock.advance(10.0)
        probe = balancer.acquire()
        clock.advance(4.0)
        assert probe.failure()
        assert balancer.status()[0].next_probe == 10.0
        with pytest.raises(NoNodeAvailable) as caught:
            balancer.acquire()
        assert caught.value.retry_after == 10.0


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (Lease.cancel, Outcome.CANCELLED),
        (lambda lease: lease.rate_limited(0), Outcome.RATE_LIMITED),
    ],
    ids=["cancelled", "rate-limited"],
)
def test_a_probe_that_tells_nothing_is_free_again(
    end: Callable[[Lease[str]], object], outcome: Outcome
) -> None:
    """A probe that was cancelled or rate-limited frees the probe and changes no state."""
    clock = ManualClock()
    balancer = Balancer(["a"], clock=clock, panic_threshold=None)
    bring_down(balancer, "a")
    before = tracker(balancer).health("a")
    clock.advance(10.0)
    for _ in range(3):
        probe = balancer.acquire()
        with pytest.raises(NoNodeAvailable):
            balancer.acquire()
        assert end(probe)
        assert probe.outcome is outcome
        assert tracker(balancer).health("a") == before


def test_a_pick_takes_the_probe_and_it_lapses() -> None:
    """Who merely picks reports by itself; if it does not, the probe lapses after an interval."""
    clock = ManualClock()
    balancer = Balancer(["a"], clock=clock, panic_threshold=None)
    bring_down(balancer, "a")
    clock.advance(10.0)
    assert balancer.pick() == "a"
    with pytest.raises(NoNodeAvailable):
        balancer.pick()
    clock.advance(10.0)
    assert balancer.pick() == "a"
    tracker(balancer).report_success("a")
    assert health_of(balancer, "a") is HealthStatus.RECOVERING


@pytest.mark.usefixtures("_eager_threads")
def test_one_probe_under_threads() -> None:
    """However many threads ask at once, exactly one is given the probe, time after time."""
    threads, rounds = 8, 150
    clock = ManualClock()
    balancer = Balancer(["down", "up"], RoundRobin(), clock=clock)
    bring_down(balancer, "down")
    barrier = Barrier(threads + 1, timeout=30)
    leases: list[Lease[str]] = []

    def work() -> None:
        for _ in range(rounds):
            barrier.wait()
            leases.extend(balancer.acquire() for _ in range(10))
            barrier.wait()

    workers = [Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    probes = []
    for _ in range(rounds):
        clock.advance(10.0)
        barrier.wait()
        barrier.wait()
        probes.append(sum(lease.node == "down" for lease in leases))
        for lease in leases:
            assert lease.cancel() if lease.node == "up" else lease.failure()
        leases.clear()
    for worker in workers:
        worker.join(timeout=30)
    assert probes == [1] * rounds
    assert [status.in_flight for status in balancer.status()] == [0, 0]


@pytest.mark.parametrize("as_lease", [True, False])
def test_a_wrong_cost_gives_the_probe_back(as_lease: bool) -> None:  # noqa: FBT001 - from pytest
    """A request refused for a wrong argument must not take the node's only probe with it."""
    clock = ManualClock()
    quota = QuotaTracker(clock)
    quota.register("a", QuotaConfig([QuotaDimension("rpm", limit=100)]))
    balancer = Balancer(["a"], quota=quota, clock=clock, panic_threshold=None)
    bring_down(balancer, "a")
    clock.advance(10.0)
    ask = balancer.acquire if as_lease else balancer.pick
    with pytest.raises(ValueError, match="no quota dimension 'rmp'; did you mean 'rpm'"):
        ask(cost={"rmp": 1})
    assert balancer.acquire(cost={"rpm": 1}).success()


def test_a_refused_cost_gives_the_probe_back() -> None:
    """A node without room for this request may still be probed by a smaller one."""
    clock = ManualClock()
    quota = QuotaTracker(clock)
    quota.register("a", QuotaConfig([QuotaDimension("tpm", limit=100)]))
    balancer = Balancer(["a"], quota=quota, clock=clock, panic_threshold=None)
    bring_down(balancer, "a")
    clock.advance(10.0)
    quota.record_usage("a", {"tpm": 60})
    with pytest.raises(NoNodeAvailable) as caught:
        balancer.acquire(cost={"tpm": 50})
    assert caught.value.reason == "quota"
    assert balancer.acquire(cost={"tpm": 40}).success()


@pytest.mark.parametrize("late", [Lease.success, Lease.failure])
def test_old_news_does_not_change_who_is_down(late: Callable[[Lease[str]], object]) -> None:
    """A request begun before its node went down neither lets it back nor prolongs its wait."""
    clock = ManualClock()
    balancer = Balancer(["a"], clock=clock, panic_threshold=None)
    old = balancer.acquire()
    clock.advance(1.0)
    for _ in range(3):
        balancer.acquire().failure()
    before = tracker(balancer).health("a")
    assert before.status is HealthStatus.UNHEALTHY
    clock.advance(4.0)
    assert late(old)
    assert tracker(balancer).health("a") == before
    clock.advance(6.0)
    assert balancer.acquire().success()


def test_a_rate_limit_sits_out_and_leaves_health_alone() -> None:
    """A node that answered 429 with 5 s gets nothing for 5 s, and is as healthy as before."""
    clock = ManualClock()
    balancer = Balancer(["a", "b"], RoundRobin(), clock=clock)
    lease = balancer.acquire()
    assert lease.node == "a"
    assert lease.rate_limited(5)
    assert tracker(balancer).snapshot() == {}
    clock.advance(4.999)
    assert {balancer.pick() for _ in range(10)} == {"b"}
    assert balancer.explain().ineligible == {"a": "rate_limited"}
    clock.advance(0.001)
    assert {balancer.pick() for _ in range(2)} == {"a", "b"}


def test_a_rate_limit_without_a_time_is_a_second() -> None:
    """A node that did not say how long is on cooldown for 1 s; a longer one is not cut short."""
    clock = ManualClock()
    balancer = Balancer(["a"], clock=clock, panic_threshold=None)
    leases = [balancer.acquire() for _ in range(2)]
    leases[0].rate_limited()
    with pytest.raises(NoNodeAvailable) as caught:
        balancer.acquire()
    assert caught.value.retry_after == 1.0
    clock.advance(0.5)
    leases[1].rate_limited(0.1)
    clock.advance(0.4)
    with pytest.raises(NoNodeAvailable):
        balancer.acquire()
    clock.advance(0.1)
    assert balancer.pick() == "a"


def test_without_health_nothing_is_ever_down() -> None:
    """``health=False`` keeps sending to a node that fails."""
    balancer = Balancer(["a"], health=False)
    for _ in range(20):
        balancer.acquire().failure()
    assert balancer.health is None
    assert balancer.status()[0].health is HealthStatus.HEALTHY


def test_a_shared_tracker_is_heeded_at_once() -> None:
    """What one balancer learns, another with the same tracker acts upon at its next pick."""
    clock = ManualClock()
    shared = HealthTracker(ConsecutiveFailurePolicy(failure_threshold=1), clock)
    first: Balancer[str] = Balancer(["a", "b"], RoundRobin(), health=shared)
    second: Balancer[str] = Balancer(["b", "a"], RoundRobin(), health=shared)
    assert {second.pick(), second.pick()} == {"a", "b"}
    assert first.acquire().failure()
    assert {second.pick() for _ in range(6)} == {"b"}


def fleet_of_every_kind() -> tuple[ManualClock, Balancer[str]]:
    """Return a balancer whose nodes are each unavailable for a reason of their own."""
    clock = ManualClock(1000.0)
    quota = QuotaTracker(clock)
    for node in "abcdefg":
        quota.register(node, QuotaConfig([QuotaDimension("rpm", limit=10, window=60.0)]))
    balancer = Balancer(
        list("abcdefg"), quota=quota, clock=clock, name="search", where=lambda node: node != "c"
    )
    bring_down(balancer, "a", "b")
    balancer.drain("d")
    clock.advance(2.0)
    quota.record_usage("e", {"rpm": 10})
    quota.mark_exhausted("f", 30.0)
    return clock, balancer


def test_each_reason_is_counted() -> None:
    """The error counts every member once, by what ruled it out, and tells the earliest return."""
    _, balancer = fleet_of_every_kind()
    with pytest.raises(NoNodeAvailable) as caught:
        balancer.acquire(exclude=["g"])
    error = caught.value
    assert dict(error.reasons) == {
        "unhealthy": 2,
        "filtered": 1,
        "drained": 1,
        "quota": 1,
        "rate_limited": 1,
        "excluded": 1,
    }
    assert (error.balancer, error.total, error.reason) == ("search", 7, "unhealthy")
    assert error.retry_after == 8.0
    for part in ("'search'", "of 7 nodes", "2 unhealthy", "1 rate limited", "retry after 8 s"):
        assert part in str(error)


def test_retry_after_is_when_the_next_request_succeeds() -> None:
    """At ``retry_after`` seconds from the error, and not before, there is a node again."""
    clock, balancer = fleet_of_every_kind()
    balancer.remove("g")

    def rest_all() -> tuple[set[str], float]:
        nodes: set[str] = set()
        for _ in range(7):
            try:
                lease = balancer.acquire()
            except NoNodeAvailable as error:
                return nodes, error.retry_after or 0.0
            nodes.add(lease.node)
            lease.rate_limited(1000.0)
        raise AssertionError("a node that is on cooldown was picked")

    found = []
    nodes, wait = rest_all()
    assert nodes == set()
    for _ in range(4):
        clock.advance(wait - 0.001)
        nodes, still = rest_all()
        assert (nodes, round(still, 6)) == (set(), 0.001)
        clock.advance(0.001)
        before = wait
        nodes, wait = rest_all()
        found.append((round(before, 3), nodes))
    assert found == [(8.0, {"a", "b"}), (22.0, {"f"}), (30.0, {"e"}), (948.0, {"a", "b"})]


@pytest.mark.parametrize(
    ("cost", "expected"), [({"tpm": 1}, 30.0), ({"tpm": 6}, 60.0), ({"tpm": 11}, None)]
)
def test_retry_after_waits_for_all_that_keeps_a_node(
    cost: dict[str, float], expected: float | None
) -> None:
    """A node that is down and on cooldown, or lacks quota, is back when the last of it is over."""
    clock = ManualClock()
    quota = QuotaTracker(clock)
    quota.register("a", QuotaConfig([QuotaDimension("tpm", limit=10, window=60.0)]))
    quota.record_usage("a", {"tpm": 5})
    quota.mark_exhausted("a", 30.0)
    balancer = Balancer(["a"], quota=quota, clock=clock, panic_threshold=None)
    bring_down(balancer, "a")
    with pytest.raises(NoNodeAvailable) as caught:
        balancer.pick(cost=cost)
    assert (caught.value.reason, caught.value.retry_after) == ("unhealthy", expected)
    if expected is not None:
        clock.advance(expected)
        assert balancer.pick(cost=cost) == "a"


def test_why_a_node_sits_out_is_told_as_of_now() -> None:
    """A rate limit may begin and end while quota is used up; the error says what holds now."""
    clock = ManualClock()
    quota = QuotaTracker(clock)
    quota.register("a", QuotaConfig([QuotaDimension("rpm", limit=1, window=60.0)]))
    balancer = Balancer(["a"], quota=quota, clock=clock, panic_threshold=None)
    quota.record_usage("a", {"rpm": 1})

    def reason() -> str:
        with pytest.raises(NoNodeAvailable) as caught:
            balancer.pick()
        assert balancer.explain().ineligible == {"a": caught.value.reason}
        return caught.value.reason

    assert reason() == "quota"
    quota.mark_exhausted("a", 30.0)
    assert reason() == "rate_limited"
    clock.advance(30.0)
    assert reason() == "quota"


@pytest.mark.parametrize(
    ("nodes", "keywords", "reason", "text"),
    [
        ([], {}, "empty", "it has no nodes"),
        (["a", "b"], {"exclude": ["a", "b"]}, "excluded", "of 2 nodes 2 excluded"),
        (["a", "b"], {"where": lambda _: False}, "filtered", "of 2 nodes 2 filtered"),
    ],
)
def test_reasons_that_time_does_not_mend(
    nodes: list[str], keywords: dict[str, object], reason: str, text: str
) -> None:
    """No node, filtered and excluded nodes: waiting does not help, so there is no retry-after."""
    balancer = Balancer(nodes, name="x")
    with pytest.raises(NoNodeAvailable, match=text) as caught:
        balancer.acquire(**keywords)  # type: ignore[arg-type]  # as parametrised
    assert (caught.value.reason, caught.value.retry_after) == (reason, None)


def test_a_probe_under_way_has_no_known_end() -> None:
    """When all nodes are down and being probed, nobody knows when one is back."""
    clock = ManualClock()
    balancer = Balancer(["a"], clock=clock, panic_threshold=None)
    bring_down(balancer, "a")
    clock.advance(10.0)
    probe = balancer.acquire()
    with pytest.raises(NoNodeAvailable) as caught:
        balancer.pick()
    assert (caught.value.reason, caught.value.retry_after) == ("unhealthy", None)
    probe.cancel()


def test_a_due_probe_is_not_starved_by_the_cost_of_failures() -> None:
    """Under peak EWMA a node that failed is soon chosen for its probe, and for its second trial.

    Of 5 nodes, two drawn: that 60 draws miss one of them has a chance of 0.6^60, below 10^-13.
    """
    clock = ManualClock()
    strategy: PowerOfTwoChoices[str] = PowerOfTwoChoices(load=PeakEwma(), rng=random.Random(5))
    health = HealthTracker(ConsecutiveFailurePolicy(failure_threshold=2), clock)
    balancer = Balancer(list("abcde"), strategy, health=health)
    for _ in range(300):
        with balancer.acquire() as lease:
            clock.advance(0.01)
            if lease.node == "c":
                lease.failure()
    assert health.status("c") is HealthStatus.UNHEALTHY
    clock.advance(10.0)
    for _ in range(60):
        with balancer.acquire():
            clock.advance(0.01)
    assert health.status("c") is HealthStatus.HEALTHY
