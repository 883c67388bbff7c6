"""Requests that wait for a node get it in order and in time."""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from tests.balancer.waiting.support import LONG, Waiting, Waits, run
from tests.compiled import wrong_type

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    Endpoint,
    HealthTracker,
    Lease,
    NoNodeAvailable,
    Outcome,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    SelectionContext,
)
from loadwise.testing import ManualClock


def test_a_freed_node_goes_to_the_longest_waiting() -> None:
    """In order of arrival, one each."""
    balancer = Balancer(["a"], max_in_flight=1)
    held = balancer.acquire()
    waiting = [Waiting(balancer) for _ in range(5)]
    assert balancer.waiting == 5
    for each in waiting:
        held.success()
        held = each.result()
        assert [other.waits for other in waiting].count(True) == balancer.waiting
    held.success()
    assert not balancer.waiting


def test_nobody_waits_behind_one_that_the_node_cannot_serve() -> None:
    """A request for one node does not hold up those for another, and keeps its place."""
    balancer = Balancer(["a", "b"], max_in_flight=1)
    held = {lease.node: lease for lease in (balancer.acquire(), balancer.acquire())}
    picky = Waiting(balancer, exclude=["b"])
    other = Waiting(balancer, where=lambda node: node == "b")
    plain = Waiting(balancer)
    held.pop("b").success()
    held["b"] = other.result()
    assert picky.waits
    assert plain.waits
    held.pop("a").success()
    held["a"] = picky.result()
    held.pop("b").success()
    held["b"] = plain.result()
    for lease in held.values():
        lease.success()


def test_who_does_not_wait_never_overtakes() -> None:
    """A node that is free goes to those who wait first."""
    balancer = Balancer(["a"], max_in_flight=1)
    held = balancer.acquire()
    waiting = [Waiting(balancer) for _ in range(3)]
    for each in waiting:
        held.success()
        with pytest.raises(NoNodeAvailable):
            balancer.acquire()
        with pytest.raises(NoNodeAvailable):
            balancer.pick()
        held = each.result()
    held.success()
    assert balancer.acquire().success()


def test_time_runs_out() -> None:
    """The error says why, the wait is told, and the place is free."""
    waits = Waits()
    balancer = Balancer(["a"], max_in_flight=1, metrics=waits)
    held = balancer.acquire()
    with pytest.raises(NoNodeAvailable, match="1 full"):
        balancer.acquire(timeout=0.01)
    [(seconds, got)] = waits.told
    assert seconds >= 0.01
    assert not got
    assert waits.reasons == ["full"]
    assert not balancer.waiting
    held.success()
    assert balancer.acquire(timeout=0.01).success()
    assert len(waits.told) == 1  # it did not have to wait


@pytest.mark.parametrize(
    ("balancer", "keywords", "reason"),
    [
        (lambda: Balancer([]), {}, "empty"),
        (lambda: Balancer(["a"]), {"exclude": ["a"]}, "excluded"),
        (lambda: Balancer(["a"]), {"where": lambda _: False}, "filtered"),
        (lambda: Balancer(["a"], where=lambda _: False), {}, "filtered"),
        (lambda: Balancer([Endpoint("a", weight=0)]), {}, "drained"),
    ],
)
def test_what_time_cannot_mend_raises_at_once(
    balancer: Callable[[], Balancer[Any]], keywords: dict[str, Any], reason: str
) -> None:
    """Whatever the timeout, in threads and in tasks."""

    async def in_task() -> None:
        await balancer().acquire_async(timeout=None, **keywords)

    with pytest.raises(NoNodeAvailable) as refused:
        balancer().acquire(timeout=None, **keywords)
    assert refused.value.reason == reason
    with pytest.raises(NoNodeAvailable) as refused:
        run(in_task())
    assert refused.value.reason == reason


def test_a_cost_beyond_every_limit_raises_at_once() -> None:
    """Such quota never comes."""
    quota = QuotaTracker()
    quota.register("a", QuotaConfig([QuotaDimension("tpm", limit=10, window=60.0)]))
    balancer = Balancer(["a"], quota=quota)
    with pytest.raises(NoNodeAvailable, match="quota"):
        balancer.acquire(cost={"tpm": 11}, timeout=None)


@pytest.mark.parametrize("wrong", [-1, -0.001, float("nan")])
def test_wrong_timeouts(wrong: float) -> None:
    """They are refused also where nobody would have to wait."""
    balancer = Balancer(["a"])
    with pytest.raises(ValueError, match="timeout is"):
        balancer.acquire(timeout=wrong)
    with pytest.raises(ValueError, match="timeout is"):
        balancer.acquire_async(timeout=wrong)
    with pytest.raises(TypeError, match=wrong_type("timeout is 'x'; it must be a number")):
        balancer.acquire(timeout="x")  # type: ignore[arg-type]


@pytest.mark.parametrize("most", [0, 1, 3])
def test_the_queue_is_bounded(most: int) -> None:
    """Beyond it requests are refused at once, with a reason of its own."""
    waits = Waits()
    balancer = Balancer(["a", "b"], max_in_flight=1, max_waiting=most, metrics=waits)
    held = [balancer.acquire(), balancer.acquire()]
    waiting = [Waiting(balancer) for _ in range(most)]
    with pytest.raises(NoNodeAvailable, match="2 waited for by too many") as refused:
        balancer.acquire(timeout=None)
    assert refused.value.reason == "queue"
    assert waits.reasons == ["queue"]
    assert not waits.told  # for it did not wait
    for each in waiting:
        held.pop(0).success()
        held.append(each.result())
    for lease in held:
        lease.success()
    with pytest.raises(ValueError, match="max_waiting is -1; it must be at least 0"):
        Balancer(["a"], max_waiting=-1)


def test_a_cooldown_a_quota_and_a_probe_are_waited_for() -> None:
    """What comes by time alone comes when the clock gets there, and no sooner."""
    clock = ManualClock()
    quota = QuotaTracker(clock)
    quota.register("a", QuotaConfig([QuotaDimension("rpm", limit=1, window=60.0)]))
    health = HealthTracker(ConsecutiveFailurePolicy(probe_interval=10.0), clock=clock)
    balancer = Balancer(["a"], quota=quota, health=health, panic_threshold=None, clock=clock)
    balancer.acquire().rate_limited(5.0)
    each = Waiting(balancer)
    clock.advance(59.9)
    assert each.waits
    clock.advance(0.2)
    each.result().success()
    clock.advance(61.0)
    for _ in range(3):
        health.report_failure("a")
    each = Waiting(balancer)
    clock.advance(9.9)
    assert each.waits
    clock.advance(0.2)
    each.result().success()


def test_nodes_that_come_back_together_serve_as_many_as_they_can() -> None:
    """One change may be enough for several who wait."""
    clock = ManualClock()
    balancer = Balancer(["a", "b", "c"], max_in_flight=1, clock=clock)
    for lease in [balancer.acquire() for _ in range(3)]:
        lease.rate_limited(5.0)
    waiting = [Waiting(balancer) for _ in range(4)]
    clock.advance(5.0)
    held = [each.result() for each in waiting[:3]]
    assert {lease.node for lease in held} == {"a", "b", "c"}
    assert waiting[3].waits
    for lease in held:
        lease.success()
    waiting[3].result().success()


def test_a_deadline_goes_by_the_balancers_clock() -> None:
    """So tests of a user's own need not sleep."""
    clock = ManualClock()
    balancer = Balancer(["a"], max_in_flight=1, clock=clock)
    held = balancer.acquire()
    each = Waiting(balancer, timeout=3.0)
    clock.advance(2.9)
    assert each.waits
    clock.advance(0.1)
    with pytest.raises(NoNodeAvailable):
        each.result()
    held.success()


def test_a_real_cooldown_is_slept_through() -> None:
    """The first in the queue wakes by itself."""
    balancer = Balancer(["a"])
    balancer.acquire().rate_limited(0.05)
    started = time.monotonic()
    with balancer.acquire(timeout=LONG) as lease:
        assert lease.node == "a"
    assert 0.03 < time.monotonic() - started < 0.9  # not only when it looks again anyway


@pytest.mark.parametrize(
    "change",
    [
        lambda balancer: balancer.add("b"),
        lambda balancer: balancer.replace(["b"]),
        lambda balancer: balancer.resume("c"),
    ],
)
def test_members_that_come_serve_those_who_wait(change: Callable[[Balancer[str]], None]) -> None:
    """Nobody has to end for that."""
    balancer = Balancer(["a", "c"], max_in_flight=1)
    balancer.drain("c")
    held = balancer.acquire()
    each = Waiting(balancer)
    change(balancer)
    assert each.result().success()
    held.success()


def test_members_that_go_leave_nobody_waiting_in_vain() -> None:
    """What no time can mend any more is said at once."""
    balancer = Balancer(["a"], max_in_flight=1)
    held = balancer.acquire()
    each = Waiting(balancer)
    balancer.remove("a")
    with pytest.raises(NoNodeAvailable, match="it has no nodes"):
        each.result()
    held.success()


def test_a_context_that_excludes_by_index_excludes_the_same_nodes_later() -> None:
    """Indices change with the members, so they are taken for the ids they stood for."""
    balancer = Balancer(["a", "b"], max_in_flight=1)
    held = {lease.node: lease for lease in (balancer.acquire(), balancer.acquire())}
    each = Waiting(balancer, context=SelectionContext(exclude=frozenset({1})))
    balancer.replace(["b", "c", "a"])
    lease = each.result()
    assert lease.node == "c"
    lease.success()
    for lease in held.values():
        lease.success()


def test_the_end_of_a_probe_is_waited_for() -> None:
    """A node whose one probe is under way may come back by it."""
    clock = ManualClock()
    balancer = Balancer(["a"], panic_threshold=None, clock=clock)
    for _ in range(3):
        balancer.report("a", Outcome.FAILURE)
    clock.advance(10.0)
    probe = balancer.acquire()
    each = Waiting(balancer)
    probe.success()
    assert each.result().success()


def test_quota_given_back_is_waited_for() -> None:
    """A settlement frees what the estimate took too much."""
    clock = ManualClock()
    quota = QuotaTracker(clock)
    quota.register("a", QuotaConfig([QuotaDimension("tpm", limit=100, window=60.0)]))
    balancer = Balancer(["a"], quota=quota, clock=clock)
    lease = balancer.acquire(cost={"tpm": 80})
    each = Waiting(balancer, cost={"tpm": 50})
    less = Waiting(balancer, cost={"tpm": 20})
    less.result().success()
    assert each.waits
    lease.success()
    lease.settle({"tpm": 10})
    each.result().success()


def test_a_dropped_lease_wakes_who_waits() -> None:
    """Its slot is given back in the middle of anything."""
    balancer = Balancer(["a"], max_in_flight=1)
    held: Lease[str] | None = balancer.acquire()
    assert held is not None
    each = Waiting(balancer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        held = None
        gc.collect()
    assert each.result().success()


def test_a_filter_that_fails_fails_its_own_request() -> None:
    """Not the one at whose end it was asked."""
    balancer = Balancer(["a"], max_in_flight=1)
    held = balancer.acquire()
    calls: list[str] = []

    def where(node: str) -> bool:
        calls.append(node)
        if len(calls) > 2:
            raise KeyError(node)
        return True

    broken = Waiting(balancer, where=where)
    plain = Waiting(balancer)
    assert held.success()
    with pytest.raises(KeyError):
        broken.result()
    assert plain.result().success()


def test_a_request_within_the_search_for_another_is_served_or_refused() -> None:
    """A filter that asks the same balancer gets no further than an answer."""
    balancer = Balancer(["a", "b"], max_in_flight=1)
    held = [balancer.acquire(), balancer.acquire()]
    errors: list[BaseException] = []

    def where(node: str) -> bool:
        if balancer.waiting:
            try:
                balancer.acquire(timeout=1.0).cancel()
            except (NoNodeAvailable, RuntimeError) as error:
                errors.append(error)
        return node == "a"

    each = Waiting(balancer, where=where)
    for lease in held:
        lease.success()
    assert each.result().success()
    assert any(isinstance(error, RuntimeError) for error in errors)
