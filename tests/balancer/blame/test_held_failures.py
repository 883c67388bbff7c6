"""Whose fault a failure is: the node's, the request's or the caller's."""

from __future__ import annotations

import asyncio
import gc
import math
import weakref
from collections.abc import Callable
from contextlib import suppress

import pytest
from tests.balancer.blame.support import (
    FRAGILE,
    Events,
    InOrder,
    PoisonError,
    Send,
    failing_on,
    failures,
    send_sync,
)

from loadwise import (
    Balancer,
    HealthStatus,
    HealthTracker,
    Lease,
    NoNodeAvailable,
    Outcome,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
)
from loadwise.testing import ManualClock


def test_a_poisoned_request_does_not_take_the_fleet_down(send: Send) -> None:
    """What fails on every node is blamed on one of them each time, and the others go on."""
    events = Events()
    balancer = Balancer(["a", "b", "c"], metrics=events)
    for _ in range(3):
        with pytest.raises(PoisonError):
            send(balancer, failing_on("a", "b", "c"))
    assert sum(failures(balancer).values()) == 3
    assert len(events.outcomes) == 9
    assert {outcome for _, outcome in events.outcomes} == {Outcome.FAILURE}
    # At worst all three began on the same node; every failure counted, all three would be down.
    assert [status.health for status in balancer.status()].count(HealthStatus.UNHEALTHY) <= 1
    send(balancer, failing_on())


def test_a_node_that_alone_fails_is_found_out_at_once(send: Send) -> None:
    """Its failures are the first of their requests, and three of them take it out as ever."""
    balancer = Balancer(["a", "b", "c"], InOrder())
    asked = 0

    def request(lease: Lease[str]) -> None:
        nonlocal asked
        if lease.node == "a":
            asked += 1
            raise PoisonError

    for _ in range(30):
        send(balancer, request)
    assert asked == 3
    assert balancer.health is not None
    assert balancer.health.status("a") is HealthStatus.UNHEALTHY


def test_held_failures_are_reported_when_an_attempt_succeeds(send: Send) -> None:
    """In order, with the time and the words of each, and not a moment before."""
    clock, events = ManualClock(100.0), Events()
    health = HealthTracker(FRAGILE, clock=clock)
    balancer = Balancer(["a", "b", "c", "d"], InOrder(), clock=clock, health=health, metrics=events)
    seen: list[tuple[str, list[str]]] = []

    def request(lease: Lease[str]) -> None:
        seen.append((lease.node, [str(node) for node, _ in events.changes]))
        clock.advance(1.0)
        if lease.node != "d":
            raise PoisonError(f"from {lease.node}")

    send(balancer, request, 4)
    assert seen == [("a", []), ("b", ["a"]), ("c", ["a"]), ("d", ["a"])]
    assert events.changes == [(node, "UNHEALTHY") for node in "abc"]
    for node, when in zip("abc", (101.0, 102.0, 103.0), strict=True):
        known = health.health(node)
        assert (known.last_failure, known.down_since) == (when, when)
        assert known.reason == f"1 failure, the last: PoisonError: from {node}"
    assert failures(balancer) == {"a": 1, "b": 1, "c": 1, "d": 0}


@pytest.mark.parametrize(
    ("last", "blamed"),
    [
        (Lease.success, ["a", "b"]),
        (Lease.cancel, ["a"]),
        (Lease.rate_limited, ["a"]),
        (Lease.failure, ["a"]),
    ],
)
def test_a_word_decides_like_the_end_of_a_block(
    send: Send, last: Callable[[Lease[str]], object], blamed: list[str]
) -> None:
    """``failure()`` in the block is held like an exception; ``success()`` reports what is held."""
    balancer = Balancer(["a", "b", "c"], InOrder())
    send(balancer, lambda lease: last(lease) if lease.node == "c" else lease.failure("status 503"))
    assert [node for node, count in failures(balancer).items() if count] == blamed


@pytest.mark.parametrize("word", [Lease.success, Lease.cancel])
def test_a_word_holds_against_an_exception(
    send: Send, word: Callable[[Lease[str]], object]
) -> None:
    """A request that was said to be done with is not sent again, whatever leaves the block."""
    balancer = Balancer(["a", "b"], InOrder())
    leases: list[Lease[str]] = []

    def request(lease: Lease[str]) -> None:
        leases.append(lease)
        word(lease)
        raise PoisonError

    with pytest.raises(PoisonError):
        send(balancer, request)
    assert len(leases) == 1
    assert failures(balancer) == {"a": 0, "b": 0}


@pytest.mark.parametrize("health", [True, False], ids=["health", "no health"])
def test_all_but_health_sees_a_held_failure_at_once(send: Send, *, health: bool) -> None:
    """The lease's outcome, its latency and metrics do not wait for the verdict."""
    clock, events = ManualClock(), Events()
    balancer = Balancer(["a", "b", "c"], InOrder(), clock=clock, health=health, metrics=events)
    leases: list[Lease[str]] = []

    def request(lease: Lease[str]) -> None:
        for earlier in leases:
            assert (earlier.outcome, earlier.latency) == (Outcome.FAILURE, 2.0)
        assert [each.in_flight for each in balancer.status()].count(1) == 1
        assert len(events.outcomes) == len(leases)
        leases.append(lease)
        clock.advance(2.0)
        raise PoisonError

    with pytest.raises(PoisonError):
        send(balancer, request)
    assert [lease.outcome for lease in leases] == [Outcome.FAILURE] * 3


def break_off(balancer: Balancer[str]) -> None:
    """Leave the loop early."""
    for attempt in balancer.attempts(3):
        if attempt.number == 3:
            break
        with attempt:
            raise PoisonError


def raise_outside(balancer: Balancer[str]) -> None:
    """Fail between two attempts."""
    for attempt in balancer.attempts(3):
        if attempt.number == 3:
            raise LookupError
        with attempt:
            raise PoisonError


def interrupt(balancer: Balancer[str]) -> None:
    """Press Ctrl-C in an attempt."""
    for attempt in balancer.attempts(3):
        with attempt:
            if attempt.number == 3:
                raise KeyboardInterrupt
            raise PoisonError


def cancel_task(balancer: Balancer[str]) -> None:
    """Cancel an attempt."""

    async def main() -> None:
        for attempt in balancer.attempts(3):
            async with attempt:
                if attempt.number == 3:
                    raise asyncio.CancelledError
                raise PoisonError

    asyncio.run(main())


def end_by_a_mistake(balancer: Balancer[str]) -> None:
    """Fail in a way that is not the node's."""
    for attempt in balancer.attempts(3, retry_on=ConnectionError):
        with attempt:
            if attempt.number == 3:
                raise ValueError
            raise PoisonError


@pytest.mark.parametrize(
    "leave", [break_off, raise_outside, interrupt, cancel_task, end_by_a_mistake]
)
def test_a_loop_left_otherwise_drops_what_is_held(leave: Callable[[Balancer[str]], None]) -> None:
    """Nobody knows whose fault it was, so only the first failure has counted."""
    balancer = Balancer(["a", "b", "c"], InOrder())
    with suppress(BaseException):
        leave(balancer)
    gc.collect()
    assert failures(balancer) == {"a": 1, "b": 0, "c": 0}
    assert sum(status.in_flight for status in balancer.status()) == 0


def test_what_is_held_keeps_no_exception_and_no_loop_alive() -> None:
    """A held failure is words and numbers, and it goes with its loop."""
    balancer = Balancer(["a", "b", "c", "d"], InOrder())
    errors: list[weakref.ref[PoisonError]] = []
    attempts = balancer.attempts(4)
    for attempt in attempts:
        if attempt.number == 4:
            break
        with attempt:
            error = PoisonError()
            errors.append(weakref.ref(error))
            raise error
    # The loop keeps the last error, to raise it where no node is left.
    del error
    gc.collect()
    assert [each() is None for each in errors] == [True, True, False]
    alive = weakref.ref(attempts)
    del attempts, attempt
    gc.collect()
    assert (alive(), errors[-1]()) == (None, None)


def test_failures_of_a_probe_and_of_a_recovering_node_count_at_once() -> None:
    """A node on trial is judged by each of its requests, also by the later attempts of one."""
    for successes, state in ((0, HealthStatus.UNHEALTHY), (1, HealthStatus.RECOVERING)):
        clock = ManualClock()
        health = HealthTracker(FRAGILE, clock=clock)
        balancer = Balancer(["a", "b", "c"], InOrder(), clock=clock, health=health)
        health.report_failure("b")
        clock.advance(10.0)
        for _ in range(successes):
            health.report_success("b")
        assert health.status("b") is state
        clock.advance(1.0)
        with pytest.raises(PoisonError):
            send_sync(balancer, failing_on("a", "b", "c"))
        assert health.health("b").last_failure == 11.0
        assert health.status("b") is HealthStatus.UNHEALTHY
        assert failures(balancer) == {"a": 1, "b": 2 - successes, "c": 0}
        assert health.next_probe("b") == 21.0


def test_requests_that_were_never_sent_count_at_once(send: Send) -> None:
    """``refund()`` says that a request was never sent: then it cannot be its fault."""
    quota = QuotaTracker()
    for node in "abc":
        quota.register(node, QuotaConfig([QuotaDimension("rpm", limit=10)]))
    for balancer in (Balancer(["a", "b", "c"], quota=quota), Balancer(["a", "b", "c"])):

        def refused(lease: Lease[str]) -> None:
            lease.refund()
            raise ConnectionRefusedError

        with pytest.raises(ConnectionRefusedError):
            send(balancer, refused)
        assert failures(balancer) == {"a": 1, "b": 1, "c": 1}


def test_a_node_that_left_meanwhile_is_not_reported() -> None:
    """A held failure of a node that is no member any more leaves nothing behind."""
    balancer = Balancer(["a", "b", "c"], InOrder())

    def request(lease: Lease[str]) -> None:
        if lease.node != "c":
            raise PoisonError
        balancer.remove("b")

    send_sync(balancer, request)
    assert balancer.health is not None
    assert set(balancer.health.snapshot()) == {"a"}


# A failure with a cooldown.


def test_a_failure_can_put_its_node_on_cooldown() -> None:
    """It counts against the node's health, and the node is on cooldown."""
    clock = ManualClock()
    balancer = Balancer(["a"], clock=clock)
    lease = balancer.acquire()
    assert lease.failure("status 503", 30.0) is True
    assert lease.failure("status 503", 60.0) is False
    assert failures(balancer) == {"a": 1}
    with pytest.raises(NoNodeAvailable) as refused:
        balancer.acquire()
    assert (refused.value.reason, refused.value.retry_after) == ("rate_limited", 30.0)
    clock.advance(30.0)
    balancer.acquire().failure("status 503", retry_after=None)
    balancer.acquire().success()


def test_a_cooldown_does_not_wait_for_the_verdict(send: Send) -> None:
    """The report is held, but the node has asked for a cooldown and gets it."""
    clock = ManualClock()
    balancer = Balancer(["a", "b"], InOrder(), clock=clock)
    send(balancer, lambda lease: lease.failure("status 503", retry_after=30.0))
    assert failures(balancer) == {"a": 1, "b": 0}
    with pytest.raises(NoNodeAvailable) as refused:
        balancer.acquire()
    assert dict(refused.value.reasons) == {"rate_limited": 2}


@pytest.mark.parametrize("pause", [-1.0, math.nan, math.inf])
def test_a_bad_cooldown_leaves_the_lease_open(pause: float) -> None:
    """It is told before anything has happened."""
    balancer = Balancer(["a"])
    lease = balancer.acquire()
    with pytest.raises(ValueError, match=r"retry_after is .* a finite number of seconds"):
        lease.failure("status 503", retry_after=pause)
    assert lease.outcome is None
    lease.success()
