"""No retry, refusal or exclusion costs more on a large fleet, and no memory outlives its truth.

Costs are counted in bytecode instructions, once the first request has found out what the next one
remembers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import pytest
from tests.balancer.test_complexity import FEW, MANY, instructions
from tests.compiled import COMPILED

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    Endpoint,
    HealthTracker,
    InFlight,
    NoNodeAvailable,
    PowerOfTwoChoices,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    Reservation,
    RoundRobin,
    SelectionContext,
)
from loadwise.testing import ManualClock

LIMIT = 1000
COST = {"tpm": 10}


def two_choices() -> PowerOfTwoChoices[Any]:
    """Return a strategy that draws the same in every run."""
    return PowerOfTwoChoices(load=InFlight(), rng=random.Random(1))


def limited(
    size: int, poor: Iterable[int], *, default: float = 0, kind: type[QuotaTracker] = QuotaTracker
) -> QuotaTracker:
    """Return quotas of which some have less left than `COST`."""
    quota = kind(ManualClock())
    for node in range(size):
        quota.register(
            node, QuotaConfig([QuotaDimension("tpm", LIMIT, window=60.0, default_cost=default)])
        )
    for node in poor:
        quota.record_usage(node, {"tpm": LIMIT if default else LIMIT - 5})
    return quota


def refused(balancer: Balancer[Any], **keywords: Any) -> Callable[[], None]:
    """Return a request that is refused."""

    def request() -> None:
        with suppress(NoNodeAvailable):
            balancer.acquire(**keywords).success()
            raise AssertionError("it was not refused")

    return request


def elsewhere(balancer: Balancer[int]) -> Callable[[], None]:
    """Return a request that excludes the first node."""

    def request() -> None:
        balancer.acquire(exclude=(0,)).cancel()

    return request


def failing_attempt(size: int) -> Callable[[], None]:
    """Return a request whose first attempt fails by a word."""
    balancer = Balancer(range(size), two_choices(), health=None)

    def request() -> None:
        for attempt in balancer.attempts(2):
            with attempt as lease:
                lease.failure("status 503")

    return request


def failing_attempt_half_out_of_quota(size: int) -> Callable[[], None]:
    """Return such a request that half of the nodes cannot afford."""
    quota = limited(size, range(0, size, 2))
    balancer = Balancer(range(size), two_choices(), health=None, quota=quota)

    def request() -> None:
        for attempt in balancer.attempts(2, cost=COST):
            with attempt as lease:
                lease.refund()
                lease.failure("status 503")

    return request


def excluded(size: int) -> Callable[[], None]:
    """Return a request that excludes one node by its id."""
    balancer = Balancer(range(size), two_choices())
    return elsewhere(balancer)


def half_out_of_quota(size: int) -> Callable[[], None]:
    """Return a request that half of the nodes cannot afford."""
    balancer = Balancer(range(size), two_choices(), quota=limited(size, range(0, size, 2)))

    def request() -> None:
        lease = balancer.acquire(cost=COST)
        assert lease.node % 2
        lease.refund()
        lease.cancel()

    return request


def all_drained(size: int) -> Callable[[], None]:
    """Return a request to a balancer of drained nodes."""
    return refused(Balancer([Endpoint(i, weight=0) for i in range(size)]))


def all_resting(size: int) -> Callable[[], None]:
    """Return a request to nodes on cooldown."""
    quota = limited(size, ())
    for node in range(size):
        quota.mark_exhausted(node, 10.0 + node)
    return refused(Balancer(range(size), quota=quota))


def all_down(size: int) -> Callable[[], None]:
    """Return a request to nodes that are down, without panic."""
    health = HealthTracker(ConsecutiveFailurePolicy(1, 1, 1000.0), clock=ManualClock())
    balancer = Balancer(range(size), health=health, panic_threshold=None)
    for node in range(size):
        health.report_failure(node)
    return refused(balancer)


def none_affords_it(size: int) -> Callable[[], None]:
    """Return a request that no node can afford, though a smaller one would do."""
    return refused(Balancer(range(size), quota=limited(size, range(size))), cost=COST)


def none_affords_any(size: int) -> Callable[[], None]:
    """Return a request at default costs, for which all nodes are out of quota."""
    return refused(Balancer(range(size), quota=limited(size, range(size), default=1)))


def retried_in_panic(size: int) -> Callable[[], None]:
    """Return a request that excludes the only node that is not down."""
    health = HealthTracker(ConsecutiveFailurePolicy(1, 1, 1000.0), clock=ManualClock())
    balancer = Balancer(range(size), two_choices(), health=health)
    for node in range(1, size):
        health.report_failure(node)
    return elsewhere(balancer)


SCENARIOS = [
    failing_attempt,
    failing_attempt_half_out_of_quota,
    excluded,
    half_out_of_quota,
    all_drained,
    all_resting,
    all_down,
    none_affords_it,
    none_affords_any,
    retried_in_panic,
]


@pytest.mark.skipif(COMPILED, reason="compiled code executes no bytecode")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_request_costs_the_same_on_any_fleet(
    scenario: Callable[[int], Callable[[], None]],
) -> None:
    """Over 10,000 nodes it takes no more than a third more instructions than over 10."""
    found: list[int] = []
    for size in (FEW, MANY):
        request = scenario(size)
        for _ in range(60):
            request()
        found.append(sum(instructions(request) for _ in range(20)))
    few, many = found
    assert many <= few * 4 / 3


@pytest.mark.skipif(COMPILED, reason="compiled code executes no bytecode")
def test_a_ready_context_is_as_quick_as_keywords() -> None:
    """A context that is made once takes no more than the keywords it stands for."""
    balancer = Balancer(range(10), RoundRobin())
    context = SelectionContext(hash_key="user-42", tags={"model": "m"})

    def ready() -> None:
        balancer.acquire(context).success()
        balancer.pick(context)

    def keywords() -> None:
        balancer.acquire(hash_key="user-42", tags={"model": "m"}).success()
        balancer.pick(hash_key="user-42", tags={"model": "m"})

    found = [min(instructions(way) for _ in range(10)) for way in (ready, keywords)]
    # What it asks of the context is less than to make one.
    assert found[0] <= found[1]


class Silent(QuotaTracker):
    """Quotas that answer from elsewhere, for all that a balancer knows."""


@pytest.mark.parametrize("kind", [QuotaTracker, Silent])
@pytest.mark.parametrize(
    "give",
    [
        lambda quota, reservation: reservation.cancel(),
        lambda quota, reservation: reservation.settle({"tpm": 1}),
        lambda quota, reservation: quota.register(7, QuotaConfig([QuotaDimension("tpm", 9999)])),
        lambda quota, reservation: quota.remove(7),
        lambda quota, reservation: quota.clock.advance(60.0),
    ],
    ids=["cancel", "settle", "register", "remove", "time"],
)
def test_a_node_that_can_afford_it_again_is_found_at_once(
    give: Callable[[QuotaTracker, Reservation], object], kind: type[QuotaTracker]
) -> None:
    """Whatever gives one of many nodes room, the next request goes there."""
    quota = limited(50, [node for node in range(50) if node != 7], kind=kind)
    reservation = quota.try_acquire(7, {"tpm": LIMIT - 5})
    assert reservation is not None
    balancer = Balancer(range(50), RoundRobin(), quota=quota)
    for _ in range(3):
        with pytest.raises(NoNodeAvailable) as caught:
            balancer.acquire(cost=COST)
        assert (dict(caught.value.reasons), caught.value.retry_after) == ({"quota": 50}, 60.0)
    give(quota, reservation)
    found = balancer.pick(cost=COST)
    assert found == 7 or quota.clock() == 60.0


@pytest.mark.skipif(COMPILED, reason="compiled code executes no bytecode")
def test_quotas_that_do_not_tell_are_asked_a_few_at_a_time() -> None:
    """A refusal costs the same for 1,000 nodes as for 10,000, while the clock stands."""
    found: list[int] = []
    for size in (MANY // 10, MANY):
        quota = limited(size, range(size), kind=Silent)
        request = refused(Balancer(range(size), two_choices(), quota=quota), cost=COST)
        for _ in range(3):
            request()
        found.append(max(instructions(request) for _ in range(20)))
    fewer, many = found
    assert many <= fewer * 1.1


def test_quotas_that_do_not_tell_are_overlooked_for_a_tenth_of_a_second() -> None:
    """Of 1,000 nodes one gets room unbeknown; it is found by chance, or after 0.1 s."""
    clock = ManualClock()
    quota = Silent(clock)
    for node in range(1000):
        quota.register(node, QuotaConfig([QuotaDimension("tpm", LIMIT, window=60.0)]))
        quota.record_usage(node, {"tpm": LIMIT - 5})
    balancer = Balancer(range(1000), two_choices(), quota=quota, clock=clock)
    request = refused(balancer, cost=COST)
    for _ in range(2):
        request()
    quota.register(900, QuotaConfig([QuotaDimension("tpm", 9999)]))
    request()
    clock.advance(0.1)
    assert balancer.pick(cost=COST) == 900
    quota.register(900, QuotaConfig([QuotaDimension("tpm", 1)]))
    request()
    quota.register(901, QuotaConfig([QuotaDimension("tpm", 9999)]))
    picked: set[int] = set()
    for _ in range(1000 // 16 + 1):
        with suppress(NoNodeAvailable):
            picked.add(balancer.pick(cost=COST))
    assert picked == {901}, "all come round, 16 at a time"


def test_what_others_reserve_makes_the_wait_longer() -> None:
    """The time in the error is exact, though cheaper requests went on in between."""
    clock = ManualClock()
    quota = QuotaTracker(clock)
    for node in "ab":
        quota.register(node, QuotaConfig([QuotaDimension("tpm", 100, window=60.0)]))
    balancer = Balancer(["a", "b"], RoundRobin(), quota=quota, clock=clock)
    for node in "ab":
        quota.record_usage(node, {"tpm": 60})
    for waited in (60.0, 50.0):
        with pytest.raises(NoNodeAvailable) as caught:
            balancer.pick(cost={"tpm": 100})
        assert caught.value.retry_after == waited
        clock.advance(10.0)
    # Both are charged now, and so has either to wait longer.
    for cheaply, waited in ((1, 40.0), (1, 60.0)):
        balancer.pick(cost={"tpm": cheaply})
        with pytest.raises(NoNodeAvailable) as caught:
            balancer.pick(cost={"tpm": 100})
        assert caught.value.retry_after == waited


def test_a_rate_limit_tells_its_reason_at_once() -> None:
    """A node that lacks quota and then is on cooldown, for no longer, is counted as the latter."""
    quota = limited(1, [0], default=1)
    balancer = Balancer([0], quota=quota)
    for seconds, reason in ((0.0, "quota"), (5.0, "rate_limited")):
        quota.mark_exhausted(0, seconds)
        with pytest.raises(NoNodeAvailable) as caught:
            balancer.pick()
        assert dict(caught.value.reasons) == {reason: 1}
    quota.clock.advance(5.0)  # type: ignore[attr-defined]  # it is a ManualClock
    with pytest.raises(NoNodeAvailable) as caught:
        balancer.pick()
    assert dict(caught.value.reasons) == {"quota": 1}


def test_all_are_asked_only_once() -> None:
    """While nothing changes, requests of a cost ask all nodes once, not each time."""
    quota = limited(100, range(0, 100, 2))
    asked: list[object] = []
    ask = quota.available_at

    def counted(node_id: Hashable, amounts: Mapping[str, float] | None = None) -> float:
        asked.append(node_id)
        return ask(node_id, amounts)

    quota.available_at = counted  # type: ignore[method-assign]
    balancer = Balancer(range(100), two_choices(), quota=quota)
    for _ in range(50):
        balancer.pick(cost={"tpm": 7})
    assert len(asked) <= 200
    asked.clear()
    for _ in range(50):
        balancer.pick(cost={"tpm": 7})
    assert asked == []
