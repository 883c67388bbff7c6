"""Attempts in time: rounds with backoff, deadlines, budgets, and waiting for a node."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from loadwise import (
    Attempts,
    Backoff,
    Balancer,
    ConsecutiveFailurePolicy,
    HealthTracker,
    Lease,
    NoNodeAvailable,
    NoopCollector,
    Outcome,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    RetryBudget,
    SelectionContext,
)
from loadwise.balancer.acquiring import Acquiring
from loadwise.testing import ManualClock, ScriptedRandom

EMPTY = SelectionContext()
STEADY = Backoff(base=1.0, cap=4.0, jitter=False)
Request = Callable[[Lease[str]], object]
Send = Callable[[Attempts[str], Request], None]


class InOrder:
    """A strategy that takes the first node that may be chosen."""

    def select(self, candidates: Sequence[str], context: SelectionContext = EMPTY) -> int | None:
        """Return the first index, if any."""
        return next((i for i in range(len(candidates)) if i not in context.exclude), None)


class Sleeper:
    """Waits by a clock that goes when told, and remembers how long."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Wait."""
        self.slept.append(seconds)
        self.clock.advance(seconds)

    async def sleep_async(self, seconds: float) -> None:
        """Wait."""
        self.sleep(seconds)

    def balancer(self, *nodes: str, **keywords: Any) -> Balancer[str]:
        """Return a balancer that goes by this clock."""
        return Balancer(nodes, InOrder(), clock=self.clock, health=False, **keywords)

    def attempts(self, balancer: Balancer[str], n: int, **keywords: Any) -> Attempts[str]:
        """Return attempts that wait by this clock."""
        attempts = balancer.attempts(n, **keywords)
        assert attempts.pacing is not None
        attempts.pacing.sleep = self.sleep
        attempts.pacing.sleep_async = self.sleep_async
        return attempts


def send_sync(attempts: Attempts[str], request: Request) -> None:
    """Send a request by ``with`` blocks."""
    for attempt in attempts:
        with attempt as lease:
            request(lease)


def send_async(attempts: Attempts[str], request: Request) -> None:
    """Send a request by ``async with`` blocks."""

    async def main() -> None:
        for attempt in attempts:
            async with attempt as lease:
                request(lease)

    asyncio.run(main())


@pytest.fixture(params=[send_sync, send_async], ids=["with", "async with"])
def send(request: pytest.FixtureRequest) -> Send:
    """Return a way to send a request that is tried again."""
    way: Send = request.param
    return way


@pytest.fixture
def sleeper() -> Sleeper:
    """Return what waits."""
    return Sleeper()


class Tried:
    """A request that fails, by an exception or by a word, so many times; it notes where."""

    def __init__(self, failures: float = math.inf, *, by_word: bool = False) -> None:
        self.nodes: list[str] = []
        self._failures = failures
        self._by_word = by_word

    def __call__(self, lease: Lease[str]) -> None:
        self.nodes.append(lease.node)
        if len(self.nodes) > self._failures:
            return
        if self._by_word:
            lease.failure("status 503")
        else:
            raise ConnectionError(f"number {len(self.nodes)}")


def in_flight(balancer: Balancer[Any]) -> int:
    """Return the requests in flight on all nodes."""
    return sum(status.in_flight for status in balancer.status())


@pytest.mark.parametrize("by_word", [False, True])
def test_without_backoff_there_is_one_round(send: Send, sleeper: Sleeper, *, by_word: bool) -> None:
    """Also where there are other limits, no node is tried twice."""
    tried = Tried(by_word=by_word)
    attempts = sleeper.attempts(sleeper.balancer("a", "b"), 9, deadline=60.0)
    if by_word:
        send(attempts, tried)
    else:
        with pytest.raises(ConnectionError, match="number 2"):
            send(attempts, tried)
    assert (tried.nodes, sleeper.slept) == (["a", "b"], [])


@pytest.mark.parametrize("by_word", [False, True])
def test_rounds(send: Send, sleeper: Sleeper, *, by_word: bool) -> None:
    """After each round it waits, longer each time, and all nodes may be tried again."""
    tried = Tried(7, by_word=by_word)
    balancer = sleeper.balancer("a", "b")
    send(sleeper.attempts(balancer, 8, backoff=STEADY), tried)
    assert tried.nodes == ["a", "b"] * 4
    assert sleeper.slept == [1.0, 2.0, 4.0]
    assert in_flight(balancer) == 0


@pytest.mark.parametrize("by_word", [False, True])
def test_attempts_are_counted_over_rounds(send: Send, sleeper: Sleeper, *, by_word: bool) -> None:
    """Rounds give no attempts; after the last there is no wait."""
    tried = Tried(by_word=by_word)
    attempts = sleeper.attempts(sleeper.balancer("a"), 3, backoff=STEADY)
    if by_word:
        send(attempts, tried)
    else:
        with pytest.raises(ConnectionError, match="number 3"):
            send(attempts, tried)
    assert (tried.nodes, sleeper.slept) == (["a"] * 3, [1.0, 2.0])


def test_what_the_caller_excludes_stays_excluded(send: Send, sleeper: Sleeper) -> None:
    """Only what this loop has tried is forgotten from round to round."""
    tried = Tried(3)
    balancer = sleeper.balancer("a", "b", "c")
    send(sleeper.attempts(balancer, 9, backoff=STEADY, exclude=["b"]), tried)
    assert tried.nodes == ["a", "c", "a", "c"]


def test_a_round_ends_when_the_others_cannot_be_had(send: Send, sleeper: Sleeper) -> None:
    """The round is over with all that is available, not with all members."""
    balancer = sleeper.balancer("a", "b", "c")
    balancer.drain("b")
    tried = Tried(3)
    send(sleeper.attempts(balancer, 9, backoff=STEADY), tried)
    assert (tried.nodes, sleeper.slept) == (["a", "c", "a", "c"], [1.0])


def test_jitter_waits_for_what_is_drawn(send: Send, sleeper: Sleeper) -> None:
    """The pause of round k is drawn from 0 to min(cap, base * 2**k); 0 is no pause at all."""
    backoff = Backoff(base=1.0, cap=4.0, rng=ScriptedRandom([0.5, 0.0, 0.25]))
    send(sleeper.attempts(sleeper.balancer("a"), 4, backoff=backoff), Tried(3))
    assert sleeper.slept == [0.5, 1.0]


def resting(sleeper: Sleeper, **seconds: float) -> Balancer[str]:
    """Return a balancer whose nodes sit out for so many seconds."""
    balancer = sleeper.balancer(*seconds)
    for node, pause in seconds.items():
        balancer.acquire(exclude=set(seconds) - {node}).rate_limited(pause)
    return balancer


def test_no_node_uses_up_no_attempt(send: Send, sleeper: Sleeper) -> None:
    """It waits until the error says there is one, and then has its one attempt."""
    tried = Tried(0)
    send(sleeper.attempts(resting(sleeper, a=30.0, b=60.0), 1, backoff=STEADY), tried)
    assert (tried.nodes, sleeper.slept) == (["a"], [30.0])


def test_the_backoff_may_be_the_longer_wait(send: Send, sleeper: Sleeper) -> None:
    """The later of the two holds."""
    tried = Tried(0)
    send(sleeper.attempts(resting(sleeper, a=0.25), 1, backoff=STEADY), tried)
    assert (tried.nodes, sleeper.slept) == (["a"], [1.0])


def test_a_new_round_does_not_wait_for_those_that_rest(send: Send, sleeper: Sleeper) -> None:
    """A node of the last round is there after the pause, long before the one that rests."""
    balancer = sleeper.balancer("a", "b")
    balancer.acquire(exclude=["a"]).rate_limited(30.0)
    tried = Tried(1)
    send(sleeper.attempts(balancer, 2, backoff=STEADY), tried)
    assert (tried.nodes, sleeper.slept) == (["a", "a"], [1.0])


def test_a_node_that_asks_for_a_rest_is_given_it(send: Send, sleeper: Sleeper) -> None:
    """A fleet of one that says 429 is asked again when it said it may be."""

    def request(lease: Lease[str]) -> None:
        asked.append(sleeper.clock())
        if len(asked) == 1:
            lease.rate_limited(10.0)

    asked: list[float] = []
    send(sleeper.attempts(sleeper.balancer("a"), 2, backoff=STEADY), request)
    assert asked == [0.0, 10.0]


@pytest.mark.parametrize("backoff", [None, STEADY])
def test_where_time_does_not_help_it_does_not_wait(
    send: Send, sleeper: Sleeper, backoff: Backoff | None
) -> None:
    """An empty balancer stays empty; so do those whose nodes are drained or excluded."""
    for balancer, exclude in (
        (sleeper.balancer(), ()),
        (sleeper.balancer("a"), ("a",)),
    ):
        attempts = sleeper.attempts(balancer, 3, backoff=backoff, deadline=60.0, exclude=exclude)
        with pytest.raises(NoNodeAvailable):
            send(attempts, Tried(0))
    assert sleeper.slept == []


def test_members_that_leave_meanwhile(send: Send, sleeper: Sleeper) -> None:
    """Where all have gone by the next round, the last error is raised."""
    balancer = sleeper.balancer("a")

    def request(lease: Lease[str]) -> None:
        balancer.remove("a")
        raise ConnectionError("the last")

    with pytest.raises(ConnectionError, match="the last"):
        send(sleeper.attempts(balancer, 3, backoff=STEADY), request)


def test_no_attempt_begins_past_the_deadline(send: Send, sleeper: Sleeper) -> None:
    """The last error is raised; an attempt that is under way goes on."""
    balancer = sleeper.balancer("a", "b", "c")
    tried = Tried(2)

    def request(lease: Lease[str]) -> None:
        sleeper.clock.advance(1.0)
        tried(lease)

    with pytest.raises(ConnectionError, match="number 2"):
        send(sleeper.attempts(balancer, 3, deadline=2.0), request)
    assert tried.nodes == ["a", "b"]
    tried.nodes.clear()
    send(sleeper.attempts(balancer, 3, deadline=2.5), request)
    assert tried.nodes == ["a", "b", "c"]


def test_past_the_deadline_a_loop_of_words_just_ends(send: Send, sleeper: Sleeper) -> None:
    """There is no error to raise; the outcome is on the lease."""
    tried = Tried(by_word=True)

    def request(lease: Lease[str]) -> None:
        sleeper.clock.advance(1.0)
        tried(lease)

    send(sleeper.attempts(sleeper.balancer("a", "b", "c"), 3, deadline=2.0), request)
    assert tried.nodes == ["a", "b"]


def test_a_first_attempt_that_is_too_late(send: Send, sleeper: Sleeper) -> None:
    """Without an error to raise it is a TimeoutError that names the deadline."""
    attempts = sleeper.attempts(sleeper.balancer("a"), 3, deadline=2.0)
    sleeper.clock.advance(2.0)
    with pytest.raises(TimeoutError, match="the deadline of 2 s has passed before attempt 1 began"):
        send(attempts, Tried(0))


@pytest.mark.parametrize("by_word", [False, True])
def test_no_wait_runs_past_the_deadline(send: Send, sleeper: Sleeper, *, by_word: bool) -> None:
    """It gives up at once where the wait would."""
    tried = Tried(by_word=by_word)
    attempts = sleeper.attempts(sleeper.balancer("a"), 9, backoff=STEADY, deadline=3.0)
    if by_word:
        send(attempts, tried)
    else:
        with pytest.raises(ConnectionError, match="number 2"):
            send(attempts, tried)
    assert (tried.nodes, sleeper.slept) == (["a"] * 2, [1.0])


def test_no_wait_for_a_node_runs_past_the_deadline(send: Send, sleeper: Sleeper) -> None:
    """Where a node comes too late there is no use in waiting; the error says when it comes."""
    attempts = sleeper.attempts(resting(sleeper, a=30.0), 3, backoff=STEADY, deadline=30.0)
    with pytest.raises(NoNodeAvailable) as caught:
        send(attempts, Tried(0))
    assert (caught.value.retry_after, sleeper.slept) == (30.0, [])


def test_a_wait_that_takes_too_long(send: Send, sleeper: Sleeper) -> None:
    """A machine that wakes up past the deadline begins no attempt."""
    tried = Tried()
    attempts = sleeper.attempts(sleeper.balancer("a"), 9, backoff=STEADY, deadline=3.0)
    assert attempts.pacing is not None

    def oversleep(seconds: float) -> None:
        sleeper.sleep(seconds + 2.0)

    async def oversleep_async(seconds: float) -> None:
        oversleep(seconds)

    attempts.pacing.sleep = oversleep
    attempts.pacing.sleep_async = oversleep_async
    with pytest.raises(ConnectionError, match="number 1"):
        send(attempts, tried)
    assert sleeper.slept == [3.0]


def test_time_lost_before_the_wait_counts(sleeper: Sleeper) -> None:
    """What the loop does between its attempts may make the wait too long."""
    tried = Tried()
    attempts = sleeper.attempts(sleeper.balancer("a"), 9, backoff=STEADY, deadline=3.0)

    def loop() -> None:
        for attempt in attempts:
            with attempt as lease:
                tried(lease)
            sleeper.clock.advance(2.5)

    with pytest.raises(ConnectionError, match="number 1"):
        loop()
    assert sleeper.slept == []


def test_retries_are_taken_from_the_budget(send: Send, sleeper: Sleeper) -> None:
    """The request is a deposit, each further attempt a withdrawal; none is refused silently."""
    budget = RetryBudget(ratio=1.0, floor=0.0, clock=sleeper.clock)
    balancer = sleeper.balancer("a", "b", "c")
    send(sleeper.attempts(balancer, 3, budget=budget), Tried(0))
    assert budget.balance() == 1.0
    tried = Tried()
    with pytest.raises(ConnectionError, match="number 3"):
        send(sleeper.attempts(balancer, 3, budget=budget), tried)
    assert budget.balance() == 0.0
    tried = Tried()
    with pytest.raises(ConnectionError, match="number 2"):
        send(sleeper.attempts(balancer, 3, budget=budget), tried)
    assert tried.nodes == ["a", "b"]


@pytest.mark.parametrize("by_word", [False, True])
def test_a_budget_that_refuses_is_the_end(send: Send, sleeper: Sleeper, *, by_word: bool) -> None:
    """Nothing is waited for, either."""
    budget = RetryBudget(ratio=0.0, floor=0.0, clock=sleeper.clock)
    tried = Tried(by_word=by_word)
    attempts = sleeper.attempts(sleeper.balancer("a"), 3, budget=budget, backoff=STEADY)
    if by_word:
        send(attempts, tried)
    else:
        with pytest.raises(ConnectionError, match="number 1"):
            send(attempts, tried)
    assert (tried.nodes, sleeper.slept) == (["a"], [])


def test_what_is_not_retried_takes_nothing_from_the_budget(send: Send, sleeper: Sleeper) -> None:
    """Neither does a last attempt, nor one for which the time or the nodes are used up."""
    budget = RetryBudget(ratio=0.0, floor=1.0, window=1.0, clock=sleeper.clock)
    balancer = sleeper.balancer("a")
    for n, keywords in ((1, {}), (2, {}), (2, {"retry_on": KeyError})):
        with pytest.raises(ConnectionError):
            send(sleeper.attempts(balancer, n, budget=budget, **keywords), Tried())
    with pytest.raises(ConnectionError):
        send(sleeper.attempts(balancer, 2, budget=budget, backoff=STEADY, deadline=0.5), Tried())
    assert budget.balance() == 1.0


def test_a_round_that_is_over_is_no_event() -> None:
    """That all nodes have been tried is nothing that metrics are told of."""
    refusals: list[str] = []

    class Refusals(NoopCollector):
        def on_unavailable(self, reason: str) -> None:
            refusals.append(reason)

    sleeper = Sleeper()
    balancer = sleeper.balancer("a", "b", metrics=Refusals())
    send_sync(sleeper.attempts(balancer, 6, backoff=STEADY), Tried(5))
    assert refusals == []


def test_blame_spans_rounds(send: Send) -> None:
    """A node that answers in the end is not blamed for what it did before; others are."""
    sleeper = Sleeper()
    health = HealthTracker(ConsecutiveFailurePolicy(9, 2, 10.0), clock=sleeper.clock)
    balancer = Balancer(["a", "b"], InOrder(), clock=sleeper.clock, health=health)
    # a, b, a and b fail; a succeeds. The first failure counts at once, b's last one at the end.
    send(sleeper.attempts(balancer, 5, backoff=STEADY), Tried(4))
    assert health.health("a").consecutive_failures == 0
    assert health.health("b").consecutive_failures == 1
    assert health.health("b").last_failure == 1.0


def test_a_loop_in_an_event_loop_may_not_sleep() -> None:
    """``with`` would stop all other tasks: the error names what does not."""

    async def main() -> None:
        balancer = Balancer(["a"], health=False)
        tried = Tried()
        with pytest.raises(RuntimeError, match="use async with"):
            send_sync(balancer.attempts(2, backoff=STEADY), tried)
        assert tried.nodes == ["a"]
        assert in_flight(balancer) == 0
        # What needs not wait may use it.
        send_sync(Balancer(["a", "b"]).attempts(2, backoff=STEADY), Tried(1))

    asyncio.run(main())


def test_ctrl_c_in_the_middle_of_a_wait(sleeper: Sleeper) -> None:
    """It reaches the caller, and nothing is held."""

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    balancer = sleeper.balancer("a")
    attempts = sleeper.attempts(balancer, 3, backoff=STEADY)
    assert attempts.pacing is not None
    attempts.pacing.sleep = interrupted
    with pytest.raises(KeyboardInterrupt):
        send_sync(attempts, Tried())
    assert in_flight(balancer) == 0


def test_cancellation_in_the_middle_of_a_wait(sleeper: Sleeper) -> None:
    """It reaches the task, and nothing is held; no other task has waited."""

    async def main() -> None:
        waiting = asyncio.Event()

        async def forever(seconds: float) -> None:
            waiting.set()
            await asyncio.Event().wait()

        balancer = sleeper.balancer("a")
        attempts = sleeper.attempts(balancer, 3, backoff=STEADY)
        assert attempts.pacing is not None
        attempts.pacing.sleep_async = forever

        async def request() -> None:
            for attempt in attempts:
                async with attempt:
                    raise ConnectionError

        task = asyncio.create_task(request())
        await asyncio.wait_for(waiting.wait(), timeout=10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert in_flight(balancer) == 0

    asyncio.run(main())


def test_real_waits(send: Send) -> None:
    """By default it waits by the system's clock."""
    backoff = Backoff(base=0.01, cap=0.01, jitter=False)
    tried = Tried(3)
    start = time.monotonic()
    send(Balancer(["a"]).attempts(4, backoff=backoff, deadline=60.0), tried)
    assert len(tried.nodes) == 4
    assert time.monotonic() - start > 0.025  # three waits of 0.01 s, less what timers round off


def test_waits_in_trio() -> None:
    """``async with`` waits there, too."""
    trio = pytest.importorskip("trio")
    tried = Tried(3)

    async def main() -> None:
        with pytest.raises(RuntimeError, match="use async with"):
            send_sync(Balancer(["a"]).attempts(2, backoff=STEADY), Tried())
        backoff = Backoff(base=0.001, cap=0.001)
        for attempt in Balancer(["a"]).attempts(4, backoff=backoff, deadline=60.0, timeout=1.0):
            async with attempt as lease:
                tried(lease)

    trio.run(main)
    assert len(tried.nodes) == 4


def test_threads_have_attempts_of_their_own() -> None:
    """Many loops over one balancer, one backoff and one budget end as they should."""
    balancer = Balancer([f"n{i}" for i in range(4)], health=False)
    backoff, budget = Backoff(base=0.0001, cap=0.0001), RetryBudget(ratio=100.0)
    done: list[int] = []

    def worker() -> None:
        for _ in range(50):
            tried = Tried(5)
            send_sync(balancer.attempts(6, backoff=backoff, budget=budget, deadline=60.0), tried)
            assert len(set(tried.nodes[:4])) == 4
            done.append(len(tried.nodes))

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [6] * 200
    assert in_flight(balancer) == 0


class Waiting(Balancer[str]):
    """A balancer that notes for how long it is asked to wait."""

    def __init__(self, sleeper: Sleeper) -> None:
        super().__init__(["a", "b"], InOrder(), clock=sleeper.clock, health=False)
        self.asked: list[tuple[str, float | None]] = []

    def acquire(self, *arguments: Any, **keywords: Any) -> Lease[str]:
        if "timeout" in keywords:
            self.asked.append(("acquire", keywords["timeout"]))
        return super().acquire(*arguments, **keywords)

    def acquire_async(self, *arguments: Any, **keywords: Any) -> Acquiring[str]:
        self.asked.append(("acquire_async", keywords["timeout"]))
        return super().acquire_async(*arguments, **keywords)


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({"timeout": 5.0}, [5.0, 5.0]),
        ({"timeout": None}, [math.inf, math.inf]),
        ({"timeout": 5.0, "deadline": 6.0}, [5.0, 4.0]),
        ({"timeout": None, "deadline": 6.0}, [6.0, 4.0]),
        ({"timeout": 0.0, "deadline": 6.0}, []),
        ({"timeout": 0, "backoff": STEADY}, []),
    ],
)
def test_the_timeout_is_that_of_acquire(
    send: Send, sleeper: Sleeper, keywords: dict[str, Any], expected: list[float | None]
) -> None:
    """Each attempt may wait for a node so long, but not past the deadline."""
    balancer = Waiting(sleeper)
    tried = Tried(1)

    def request(lease: Lease[str]) -> None:
        sleeper.clock.advance(2.0)
        tried(lease)

    send(sleeper.attempts(balancer, 2, **keywords), request)
    way = "acquire" if send is send_sync else "acquire_async"
    assert balancer.asked == [(way, each) for each in expected]
    assert tried.nodes == ["a", "b"]


def test_full_nodes_are_waited_for(send: Send) -> None:
    """With a timeout an attempt waits until a node has room: nobody is turned away."""
    balancer = Balancer(["a"], max_in_flight=1, health=False)
    most, done = [0], list[int]()

    def request(lease: Lease[str]) -> None:
        most.append(in_flight(balancer))

    def worker() -> None:
        for _ in range(25):
            send(balancer.attempts(1, timeout=60.0), request)
            done.append(1)

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (max(most), len(done)) == (1, 100)


def test_tasks_wait_for_full_nodes() -> None:
    """Those that wait let the one go on for which they wait."""

    async def main() -> None:
        balancer = Balancer(["a"], max_in_flight=1, health=False)

        async def request() -> None:
            for attempt in balancer.attempts(1, timeout=60.0):
                async with attempt:
                    await asyncio.sleep(0)

        await asyncio.gather(*(request() for _ in range(20)))
        assert balancer.status()[0].picks == 20

    asyncio.run(main())


def test_a_round_ends_where_the_others_are_full(send: Send, sleeper: Sleeper) -> None:
    """Without a timeout nobody waits for them; the next round finds who has room then."""
    balancer = sleeper.balancer("a", "b", max_in_flight=1)
    taken = balancer.acquire(exclude=["a"])
    tried = Tried(1)
    send(sleeper.attempts(balancer, 2, backoff=STEADY), tried)
    assert (tried.nodes, sleeper.slept) == (["a", "a"], [1.0])
    taken.success()


@pytest.mark.parametrize("max_waiting", [None, 0])
def test_a_new_round_waits_while_all_are_full(
    send: Send, sleeper: Sleeper, max_waiting: int | None
) -> None:
    """Nobody knows when there will be room, so it looks again after each pause."""
    balancer = sleeper.balancer("a", max_in_flight=1, max_waiting=max_waiting)
    taken = balancer.acquire()
    timeout = 0.0 if max_waiting is None else 60.0
    attempts = sleeper.attempts(balancer, 1, backoff=STEADY, timeout=timeout)
    assert attempts.pacing is not None
    sleep = attempts.pacing.sleep

    def until_there_is_room(seconds: float) -> None:
        sleep(seconds)
        if len(sleeper.slept) == 3:
            taken.success()

    async def until_there_is_room_async(seconds: float) -> None:
        until_there_is_room(seconds)

    attempts.pacing.sleep = until_there_is_room
    attempts.pacing.sleep_async = until_there_is_room_async
    tried = Tried(0)
    send(attempts, tried)
    assert (tried.nodes, sleeper.slept) == (["a"], [1.0, 2.0, 4.0])


def test_a_loop_of_words_goes_on_where_it_may_wait(send: Send, sleeper: Sleeper) -> None:
    """With all tried it ends, though it might wait: there is nobody to wait for."""
    tried = Tried(by_word=True)
    send(sleeper.attempts(Waiting(sleeper), 9, timeout=1.0), tried)
    assert tried.nodes == ["a", "b"]


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"deadline": 0}, ValueError, "deadline is 0; it must be a finite number of seconds above"),
        ({"deadline": -1.0}, ValueError, "deadline is -1.0"),
        ({"deadline": math.inf}, ValueError, "deadline is inf"),
        ({"deadline": "5"}, TypeError, "deadline is '5'; it must be a number|got str"),
        ({"backoff": 0.1}, TypeError, "backoff is 0.1; it must be a Backoff|got float"),
        ({"budget": 0.2}, TypeError, "budget is 0.2; it must be a RetryBudget|got float"),
        ({"timeout": -1}, ValueError, "timeout is -1; it must be at least 0, or None for no bound"),
        ({"timeout": math.nan}, ValueError, "timeout is nan"),
        ({"timeout": "1"}, TypeError, "timeout is '1'; it must be a number|got str"),
    ],
)
@pytest.mark.parametrize("way", ["attempts", "call", "call_async"])
def test_wrong_limits(
    way: str, keywords: dict[str, Any], error: type[Exception], message: str
) -> None:
    """They are told at the call, with the value and the remedy."""
    ask: Callable[..., object] = getattr(Balancer(["a"]), way)
    with pytest.raises(error, match=message):
        ask(2 if way == "attempts" else str, **keywords)


def test_an_error_that_is_nobodys_fault_still_spares_its_node(send: Send) -> None:
    """What ``failures`` acquits is retried all the same, and on another node."""
    balancer = Balancer(["a", "b"], InOrder(), failures=KeyError)
    tried = Tried(1)
    outcomes: list[Outcome | None] = []
    leases: list[Lease[str]] = []

    def request(lease: Lease[str]) -> None:
        leases.append(lease)
        tried(lease)

    send(balancer.attempts(2), request)
    outcomes += [lease.outcome for lease in leases]
    assert tried.nodes == ["a", "b"]
    assert outcomes == [Outcome.CANCELLED, Outcome.SUCCESS]


def test_quota_that_comes_back_is_waited_for(send: Send, sleeper: Sleeper) -> None:
    """A request that no node can afford now is sent when one can."""
    quota = QuotaTracker(sleeper.clock)
    quota.register("a", QuotaConfig([QuotaDimension("rpm", limit=1, window=10.0)]))
    balancer = sleeper.balancer("a", quota=quota)
    for _ in range(2):
        send(sleeper.attempts(balancer, 1, backoff=STEADY, deadline=60.0), Tried(0))
    assert sum(sleeper.slept) >= 9.0
