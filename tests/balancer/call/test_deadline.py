"""The deadline of `call_async`. The timers are real, and what is waited for never comes."""

from __future__ import annotations

import asyncio

import pytest
from tests.balancer.call.support import InOrder, failures, in_flight, never

from loadwise import (
    Balancer,
    Lease,
    Outcome,
)
from loadwise.testing import ManualClock


@pytest.fixture
def balancer() -> Balancer[str]:
    """Return a balancer by whose clock no time passes: nothing but the timers ends an attempt."""
    return Balancer(["a", "b", "c"], InOrder(), clock=ManualClock())


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
    clock = ManualClock()
    balancer = Balancer(["a"], hung_after=0.005, clock=clock)
    outcomes: list[Lease[str]] = []

    async def request(node: str, lease: Lease[str]) -> None:
        outcomes.append(lease)
        clock.advance(0.006)
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

    with pytest.raises(ConnectionError, match="closed"):
        asyncio.run(balancer.call_async(request, deadline=0.01))
    assert asked == ["a"]


def test_a_deadline_needs_a_task(balancer: Balancer[str]) -> None:
    """Where no timer could end the attempt, none is begun, and the error says so."""
    request = balancer.call_async(never, deadline=1.0)
    with pytest.raises(RuntimeError, match="needs a task of asyncio"):
        request.send(None)
    assert all(status.picks == 0 for status in balancer.status())
