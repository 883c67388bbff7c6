"""`call` and `call_async`: the loop of attempts in one call."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Generator
from typing import Any

import pytest
from tests.balancer.call.support import Asked, Call, InOrder, call_it, failures, in_flight

from loadwise import (
    Backoff,
    Balancer,
    HealthStatus,
    Lease,
    NoNodeAvailable,
    Outcome,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    RetryBudget,
)
from loadwise.testing import ManualClock


@pytest.mark.parametrize("answer", [None, 0, "", [], object(), NotImplemented])
def test_it_returns_what_the_function_returns(
    call: Call, balancer: Balancer[str], answer: object
) -> None:
    """Whatever that is, also if it counts as false."""
    assert call(balancer, lambda node: answer) is answer
    assert in_flight(balancer) == 0


def test_another_node_after_a_failure(call: Call, balancer: Balancer[str]) -> None:
    """It goes on until a node answers; what failed on the way counts."""
    asked = Asked("ab")
    assert call(balancer, asked) == "answer from c"
    assert asked.nodes == ["a", "b", "c"]
    assert failures(balancer) == {"a": 1, "b": 1, "c": 0}
    assert in_flight(balancer) == 0


def test_the_last_error_is_raised(call: Call, balancer: Balancer[str]) -> None:
    """As it was raised; a request that fails everywhere is blamed on its first node."""
    asked = Asked("abc")
    with pytest.raises(ConnectionError, match="from b"):
        call(balancer, asked, attempts=2)
    assert asked.nodes == ["a", "b"]
    assert failures(balancer) == {"a": 1, "b": 0, "c": 0}


def test_what_is_not_to_be_retried(call: Call, balancer: Balancer[str]) -> None:
    """An exception of another kind goes straight to the caller, and blames nobody."""
    asked = Asked("abc", KeyError)
    with pytest.raises(KeyError):
        call(balancer, asked, retry_on=ConnectionError)
    assert asked.nodes == ["a"]
    assert not any(failures(balancer).values())


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        SystemExit(),
        GeneratorExit(),
        asyncio.CancelledError(),
        concurrent.futures.CancelledError(),
        BaseExceptionGroup("g", [asyncio.CancelledError()]),
    ],
    ids=repr,
)
def test_cancellations_are_not_retried(balancer: Balancer[str], error: BaseException) -> None:
    """They say nothing of the node."""
    asked: list[str] = []

    def fail(node: str) -> None:
        asked.append(node)
        raise error

    with pytest.raises(type(error)) as caught:
        balancer.call(fail, retry_on=BaseException)
    assert caught.value is error
    assert asked == ["a"]
    assert not any(failures(balancer).values())
    assert in_flight(balancer) == 0


def test_stop_iteration_is_an_exception_like_others(balancer: Balancer[str]) -> None:
    """It is retried, and raised in the end, and ends no loop but its own."""
    asked = Asked("ab", StopIteration)
    assert balancer.call(asked) == "answer from c"
    with pytest.raises(StopIteration, match="from b"):
        balancer.call(asked, attempts=2)
    # Out of a coroutine Python itself does not let it.
    with pytest.raises(RuntimeError, match="StopIteration"):
        asyncio.run(call_it(balancer, asked, attempts=2))
    assert in_flight(balancer) == 0


def test_a_coroutine_that_is_closed_gives_its_lease_back(balancer: Balancer[str]) -> None:
    """``GeneratorExit`` comes from outside, in the middle of the wait."""

    class Forever:
        def __await__(self) -> Generator[None, None, None]:
            while True:
                yield

    request = balancer.call_async(lambda _: Forever())
    request.send(None)
    assert in_flight(balancer) == 1
    request.close()
    assert in_flight(balancer) == 0
    assert not any(failures(balancer).values())


def test_groups_of_exceptions(balancer: Balancer[str]) -> None:
    """What a TaskGroup raises is retried as the group that it is, not as what is in it."""
    asked: list[str] = []

    async def part(node: str) -> None:
        if node != "c":
            raise ConnectionError(node)

    async def fetch(node: str) -> str:
        asked.append(node)
        async with asyncio.TaskGroup() as group:
            group.create_task(part(node))
            group.create_task(asyncio.sleep(0))
        return node

    async def main() -> None:
        assert await balancer.call_async(fetch) == "c"
        with pytest.raises(ExceptionGroup):
            await balancer.call_async(fetch, retry_on=ConnectionError)

    asyncio.run(main())
    assert asked == ["a", "b", "c", "a"]


def test_with_lease(call: Call, balancer: Balancer[str]) -> None:
    """The function is given the lease, and a word on it holds."""
    leases: list[Lease[str]] = []

    def request(node: str, lease: Lease[str]) -> str:
        assert lease.node == node
        leases.append(lease)
        if node == "a":
            lease.rate_limited(5.0)
        if node == "b":
            lease.failure("status 503")
        return f"answer from {node}"

    assert call(balancer, request, with_lease=True) == "answer from c"
    assert [lease.outcome for lease in leases] == [
        Outcome.RATE_LIMITED,
        Outcome.FAILURE,
        Outcome.SUCCESS,
    ]


@pytest.mark.parametrize("attempts", [2, 5])
def test_the_last_answer_is_returned_though_it_was_a_failure(
    call: Call, balancer: Balancer[str], attempts: int
) -> None:
    """There is no error to raise, so the caller gets the answer and may look at it."""

    def request(node: str, lease: Lease[str]) -> str:
        lease.failure("status 503")
        return f"503 from {node}"

    last = "b" if attempts == 2 else "c"
    assert call(balancer, request, with_lease=True, attempts=attempts) == f"503 from {last}"


def test_an_answer_is_better_than_no_node(call: Call) -> None:
    """Where the next attempt finds no node, the answer that there is is returned."""
    clock = ManualClock()
    balancer = Balancer(["a"], InOrder(), clock=clock)

    def request(node: str, lease: Lease[str]) -> str:
        lease.failure("status 503")
        balancer.remove("a")
        return "503"

    backoff = Backoff(base=1e-6, cap=1e-6)
    assert call(balancer, request, with_lease=True, backoff=backoff, deadline=60.0) == "503"


def test_an_error_after_such_an_answer_is_raised(call: Call, balancer: Balancer[str]) -> None:
    """What came last counts."""

    def request(node: str, lease: Lease[str]) -> str:
        if node == "a":
            lease.failure("status 503")
            return "503"
        raise ConnectionError(f"from {node}")

    with pytest.raises(ConnectionError, match="from c"):
        call(balancer, request, with_lease=True)


def test_such_an_error_may_be_that_of_a_timeout(call: Call, balancer: Balancer[str]) -> None:
    """It is raised where no node is left, too, for it is the function's own."""
    balancer.drain("c")

    def request(node: str, lease: Lease[str]) -> str:
        if node == "a":
            lease.failure("status 503")
            return "503"
        raise TimeoutError(f"no answer from {node}")

    with pytest.raises(TimeoutError, match="no answer from b"):
        call(balancer, request, with_lease=True)


def test_a_stream_is_settled_by_its_lease(call: Call) -> None:
    """First byte and true costs are told within the call, as in a block."""
    clock = ManualClock()
    quota = QuotaTracker(clock)
    quota.register("a", QuotaConfig([QuotaDimension("tpm", limit=100)]))
    balancer = Balancer(["a"], quota=quota, clock=clock)
    seen: list[Lease[str]] = []

    def request(node: str, lease: Lease[str]) -> str:
        seen.append(lease)
        clock.advance(1.0)
        lease.first_byte()
        clock.advance(5.0)
        lease.settle({"tpm": 30})
        return "all of it"

    assert call(balancer, request, with_lease=True, cost={"tpm": 60}) == "all of it"
    assert seen[0].latency == 1.0
    assert quota.remaining("a", "tpm") == 70


def test_without_any_node(call: Call) -> None:
    """The error tells why, as that of `acquire`."""
    with pytest.raises(NoNodeAvailable) as caught:
        call(Balancer([], name="search"), Asked())
    assert (caught.value.balancer, caught.value.reason) == ("search", "empty")


def test_what_a_request_asks_for(call: Call, balancer: Balancer[str]) -> None:
    """Exclusions and filters hold in every attempt."""
    asked = Asked("abc")
    with pytest.raises(ConnectionError, match="from c"):
        call(balancer, asked, exclude=["a"], where=lambda node: node != "b")
    assert asked.nodes == ["c"]


def test_rounds_and_budget(call: Call, balancer: Balancer[str]) -> None:
    """The limits are those of attempts."""
    asked = Asked("abc")
    backoff = Backoff(base=1e-6, cap=1e-6)
    with pytest.raises(ConnectionError, match="from a"):
        call(balancer, asked, attempts=4, backoff=backoff)
    assert asked.nodes == ["a", "b", "c", "a"]
    asked = Asked("abc")
    with pytest.raises(ConnectionError, match="from a"):
        call(balancer, asked, budget=RetryBudget(ratio=0.0, floor=0.0))
    assert asked.nodes == ["a"]


def test_a_deadline_does_not_end_a_call_under_way() -> None:
    """What runs in its thread runs to its end; it only begins nothing more."""
    clock = ManualClock()
    balancer = Balancer(["a", "b"], InOrder(), clock=clock)
    asked: list[str] = []

    def slow(node: str) -> str:
        asked.append(node)
        clock.advance(5.0)
        if len(asked) == 1:
            raise ConnectionError("too late for another")
        return "late, but here"

    with pytest.raises(ConnectionError, match="too late for another"):
        balancer.call(slow, deadline=1.0)
    assert balancer.call(slow, deadline=1.0) == "late, but here"


@pytest.mark.parametrize(
    ("fn", "keywords", "error", "message"),
    [
        ("GET /", {}, TypeError, "fn is 'GET /'; it must be a function of a node"),
        (None, {}, TypeError, "fn is None"),
        (str, {"attempts": 0}, ValueError, "attempts is 0; it must be at least 1"),
        (str, {"attempts": 2.0}, TypeError, "attempts is 2.0; it must be an int|got float"),
        (str, {"retry_on": 503}, TypeError, "retry_on is 503"),
        (str, {"exclude": "a"}, TypeError, "exclude is 'a'; give a collection of ids"),
        (str, {"with_lease": 1}, TypeError, "with_lease is 1; it must be True or False|got int"),
    ],
)
def test_wrong_arguments(
    balancer: Balancer[str], fn: Any, keywords: dict[str, Any], error: type[Exception], message: str
) -> None:
    """They are told at the call, before any node is chosen."""
    with pytest.raises(error, match=message):
        balancer.call(fn, **keywords)
    with pytest.raises(error, match=message):
        _ = balancer.call_async(fn, **keywords)  # before it is awaited
    assert all(status.picks == 0 for status in balancer.status())


def test_threads() -> None:
    """Calls from many threads at once are counted and ended each for itself."""
    balancer = Balancer([f"n{i}" for i in range(4)], health=False)
    answers: list[str] = []

    def request(node: str) -> str:
        if node == "n0":
            raise ConnectionError
        return node

    def worker() -> None:
        answers.extend(balancer.call(request) for _ in range(200))

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 800
    assert set(answers) == {"n1", "n2", "n3"}
    assert in_flight(balancer) == 0


def test_a_bad_day(call: Call) -> None:
    """Two nodes of three are dead: every call is answered, and the dead are found out."""
    balancer = Balancer(["a", "b", "c"])
    for _ in range(20):
        assert call(balancer, Asked("ab")) == "answer from c"
    assert balancer.health is not None
    assert balancer.health.status("c") is HealthStatus.HEALTHY
