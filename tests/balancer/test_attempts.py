"""Attempts: one request on one node after another, never twice on the same."""

from __future__ import annotations

import asyncio
import concurrent.futures
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tests.compiled import wrong_type

from loadwise import (
    Attempts,
    Balancer,
    Endpoint,
    Lease,
    LeastLoad,
    NoNodeAvailable,
    Outcome,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    RoundRobin,
    SelectionContext,
    Strategy,
)
from loadwise.testing import ManualClock

EMPTY = SelectionContext()


def refuse(message: str = "refused") -> None:
    """Raise as a connection does that cannot be made."""
    raise ConnectionError(message)


def in_flight(balancer: Balancer[Any]) -> int:
    """Return the requests in flight on all nodes."""
    return sum(status.in_flight for status in balancer.status())


def run(attempts: Attempts[str], request: Callable[[Lease[str]], object], tried: list[str]) -> None:
    """Send a request as a caller would, noting where it went."""
    for attempt in attempts:
        with attempt as lease:
            tried.append(lease.node)
            assert attempt.number == len(tried)
            request(lease)


@pytest.mark.parametrize("strategy", [None, RoundRobin(), LeastLoad(load=lambda _: 0.0)])
def test_never_the_same_node_twice(strategy: Strategy[str] | None) -> None:
    """Every attempt goes to a node not tried before, and the last error is raised in the end."""
    balancer = Balancer([f"n{i}" for i in range(5)], strategy, health=False)
    for n in range(1, 8):
        tried: list[str] = []
        with pytest.raises(ConnectionError, match=f"number {min(n, 5)}"):
            run(balancer.attempts(n), lambda _: refuse(f"number {len(tried)}"), tried)  # noqa: B023 - called at once
        assert len(tried) == len(set(tried)) == min(n, 5)
    assert in_flight(balancer) == 0


def test_the_first_success_ends_the_loop() -> None:
    """One answer is enough."""
    balancer = Balancer(["a", "b", "c"])
    tried: list[str] = []
    run(balancer.attempts(3), lambda _: refuse() if len(tried) == 1 else None, tried)
    assert len(tried) == 2
    assert in_flight(balancer) == 0


@pytest.mark.parametrize(
    ("retry_on", "error", "attempts_made"),
    [
        (Exception, ValueError(), 3),
        (ConnectionError, ConnectionResetError(), 3),
        (ConnectionError, ValueError(), 1),
        ((ConnectionError, TimeoutError), TimeoutError(), 3),
        ((ConnectionError, TimeoutError), KeyError(), 1),
        ((), ConnectionError(), 1),
        (BaseException, KeyboardInterrupt(), 1),
        (BaseException, SystemExit(), 1),
        (BaseException, GeneratorExit(), 1),
        (BaseException, asyncio.CancelledError(), 1),
        (Exception, concurrent.futures.CancelledError(), 1),
        (BaseException, BaseExceptionGroup("g", [asyncio.CancelledError()]), 1),
        (Exception, ExceptionGroup("g", [ConnectionError()]), 3),
    ],
    ids=repr,
)
def test_what_is_retried(
    retry_on: type[BaseException] | tuple[type[BaseException], ...],
    error: BaseException,
    attempts_made: int,
) -> None:
    """Errors of the kinds in ``retry_on`` are retried; a cancellation never is."""
    balancer = Balancer(["a", "b", "c"])
    tried: list[str] = []

    def fail(_: Lease[str]) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        run(balancer.attempts(3, retry_on=retry_on), fail, tried)
    assert caught.value is error
    assert len(tried) == attempts_made
    assert in_flight(balancer) == 0


@pytest.mark.parametrize("explicit", [Lease.failure, Lease.rate_limited])
def test_an_explicit_failure_leads_on(explicit: Callable[[Lease[str]], object]) -> None:
    """``failure()`` and ``rate_limited()`` without an exception lead to the next attempt."""
    balancer = Balancer(["a", "b", "c"], RoundRobin())
    tried: list[str] = []
    run(balancer.attempts(3), lambda lease: explicit(lease) if len(tried) < 3 else None, tried)
    assert sorted(tried) == ["a", "b", "c"]


@pytest.mark.parametrize("explicit", [Lease.success, Lease.cancel])
def test_an_explicit_end_is_the_end(explicit: Callable[[Lease[str]], object]) -> None:
    """``success()`` and ``cancel()`` end the loop."""
    tried: list[str] = []
    run(Balancer(["a", "b", "c"]).attempts(3), explicit, tried)
    assert len(tried) == 1


@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_explicit_failures_to_the_last_node_end_the_loop(n: int) -> None:
    """It stops when every node was tried, as it does when the attempts are used up."""
    tried: list[str] = []
    run(Balancer(["a", "b", "c"]).attempts(n), Lease.failure, tried)
    assert len(tried) == min(n, 3)


@pytest.mark.parametrize("n", [2, 3])
def test_a_last_word_ends_the_loop_whatever_was_before(n: int) -> None:
    """An error that an earlier attempt raised is not that of the last, which ended by a word."""
    tried: list[str] = []
    run(
        Balancer(["a", "b"]).attempts(n),
        lambda lease: lease.failure() if len(tried) == 2 else refuse(),
        tried,
    )
    assert len(tried) == 2


@pytest.mark.parametrize("error", [asyncio.CancelledError(), concurrent.futures.CancelledError()])
def test_a_cancellation_after_a_word_is_not_retried(error: BaseException) -> None:
    """A cancellation reaches the caller, even where the lease has been ended as a failure."""
    tried: list[str] = []

    def fail(lease: Lease[str]) -> None:
        lease.failure("503")
        raise error

    with pytest.raises(type(error)):
        run(Balancer(["a", "b"]).attempts(2, retry_on=BaseException), fail, tried)
    assert len(tried) == 1


def test_the_last_error_keeps_its_traceback_and_its_cause() -> None:
    """When no node is left for another attempt, the error raised is the very one of the last."""
    balancer = Balancer(["a", "b"], RoundRobin())
    assert balancer.health is not None
    for _ in range(3):
        balancer.health.report_failure("b")
    cause = OSError("no route")

    def fail(_: Lease[str]) -> None:
        try:
            raise cause
        except OSError as error:
            raise ConnectionError("refused") from error

    tried: list[str] = []
    with pytest.raises(ConnectionError, match="refused") as caught:
        run(balancer.attempts(3), fail, tried)
    assert tried == ["a"]
    assert caught.value.__cause__ is cause
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames[-1] == "fail"
    assert "no node available" not in "".join(traceback.format_exception(caught.value))


def test_without_any_node_the_first_attempt_says_so() -> None:
    """When nothing was tried there is no last error: `NoNodeAvailable` tells why."""
    tried: list[str] = []
    with pytest.raises(NoNodeAvailable) as caught:
        run(Balancer([], name="search").attempts(3), Lease.success, tried)
    assert (caught.value.balancer, caught.value.reason, tried) == ("search", "empty", [])


def test_exclusions_filter_key_and_cost_hold_in_every_attempt() -> None:
    """What a request asks for is asked for at each of its attempts."""
    clock = ManualClock()
    quota = QuotaTracker(clock)
    nodes = [Endpoint(f"n{i}", zone="eu" if i < 5 else "us") for i in range(8)]
    for node in nodes:
        quota.register(node.id, QuotaConfig([QuotaDimension("tpm", limit=100)]))
    seen: list[tuple[object, object]] = []

    class Watching:
        def select(
            self, candidates: Sequence[Endpoint], context: SelectionContext = EMPTY
        ) -> int | None:
            seen.append((context.hash_key, context.tag("model")))
            return 0 if len(candidates) else None

    balancer = Balancer(nodes, Watching(), quota=quota, clock=clock)
    tried: list[object] = []

    def fail_everywhere() -> None:
        for attempt in balancer.attempts(
            9,
            hash_key="user-42",
            exclude=iter(["n1"]),
            cost={"tpm": 60},
            tags={"model": "m"},
            where=lambda node: node.zone == "eu",
        ):
            with attempt as lease:
                tried.append(lease.node.id)
                refuse()

    with pytest.raises(ConnectionError):
        fail_everywhere()
    assert tried == ["n0", "n2", "n3", "n4"]
    left = {status.id: status.quota_remaining["tpm"] for status in balancer.status()}
    assert left == {f"n{i}": 40 if f"n{i}" in tried else 100 for i in range(8)}
    assert set(seen) == {("user-42", "m")}


def test_async_attempts() -> None:
    """``async with`` works alike, and a cancelled task is not retried."""

    async def main() -> None:
        balancer = Balancer(["a", "b", "c"])
        tried: list[str] = []
        for attempt in balancer.attempts(3):
            async with attempt as lease:
                tried.append(lease.node)
                await asyncio.sleep(0)
                if len(tried) == 1:
                    refuse()
        assert len(set(tried)) == 2

        inside = asyncio.Event()
        leases: list[Lease[str]] = []

        async def request() -> None:
            for attempt in balancer.attempts(3, retry_on=BaseException):
                async with attempt as lease:
                    leases.append(lease)
                    inside.set()
                    await asyncio.Event().wait()

        task = asyncio.create_task(request())
        await asyncio.wait_for(inside.wait(), timeout=10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [lease.outcome for lease in leases] == [Outcome.CANCELLED]
        assert in_flight(balancer) == 0

    asyncio.run(main())


def test_nodes_that_left_meanwhile() -> None:
    """When every present node was tried, it stops, though fewer than ``n`` were."""
    balancer = Balancer(["a", "b"], RoundRobin())
    tried: list[str] = []

    def fail(lease: Lease[str]) -> None:
        if lease.node == "a":
            balancer.remove("b")
        refuse(lease.node)

    with pytest.raises(ConnectionError, match="a"):
        run(balancer.attempts(5), fail, tried)
    assert tried == ["a"]


def test_an_attempt_left_alone_is_the_last() -> None:
    """A loop that does not enter its attempt does not go on for ever; nor is one entered twice."""
    balancer = Balancer(["a", "b"])
    assert len(list(balancer.attempts(5))) == 1
    [attempt] = balancer.attempts(5)
    with attempt:
        pass
    with pytest.raises(RuntimeError, match="attempt 1 has been entered before"):
        attempt.__enter__()


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        ((0,), {}, ValueError, "n is 0; it must be at least 1"),
        ((-3,), {}, ValueError, "n is -3"),
        ((2.0,), {}, TypeError, wrong_type("n is 2.0; it must be an int")),
        ((2, "ValueError"), {}, TypeError, "retry_on is 'ValueError'"),
        ((2, (ValueError, 503)), {}, TypeError, "retry_on is"),
        ((2, int), {}, TypeError, "retry_on is <class 'int'>"),
        ((2, ValueError("x")), {}, TypeError, "retry_on is ValueError"),
        ((2,), {"exclude": "node-1"}, TypeError, "exclude is 'node-1'; give a collection of ids"),
    ],
)
def test_wrong_arguments(
    arguments: tuple[Any, ...], keywords: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Wrong arguments are told at the call, with the value and the remedy."""
    with pytest.raises(error, match=message):
        Balancer(["node-1"]).attempts(*arguments, **keywords)
