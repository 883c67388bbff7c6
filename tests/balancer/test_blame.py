"""Whose fault a failure is: the node's, the request's or the caller's."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import math
import weakref
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    HealthStatus,
    HealthTracker,
    Lease,
    NoNodeAvailable,
    NoopCollector,
    Outcome,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    SelectionContext,
)
from loadwise.testing import ManualClock

EMPTY = SelectionContext()
Request = Callable[[Lease[str]], object]
Send = Callable[..., None]

FRAGILE = ConsecutiveFailurePolicy(failure_threshold=1, recovery_successes=2, probe_interval=10.0)


class InOrder:
    """A strategy that takes the first node there is."""

    def select(self, candidates: Sequence[str], context: SelectionContext = EMPTY) -> int | None:
        """Return the first index, if any."""
        return 0 if len(candidates) else None


class PoisonError(ConnectionError):
    """What a server does that crashes on a request."""


class Events(NoopCollector):
    """Remembers outcomes and changes of health."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[Hashable, Outcome]] = []
        self.changes: list[tuple[Hashable, str]] = []

    def on_outcome(self, node_id: Hashable, outcome: Outcome, latency: float) -> None:
        self.outcomes.append((node_id, outcome))

    def on_health_change(self, node_id: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        self.changes.append((node_id, new.name or ""))


def send_sync(balancer: Balancer[str], request: Request, n: int = 3, **keywords: Any) -> None:
    """Send a request by a loop of attempts in ``with`` blocks."""
    for attempt in balancer.attempts(n, **keywords):
        with attempt as lease:
            request(lease)


def send_async(balancer: Balancer[str], request: Request, n: int = 3, **keywords: Any) -> None:
    """Send a request by a loop of attempts in ``async with`` blocks."""

    async def main() -> None:
        for attempt in balancer.attempts(n, **keywords):
            async with attempt as lease:
                request(lease)

    asyncio.run(main())


@pytest.fixture(params=[send_sync, send_async], ids=["with", "async with"])
def send(request: pytest.FixtureRequest) -> Send:
    """Return a way to send a request that is tried again."""
    way: Send = request.param
    return way


def failing_on(*bad: str) -> Request:
    """Return a request that fails on some nodes."""

    def request(lease: Lease[str]) -> None:
        if lease.node in bad:
            raise PoisonError(lease.node)

    return request


def failures(balancer: Balancer[str]) -> dict[str, int]:
    """Return the failures in a row of each node, as its health knows them."""
    assert balancer.health is not None
    return {node: balancer.health.health(node).consecutive_failures for node in balancer.nodes}


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


# Which exceptions are the node's.


@pytest.mark.parametrize(
    ("rule", "error", "outcome"),
    [
        (OSError, ConnectionError(), Outcome.FAILURE),
        (OSError, ValueError(), Outcome.CANCELLED),
        ((OSError, KeyError), KeyError(), Outcome.FAILURE),
        ((), OSError(), Outcome.CANCELLED),
        (BaseException, ValueError(), Outcome.FAILURE),
        (BaseException, KeyboardInterrupt(), Outcome.CANCELLED),
        (BaseException, GeneratorExit(), Outcome.CANCELLED),
        (BaseException, asyncio.CancelledError(), Outcome.CANCELLED),
        (BaseException, concurrent.futures.CancelledError(), Outcome.CANCELLED),
        (lambda error: isinstance(error, OSError), TimeoutError(), Outcome.FAILURE),
        (lambda error: isinstance(error, OSError), ValueError(), Outcome.CANCELLED),
        (lambda _: Outcome.FAILURE, ValueError(), Outcome.FAILURE),
        (lambda _: Outcome.CANCELLED, OSError(), Outcome.CANCELLED),
        (lambda _: Outcome.SUCCESS, LookupError("404"), Outcome.SUCCESS),
        (lambda _: Outcome.RATE_LIMITED, OSError("429"), Outcome.RATE_LIMITED),
    ],
)
def test_failures_say_which_exceptions_are_the_nodes(
    rule: Any, error: BaseException, outcome: Outcome
) -> None:
    """All others end the lease as cancelled; the exception goes on as it is."""
    clock = ManualClock()
    balancer = Balancer(["a"], failures=rule, clock=clock)
    lease = balancer.acquire()
    with pytest.raises(type(error)) as caught, lease:
        raise error
    assert caught.value is error
    assert lease.outcome is outcome
    assert failures(balancer) == {"a": int(outcome is Outcome.FAILURE)}
    if outcome is Outcome.RATE_LIMITED:
        with pytest.raises(NoNodeAvailable) as refused:
            balancer.acquire()
        assert refused.value.retry_after == 1.0
    else:
        balancer.acquire().success()


def test_an_async_block_asks_the_rule_too() -> None:
    """``async with`` on a lease judges like ``with``."""

    async def main() -> Lease[str]:
        lease = Balancer(["a"], failures=OSError).acquire()
        with suppress(ValueError):
            async with lease:
                raise ValueError
        return lease

    assert asyncio.run(main()).outcome is Outcome.CANCELLED


@pytest.mark.parametrize("error", [KeyboardInterrupt(), asyncio.CancelledError(), SystemExit()])
def test_a_rule_is_not_asked_of_cancellations_or_after_a_word(error: BaseException) -> None:
    """They are nobody's failure, and the first word counts."""

    def rule(error: Exception) -> bool:
        raise AssertionError(error)

    balancer = Balancer(["a"], failures=rule)
    with pytest.raises(type(error)), balancer.acquire():
        raise error
    lease = balancer.acquire()
    lease.failure("status 503")
    with pytest.raises(ValueError, match="mine"), lease:
        raise ValueError("mine")
    assert lease.outcome is Outcome.FAILURE


async def later(error: Exception) -> bool:
    """Judge an exception where nobody waits for it."""
    return bool(error)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("answer", [None, 1, "failure", OSError, later])
@pytest.mark.parametrize("loop", [False, True], ids=["acquire", "attempts"])
def test_a_rule_that_returns_nonsense_is_told_so(answer: Any, *, loop: bool) -> None:
    """The lease is ended as cancelled, and the original exception is the cause of the error."""

    def rule(error: Exception) -> Any:
        return later(error) if answer is later else answer

    balancer = Balancer(["a", "b"], failures=rule)
    error = OSError("lost")
    leases: list[Lease[str]] = []

    def request(lease: Lease[str]) -> None:
        leases.append(lease)
        raise error

    def send() -> None:
        with balancer.acquire() as lease:
            request(lease)

    with pytest.raises(TypeError, match="must return an Outcome or a bool") as caught:
        send_sync(balancer, request) if loop else send()
    assert caught.value.__cause__ is error
    assert repr(error) in str(caught.value)
    assert [lease.outcome for lease in leases] == [Outcome.CANCELLED]
    # A coroutine that nobody awaits is warned of as it goes.
    del caught
    gc.collect()


def test_a_rule_that_raises_ends_the_lease_as_cancelled() -> None:
    """Its error is raised, and tells during which one it came."""

    def rule(error: Exception) -> bool:
        raise LookupError("no such code")

    balancer = Balancer(["a"], failures=rule, hung_after=1.0, clock=ManualClock())
    error = OSError("lost")
    with pytest.raises(LookupError) as caught, balancer.acquire() as lease:
        raise error
    assert caught.value.__context__ is error
    assert lease.outcome is Outcome.CANCELLED
    assert balancer.status()[0].in_flight == 0


class Async:
    """A rule by being callable, but to be awaited."""

    async def __call__(self, error: Exception) -> bool:
        """Judge an exception."""
        return True


@pytest.mark.parametrize(
    "rule", [int, (OSError, 5), (OSError, int), [OSError], None, "OSError", 503, OSError("x")]
)
def test_a_rule_that_is_none_is_refused(rule: Any) -> None:
    """What is neither exception types nor a function is told at construction."""
    with pytest.raises(TypeError, match=r"failures is .* must be an exception type, a tuple"):
        Balancer(["a"], failures=rule)


@pytest.mark.parametrize("rule", [later, Async()])
def test_a_rule_to_be_awaited_is_refused(rule: Any) -> None:
    """The end of a block cannot wait."""
    with pytest.raises(TypeError, match=r"failures is .*, which is to be awaited"):
        Balancer(["a"], failures=rule)


@pytest.mark.parametrize(
    ("retry_on", "error", "outcome"),
    [
        (ConnectionError, ConnectionResetError(), Outcome.FAILURE),
        (ConnectionError, TimeoutError(), Outcome.FAILURE),
        (ConnectionError, OSError(), Outcome.FAILURE),
        (ConnectionError, ValueError(), Outcome.CANCELLED),
        ((), OSError(), Outcome.FAILURE),
        ((LookupError, ValueError), KeyError(), Outcome.FAILURE),
        ((LookupError, ValueError), TypeError(), Outcome.CANCELLED),
        (Exception, TypeError(), Outcome.FAILURE),
    ],
)
def test_in_a_loop_the_nodes_are_those_worth_a_retry(
    send: Send, retry_on: Any, error: Exception, outcome: Outcome
) -> None:
    """Where the balancer has no rule: ``retry_on``, OSError and TimeoutError."""
    balancer = Balancer(["a"])
    leases: list[Lease[str]] = []

    def request(lease: Lease[str]) -> None:
        leases.append(lease)
        raise error

    with pytest.raises(type(error)):
        send(balancer, request, retry_on=retry_on)
    assert [lease.outcome for lease in leases] == [outcome]


@pytest.mark.parametrize(
    ("rule", "outcome"),
    [
        (Exception, Outcome.FAILURE),
        (ConnectionError, Outcome.CANCELLED),
        (lambda _: Outcome.SUCCESS, Outcome.SUCCESS),
        (lambda _: Outcome.RATE_LIMITED, Outcome.RATE_LIMITED),
    ],
)
def test_a_rule_of_the_balancers_holds_in_its_loops(
    send: Send, rule: Any, outcome: Outcome
) -> None:
    """What is retried is another matter: ``retry_on`` says so, whoever is to blame."""
    balancer = Balancer(["a", "b", "c"], failures=rule)
    outcomes: list[Outcome | None] = []

    def fail(lease: Lease[str]) -> None:
        leases.append(lease)
        raise KeyError

    for retry_on, attempts in ((ValueError, 1), (LookupError, 2)):
        leases: list[Lease[str]] = []
        with pytest.raises(KeyError):
            send(balancer, fail, 2, retry_on=retry_on)
        assert len(leases) == attempts
        outcomes += [lease.outcome for lease in leases]
        balancer = Balancer(["a", "b", "c"], failures=rule)
    assert outcomes == [outcome] * 3


# Requests that hung.


def give_up_by_word(lease: Lease[str]) -> None:
    """Give up a request by a word on its lease."""
    lease.cancel()


def give_up_by_error(lease: Lease[str]) -> None:
    """Give up a request as a cancelled task does."""
    with suppress(asyncio.CancelledError), lease:
        raise asyncio.CancelledError


def interrupted(lease: Lease[str]) -> None:
    """Give up a request by Ctrl-C."""
    with suppress(KeyboardInterrupt), lease:
        raise KeyboardInterrupt


@pytest.mark.parametrize("give_up", [give_up_by_word, give_up_by_error, interrupted])
@pytest.mark.parametrize(
    ("waited", "outcome"),
    [(1.9, Outcome.CANCELLED), (2.0, Outcome.FAILURE), (7.25, Outcome.FAILURE)],
)
def test_a_request_given_up_too_late_is_a_failure(
    give_up: Request, waited: float, outcome: Outcome
) -> None:
    """From ``hung_after`` seconds on, and for everybody: lease, health and metrics."""
    clock, events = ManualClock(), Events()
    balancer = Balancer(["a"], hung_after=2.0, clock=clock, metrics=events)
    lease = balancer.acquire()
    clock.advance(waited)
    give_up(lease)
    assert lease.outcome is outcome
    assert events.outcomes == [("a", outcome)]
    [status] = balancer.status()
    expected = f"1 failure, the last: no answer in {waited:.1f} s"
    assert status.health_reason == (expected if outcome is Outcome.FAILURE else None)
    assert status.in_flight == 0


def test_what_is_no_sign_of_a_hung_node() -> None:
    """An answer that has begun, another that was quicker, the caller's mistake, a lost lease."""
    clock = ManualClock()
    balancer = Balancer(["a"], hung_after=2.0, clock=clock, failures=OSError)

    def begun(lease: Lease[str]) -> None:
        lease.first_byte()
        clock.advance(60.0)
        lease.cancel()

    def quicker(lease: Lease[str]) -> None:
        clock.advance(60.0)
        assert lease.call_off() is True
        assert lease.call_off() is False

    def mistake(lease: Lease[str]) -> None:
        with suppress(ValueError), lease:
            clock.advance(60.0)
            raise ValueError

    for end in (begun, quicker, mistake):
        lease = balancer.acquire()
        end(lease)
        assert lease.outcome is Outcome.CANCELLED
    lost = [balancer.acquire()]
    clock.advance(60.0)
    with pytest.warns(ResourceWarning):
        lost.clear()
    assert failures(balancer) == {"a": 0}
    assert balancer.status()[0].in_flight == 0


def test_by_default_nothing_hangs() -> None:
    """Without ``hung_after`` a cancellation says nothing, however late it comes."""
    clock = ManualClock()
    balancer = Balancer(["a"], clock=clock)
    lease = balancer.acquire()
    clock.advance(1e6)
    lease.cancel()
    assert lease.outcome is Outcome.CANCELLED


@pytest.mark.parametrize("give_up", [give_up_by_word, interrupted, give_up_by_error])
def test_a_request_given_up_is_not_retried_although_it_failed(send: Send, give_up: Request) -> None:
    """The node has failed, the caller has gone."""
    clock = ManualClock()
    balancer = Balancer(["a", "b"], InOrder(), hung_after=2.0, clock=clock)
    leases: list[Lease[str]] = []

    def request(lease: Lease[str]) -> None:
        leases.append(lease)
        clock.advance(3.0)
        give_up(lease)

    send(balancer, request, retry_on=BaseException)
    assert [lease.outcome for lease in leases] == [Outcome.FAILURE]
    assert failures(balancer) == {"a": 1, "b": 0}


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt()])
def test_a_cancelled_attempt_that_hung_is_not_retried(error: BaseException) -> None:
    """Nor is one that was ended by the exception itself."""
    clock = ManualClock()
    balancer = Balancer(["a", "b"], InOrder(), hung_after=2.0, clock=clock)

    def request(lease: Lease[str]) -> None:
        clock.advance(3.0)
        raise error

    with pytest.raises(type(error)):
        send_sync(balancer, request, retry_on=BaseException)
    assert failures(balancer) == {"a": 1, "b": 0}


@pytest.mark.parametrize("seconds", [0, -1.0, math.nan, math.inf])
def test_hung_after_is_checked(seconds: float) -> None:
    """It is a finite number of seconds above 0."""
    with pytest.raises(ValueError, match=r"hung_after is .* a finite number of seconds above 0"):
        Balancer(["a"], hung_after=seconds)


def test_hung_after_is_a_number() -> None:
    """Anything else is a mistake in its type."""
    wrong: Any = "2"
    with pytest.raises(TypeError):
        Balancer(["a"], hung_after=wrong)


# A failure with a cooldown.


def test_a_failure_can_put_its_node_on_cooldown() -> None:
    """It counts against the node's health, and the node sits out."""
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
    """The report is held, but the node has asked for a pause and gets it."""
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
