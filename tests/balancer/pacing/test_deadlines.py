"""Deadlines of attempts: none begins, and no wait ends, past one."""

from __future__ import annotations

import pytest
from tests.balancer.pacing.support import STEADY, Send, Sleeper, Tried, resting

from loadwise import (
    Lease,
    NoNodeAvailable,
)


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
