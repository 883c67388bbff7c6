"""Attempts in time: rounds with backoff, what they take from a budget, and their waits."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.balancer.pacing.support import (
    STEADY,
    InOrder,
    Send,
    Sleeper,
    Tried,
    in_flight,
    resting,
    send_sync,
)

from loadwise import (
    Backoff,
    Balancer,
    ConsecutiveFailurePolicy,
    HealthTracker,
    Lease,
    NoNodeAvailable,
    NoopCollector,
    Outcome,
    RetryBudget,
)
from loadwise.testing import ScriptedRandom


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
    """A node of the last round is there after the pause, long before the one on cooldown."""
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
