"""`call` and `call_async`: the loop of attempts in one call."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from tests.balancer.test_lease import strike_at

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
    RoundRobin,
    SelectionContext,
)
from loadwise.balancer.calls import run, run_async
from loadwise.testing import ManualClock

EMPTY = SelectionContext()
Call = Callable[..., Any]


class InOrder:
    """A strategy that takes the first node that may be chosen."""

    def select(self, candidates: Sequence[str], context: SelectionContext = EMPTY) -> int | None:
        """Return the first index, if any."""
        return next((i for i in range(len(candidates)) if i not in context.exclude), None)


def call_sync(balancer: Balancer[str], fn: Callable[..., Any], **keywords: Any) -> Any:
    """Call a plain function."""
    return balancer.call(fn, **keywords)


def call_async(balancer: Balancer[str], fn: Callable[..., Any], **keywords: Any) -> Any:
    """Call the same function as a coroutine function."""

    async def coroutine(*arguments: Any) -> Any:
        await asyncio.sleep(0)
        return fn(*arguments)

    async def main() -> Any:
        return await balancer.call_async(coroutine, **keywords)

    return asyncio.run(main())


async def call_it(balancer: Balancer[str], fn: Callable[..., Any], **keywords: Any) -> Any:
    """Call a plain function that is taken for one that returns what can be awaited."""
    return await balancer.call_async(fn, **keywords)


@pytest.fixture(params=[call_sync, call_async], ids=["call", "call_async"])
def call(request: pytest.FixtureRequest) -> Call:
    """Return a way to call a function."""
    way: Call = request.param
    return way


@pytest.fixture
def balancer() -> Balancer[str]:
    """Return a balancer of three nodes, in order."""
    return Balancer(["a", "b", "c"], InOrder())


def in_flight(balancer: Balancer[Any]) -> int:
    """Return the requests in flight on all nodes."""
    return sum(status.in_flight for status in balancer.status())


def failures(balancer: Balancer[str]) -> dict[str, int]:
    """Return the failures in a row of each node, as its health knows them."""
    assert balancer.health is not None
    return {node: balancer.health.health(node).consecutive_failures for node in balancer.nodes}


class Asked:
    """A request that fails on some nodes, and notes where it went."""

    def __init__(self, bad: str = "", error: type[BaseException] = ConnectionError) -> None:
        self.nodes: list[str] = []
        self._bad = bad
        self._error = error

    def __call__(self, node: str) -> str:
        self.nodes.append(node)
        if node in self._bad:
            raise self._error(f"from {node}")
        return f"answer from {node}"


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


async def coroutine_function(node: str) -> str:
    """Answer later."""
    return node


def generator_function(node: str) -> Iterator[str]:
    """Answer bit by bit."""
    yield node


async def async_generator_function(node: str) -> AsyncIterator[str]:
    """Answer bit by bit, later."""
    yield node


class Later:
    """What is called by a coroutine method."""

    async def __call__(self, node: str) -> str:
        return node

    async def method(self, node: str) -> str:
        return node


@pytest.mark.parametrize(
    "fn",
    [
        coroutine_function,
        generator_function,
        async_generator_function,
        functools.partial(coroutine_function),
        Later(),
        Later().method,
    ],
)
def test_call_refuses_what_answers_later(balancer: Balancer[str], fn: Callable[..., Any]) -> None:
    """Nothing of it would have run when it returned: the error names the remedy."""
    with pytest.raises(TypeError, match=r"which is to be awaited; await call_async\(...\) instead"):
        balancer.call(fn)
    assert all(status.picks == 0 for status in balancer.status())


def test_call_refuses_an_answer_that_is_to_be_awaited(balancer: Balancer[str]) -> None:
    """Where the function does not show it, its answer does; it is the caller's mistake."""
    asked: list[str] = []

    def hidden(node: str) -> Awaitable[str]:
        asked.append(node)
        return coroutine_function(node)

    with pytest.raises(TypeError, match=r"fn returned <coroutine .* await call_async\(...\)"):
        balancer.call(hidden)
    assert asked == ["a"]
    assert not any(failures(balancer).values())
    assert in_flight(balancer) == 0


@pytest.mark.parametrize("fn", [lambda _: 5, lambda _: None, generator_function])
def test_call_async_refuses_an_answer_that_cannot_be_awaited(
    balancer: Balancer[str], fn: Callable[..., Any]
) -> None:
    """The error names the remedy, and nothing is retried."""
    with pytest.raises(TypeError, match="which cannot be awaited; give a coroutine function"):
        asyncio.run(balancer.call_async(fn))
    assert sum(status.picks for status in balancer.status()) == 1
    assert not any(failures(balancer).values())
    assert in_flight(balancer) == 0


def test_call_async_takes_whatever_can_be_awaited(balancer: Balancer[str]) -> None:
    """Coroutines of a plain function, tasks, futures and objects of one's own."""

    class Answer:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def main() -> None:
        for fn in (
            lambda _: coroutine_function("a"),
            lambda node: asyncio.ensure_future(coroutine_function(node)),
            Later(),
            functools.partial(coroutine_function),
        ):
            assert await balancer.call_async(fn) == "a"
        await balancer.call_async(lambda _: Answer())

    asyncio.run(main())


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


# The deadline of `call_async`. The timers are real, and what is waited for never comes.


async def never(node: str) -> None:
    """Wait for an answer that does not come."""
    await asyncio.Event().wait()


def test_the_deadline_cancels_the_attempt_under_way(balancer: Balancer[str]) -> None:
    """It is a TimeoutError that says so; the node is not to blame."""
    cancelled: list[str] = []

    async def request(node: str) -> None:
        try:
            await never(node)
        except asyncio.CancelledError:
            cancelled.append(node)
            raise

    with pytest.raises(
        TimeoutError, match=r"the deadline of 0\.01 s has passed in attempt 1, on node 'a'"
    ) as caught:
        asyncio.run(balancer.call_async(request, deadline=0.01))
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert cancelled == ["a"]
    assert not any(failures(balancer).values())
    assert in_flight(balancer) == 0


def test_the_deadline_is_for_all_attempts(balancer: Balancer[str]) -> None:
    """The error of the deadline tells of the one before."""
    asked: list[str] = []

    async def request(node: str) -> None:
        asked.append(node)
        if node == "a":
            raise ConnectionError("refused")
        await never(node)

    with pytest.raises(TimeoutError, match="in attempt 2, on node 'b'") as caught:
        asyncio.run(balancer.call_async(request, deadline=0.02))
    assert asked == ["a", "b"]
    assert caught.value.__notes__ == ["the attempt before was left by ConnectionError('refused')"]
    assert failures(balancer) == {"a": 1, "b": 0, "c": 0}


def test_the_deadline_counts_by_hung_after() -> None:
    """A node that was given as long as ``hung_after`` has failed, by the deadline as by others."""
    balancer = Balancer(["a"], hung_after=0.005)
    outcomes: list[Lease[str]] = []

    async def request(node: str, lease: Lease[str]) -> None:
        outcomes.append(lease)
        await never(node)

    with pytest.raises(TimeoutError):
        asyncio.run(balancer.call_async(request, with_lease=True, deadline=0.01))
    assert [lease.outcome for lease in outcomes] == [Outcome.FAILURE]
    assert "no answer in" in str(balancer.status()[0].health_reason)


def test_the_deadline_is_no_failure_without_it(balancer: Balancer[str]) -> None:
    """A request given up by its caller is cancelled."""
    outcomes: list[Lease[str]] = []

    async def request(node: str, lease: Lease[str]) -> None:
        outcomes.append(lease)
        await never(node)

    with pytest.raises(TimeoutError):
        asyncio.run(balancer.call_async(request, with_lease=True, deadline=0.01))
    assert [lease.outcome for lease in outcomes] == [Outcome.CANCELLED]


def test_a_word_before_the_deadline_does_not_lead_on(balancer: Balancer[str]) -> None:
    """A lease that was a failure already, and whose function is cancelled, is the last one."""
    asked: list[str] = []

    async def request(node: str, lease: Lease[str]) -> None:
        asked.append(node)
        lease.failure("status 503")
        await never(node)

    clock = ManualClock()  # by which no time passes
    balancer = Balancer(["a", "b"], InOrder(), clock=clock)
    with pytest.raises(TimeoutError):
        asyncio.run(balancer.call_async(request, with_lease=True, deadline=0.01))
    assert asked == ["a"]


def test_a_cancellation_from_outside_is_not_the_deadlines(balancer: Balancer[str]) -> None:
    """The task is cancelled, as it would be without a deadline."""

    async def main() -> None:
        inside = asyncio.Event()

        async def request(node: str) -> None:
            inside.set()
            await never(node)

        task = asyncio.ensure_future(balancer.call_async(request, deadline=60.0))
        await asyncio.wait_for(inside.wait(), timeout=10)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert in_flight(balancer) == 0

    asyncio.run(main())


def test_both_at_once_are_a_cancellation(balancer: Balancer[str]) -> None:
    """Who cancels the task while the deadline's cancellation is under way gets his own."""

    async def main() -> None:
        inside = asyncio.Event()

        async def request(node: str) -> None:
            try:
                await never(node)
            except asyncio.CancelledError:
                inside.set()
                await never(node)  # where it is cancelled again

        task = asyncio.ensure_future(balancer.call_async(request, deadline=0.01))
        await asyncio.wait_for(inside.wait(), timeout=10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert in_flight(balancer) == 0

    asyncio.run(main())


def test_the_callers_own_timeout_is_not_confused(balancer: Balancer[str]) -> None:
    """An ``asyncio.timeout`` around the call ends it as ever, and so does one inside."""

    async def inside(node: str) -> None:
        async with asyncio.timeout(0.005):
            await never(node)

    async def main() -> None:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.005):
                await balancer.call_async(never, deadline=60.0)
        assert "deadline" not in str(caught.value)
        assert not any(failures(balancer).values())
        with pytest.raises(TimeoutError) as caught:
            await balancer.call_async(inside, deadline=60.0)
        assert "deadline" not in str(caught.value)
        # That is the node's: it had so long to answer.
        assert failures(balancer)["a"] == 1

    asyncio.run(main())


def test_an_answer_in_spite_of_the_deadline(balancer: Balancer[str]) -> None:
    """A function that will not be cancelled has its answer returned."""

    async def stubborn(node: str) -> str:
        try:
            await never(node)
        except asyncio.CancelledError:
            return "here all the same"
        return "never"

    async def main() -> None:
        assert await balancer.call_async(stubborn, deadline=0.01) == "here all the same"
        await asyncio.sleep(0)  # the task is not left cancelled

    asyncio.run(main())


def test_an_error_in_place_of_the_cancellation_is_the_last(balancer: Balancer[str]) -> None:
    """It is raised, and nothing is tried after the deadline, whatever the clock says."""
    asked: list[str] = []

    async def request(node: str) -> None:
        asked.append(node)
        try:
            await never(node)
        except asyncio.CancelledError:
            raise ConnectionError("closed") from None

    balancer = Balancer(["a", "b"], InOrder(), clock=ManualClock())
    with pytest.raises(ConnectionError, match="closed"):
        asyncio.run(balancer.call_async(request, deadline=0.01))
    assert asked == ["a"]


def test_a_deadline_needs_a_task(balancer: Balancer[str]) -> None:
    """Where no timer could end the attempt, none is begun, and the error says so."""
    request = balancer.call_async(never, deadline=1.0)
    with pytest.raises(RuntimeError, match="needs a task of asyncio"):
        request.send(None)
    assert all(status.picks == 0 for status in balancer.status())


def test_waits_of_call_async_let_others_go_on() -> None:
    """Between rounds other tasks run; a cancellation there leaves nothing behind."""

    async def main() -> None:
        balancer = Balancer(["a"], health=False)
        waiting = asyncio.Event()

        async def forever(seconds: float) -> None:
            waiting.set()
            await asyncio.Event().wait()

        async def fail(node: str) -> None:
            raise ConnectionError

        attempts = balancer.attempts(3, backoff=Backoff(), deadline=60.0)
        assert attempts.pacing is not None
        attempts.pacing.sleep_async = forever
        task = asyncio.ensure_future(run_async(attempts, fail, with_lease=False))
        await asyncio.wait_for(waiting.wait(), timeout=10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert in_flight(balancer) == 0

    asyncio.run(main())


def test_ctrl_c_in_a_wait_of_call() -> None:
    """It reaches the caller, and nothing is held."""

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    balancer = Balancer(["a"], health=False)
    attempts = balancer.attempts(3, backoff=Backoff())
    assert attempts.pacing is not None
    attempts.pacing.sleep = interrupted
    with pytest.raises(KeyboardInterrupt):
        run(attempts, Asked("a"), with_lease=False)
    assert in_flight(balancer) == 0


@pytest.mark.parametrize("bad", ["", "a", "abc"])
def test_ctrl_c_anywhere_in_a_call(bad: str) -> None:
    """Wherever it strikes, nothing stays in flight, and the limit of a node is whole again."""
    balancer = Balancer(["a", "b", "c"], RoundRobin(), health=False, max_in_flight=1)

    def work() -> None:
        with suppress(ConnectionError):
            balancer.call(Asked(bad), attempts=5, backoff=Backoff(base=1e-9, cap=1e-9))

    with warnings.catch_warnings():
        # Where it strikes as a lease is about to be ended, that is dropped without a word.
        warnings.simplefilter("ignore", ResourceWarning)
        place = 0
        while strike_at(place, work):
            place += 1
            assert in_flight(balancer) == 0, place
            leases = [balancer.acquire() for _ in range(3)]
            for lease in leases:
                lease.success()
            assert place < 5000
    assert place > 20


def test_call_in_an_event_loop_may_not_sleep(balancer: Balancer[str]) -> None:
    """The error names what does not stop the loop."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match="await call_async"):
            balancer.call(Asked("abc"), attempts=4, backoff=Backoff(jitter=False))

    asyncio.run(main())


def test_a_bad_day(call: Call) -> None:
    """Two nodes of three are dead: every call is answered, and the dead are found out."""
    balancer = Balancer(["a", "b", "c"])
    for _ in range(20):
        assert call(balancer, Asked("ab")) == "answer from c"
    assert balancer.health is not None
    assert balancer.health.status("c") is HealthStatus.HEALTHY
