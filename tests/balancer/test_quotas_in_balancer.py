"""Quotas at work: reserved at acquire in all dimensions or none, settled with the true cost."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from threading import Barrier, Thread
from typing import Any

import pytest

from loadwise import (
    Balancer,
    ConsistentHash,
    NoNodeAvailable,
    PowerOfTwoChoices,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    RoundRobin,
    Strategy,
)
from loadwise.testing import ManualClock

IDS = ("a", "b", "c")


def with_limits(
    clock: ManualClock,
    rpm: int = 10,
    tpm: int = 1000,
    strategy: Strategy[str] | None = None,
) -> Balancer[str]:
    """Return a balancer of three nodes, each with requests and tokens per minute."""
    quota = QuotaTracker(clock)
    for node in IDS:
        dimensions = [
            QuotaDimension("rpm", limit=rpm, window=60.0),
            QuotaDimension("tpm", limit=tpm, window=60.0, default_cost=0),
        ]
        quota.register(node, QuotaConfig(dimensions))
    return Balancer(IDS, strategy or RoundRobin(), quota=quota, clock=clock)


def left(balancer: Balancer[str]) -> list[tuple[float, float]]:
    """Return what is left of requests and tokens, node by node."""
    return [
        (status.quota_remaining["rpm"], status.quota_remaining["tpm"])
        for status in balancer.status()
    ]


@pytest.fixture
def _eager_threads() -> Iterator[None]:
    """Have threads interrupt one another often."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_eager_threads")
@pytest.mark.parametrize("threads", [1, 8])
def test_never_more_than_the_limit(threads: int) -> None:
    """Of many requests at once, exactly the sum of the limits is let through, from each its own."""
    clock = ManualClock()
    balancer = with_limits(clock, rpm=400)
    barrier = Barrier(threads, timeout=20)
    done: list[str] = []
    refused: list[float | None] = []

    def work() -> None:
        barrier.wait()
        for _ in range(1600 // threads):
            try:
                with balancer.acquire() as lease:
                    done.append(lease.node)
            except NoNodeAvailable as error:
                refused.append(error.retry_after)

    for window in (1, 2):
        workers = [Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(timeout=30)
        assert Counter(done) == dict.fromkeys(IDS, 400 * window)
        assert refused == [60.0] * 400 * window
        clock.advance(60.0)


def test_all_dimensions_or_none() -> None:
    """A request that fits in one dimension and not in the other charges neither."""
    balancer = with_limits(ManualClock())
    with pytest.raises(NoNodeAvailable) as caught:
        balancer.acquire(cost={"tpm": 1001})
    assert dict(caught.value.reasons) == {"quota": 3}
    assert caught.value.retry_after is None, "it will never fit"
    assert left(balancer) == [(10, 1000)] * 3


@pytest.mark.parametrize(
    "strategy", [RoundRobin(), ConsistentHash(), PowerOfTwoChoices(rng=random.Random(1), load=len)]
)
def test_a_refused_node_leads_to_another(strategy: Strategy[str]) -> None:
    """Where the first choice has no room for this cost, a node that has is found."""
    balancer = with_limits(ManualClock(), strategy=strategy)
    assert balancer.quota is not None
    balancer.quota.record_usage("a", {"tpm": 600})
    balancer.quota.record_usage("b", {"tpm": 600})
    for _ in range(2):
        lease = balancer.acquire(hash_key="user-42", cost={"tpm": 500})
        assert lease.node == "c"
        lease.success()
    with pytest.raises(NoNodeAvailable):
        balancer.acquire(hash_key="user-42", cost={"tpm": 500})
    assert balancer.acquire(hash_key="user-42", cost={"tpm": 400}).success()
    assert sum(requests for requests, _ in left(balancer)) == 27


def test_settle_frees_and_charges() -> None:
    """What was reserved too much is free at once; what was used beyond it counts all the same."""
    balancer = with_limits(ManualClock())
    leases = {lease.node: lease for lease in (balancer.acquire(cost={"tpm": 900}) for _ in IDS)}
    assert left(balancer) == [(9, 100)] * 3
    with pytest.raises(NoNodeAvailable):
        balancer.acquire(cost={"tpm": 101})
    leases["a"].settle({"tpm": 200})
    leases["b"].settle({"tpm": 2500})
    assert left(balancer) == [(9, 800), (9, 0), (9, 100)]
    assert balancer.pick(cost={"tpm": 101}) == "a"
    with pytest.raises(ValueError, match="no quota dimension 'tokens'"):
        leases["c"].settle({"tokens": 1})
    leases["c"].settle({"tpm": 900, "rpm": 0})
    assert left(balancer)[2] == (10, 100)
    for lease in leases.values():
        lease.cancel()


@pytest.mark.parametrize("ended_by", ["success", "failure", "cancel"])
def test_the_end_of_a_lease_refunds_nothing(ended_by: str) -> None:
    """Quota that was reserved stays charged unless it is settled, however the request ended."""
    balancer = with_limits(ManualClock())
    lease = balancer.acquire(cost={"tpm": 300})
    getattr(lease, ended_by)()
    assert left(balancer) == [(9, 700), (10, 1000), (10, 1000)]


def test_a_pick_charges_for_good() -> None:
    """A pick takes quota as a lease does, and has no way to give it back."""
    balancer = with_limits(ManualClock())
    assert balancer.pick(cost={"tpm": 250}) == "a"
    assert balancer.pick() == "b"
    assert left(balancer) == [(9, 750), (9, 1000), (10, 1000)]


def test_retry_after_is_exact() -> None:
    """A bucket of use is forgotten a window after its last use: then, and not before, it fits."""
    clock = ManualClock(7.0)
    balancer = with_limits(clock, rpm=1)
    for _ in IDS:
        balancer.pick()
        clock.advance(3.0)
    for expected in (51.0, 3.0, 3.0):
        with pytest.raises(NoNodeAvailable) as caught:
            balancer.pick()
        assert caught.value.retry_after == pytest.approx(expected)
        clock.advance(expected - 0.001)
        with pytest.raises(NoNodeAvailable):
            balancer.pick()
        clock.advance(0.001)
        balancer.pick()


def test_retry_after_depends_on_the_cost() -> None:
    """A large request has to wait for more use to be forgotten than a small one."""
    clock = ManualClock()
    balancer = with_limits(clock)
    balancer.remove("b")
    balancer.remove("c")
    for tokens in (500, 300, 200):
        balancer.pick(cost={"tpm": tokens})
        clock.advance(20.0)
    balancer.pick(cost={"tpm": 500})
    waits = []
    for tokens in (100, 300, 301, 500, 1000):
        with pytest.raises(NoNodeAvailable) as caught:
            balancer.pick(cost={"tpm": tokens})
        waits.append(caught.value.retry_after)
    assert waits == [20.0, 20.0, 40.0, 40.0, 60.0]


@pytest.mark.parametrize(
    ("cost", "error", "message"),
    [
        ({"rqm": 1}, ValueError, "has no quota dimension 'rqm'; did you mean 'rpm'"),
        ({"tpm": -1}, ValueError, "tpm: the amount is -1"),
        ({"tpm": float("nan")}, ValueError, "tpm: the amount is nan"),
        ({"tpm": float("inf")}, ValueError, "tpm: the amount is inf"),
    ],
)
def test_wrong_costs(cost: Any, error: type[Exception], message: str) -> None:
    """An unknown dimension or a bad amount is an error at the call, and charges nothing."""
    balancer = with_limits(ManualClock())
    for ask in (balancer.pick, balancer.acquire):
        with pytest.raises(error, match=message):
            ask(cost=cost)
    assert left(balancer) == [(10, 1000)] * 3
    assert [status.in_flight for status in balancer.status()] == [0, 0, 0]


def test_nodes_without_a_quota_are_unlimited() -> None:
    """A member that the tracker does not know is asked for nothing; unknown names pass, too."""
    balancer = Balancer(["free"], quota=QuotaTracker(ManualClock()))
    lease = balancer.acquire(cost={"anything": 1e9})
    lease.settle({"anything": 1})
    lease.success()
    assert balancer.status()[0].quota_remaining == {}


def test_cost_without_quotas_is_only_told() -> None:
    """A balancer without a tracker takes a cost for information, and refuses nothing."""
    balancer = Balancer(["a"])
    assert balancer.quota is None
    assert balancer.acquire(cost={"tpm": 1e12}).success()


def test_a_rate_limit_is_kept_in_the_quotas() -> None:
    """With a tracker of one's own, a node on cooldown is so for all who share the tracker."""
    clock = ManualClock()
    first = with_limits(clock)
    second = Balancer(IDS, RoundRobin(), quota=first.quota)
    first.acquire().rate_limited(30.0)
    assert {second.pick() for _ in range(6)} == {"b", "c"}
    clock.advance(30.0)
    assert {second.pick() for _ in range(6)} == {"a", "b", "c"}
