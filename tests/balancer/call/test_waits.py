"""Waits between the attempts of a call, and what interrupts them."""

from __future__ import annotations

import asyncio
import warnings
from contextlib import suppress

import pytest
from tests.balancer.call.support import Asked, in_flight
from tests.balancer.interrupting import strike_at

from loadwise import (
    Backoff,
    Balancer,
    RoundRobin,
)
from loadwise.balancer.calls import run, run_async


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
