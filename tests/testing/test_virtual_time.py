"""Virtual time: who sleeps longer wakes later, and nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from loadwise.testing import VirtualClock
from loadwise.testing.virtual_loop import VirtualLoop

Run = Callable[[VirtualClock, Coroutine[Any, Any, Any]], Any]


def in_virtual_loop(clock: VirtualClock, main: Coroutine[Any, Any, Any]) -> Any:
    """Run in a loop in virtual time."""
    return clock.run(main)


def in_any_loop(_: VirtualClock, main: Coroutine[Any, Any, Any]) -> Any:
    """Run in asyncio's own loop."""
    return asyncio.run(main)


BOTH = pytest.mark.parametrize("run", [in_virtual_loop, in_any_loop])


@BOTH
def test_sleepers_wake_in_order(run: Run) -> None:
    """Whatever order they came in; the clock shows to each when it wanted to wake."""
    clock = VirtualClock(100.0)
    log: list[tuple[str, float]] = []
    expected = [("b", 101), ("b", 102), ("c", 102), ("a", 103), ("b", 105), ("a", 106)]

    async def nap(name: str, *pauses: float) -> None:
        for pause in pauses:
            await clock.asleep(pause)
            log.append((name, clock()))

    async def main() -> None:
        await asyncio.gather(nap("a", 3.0, 3.0), nap("b", 1.0, 1.0, 3.0), nap("c", 2.0))

    run(clock, main())
    assert sorted(log) == sorted(expected)
    assert [when for _, when in log] == sorted(when for _, when in expected)


@BOTH
def test_time_stands_still_while_anybody_works(run: Run) -> None:
    """A task with a hundred steps to take is done before a sleeper of a microsecond wakes."""
    clock = VirtualClock()
    seen: list[float] = []

    async def work() -> None:
        for _ in range(100):
            await asyncio.sleep(0)
        seen.append(clock())

    async def main() -> None:
        await asyncio.gather(clock.asleep(1e-6), work())

    run(clock, main())
    assert seen == [0.0]
    assert clock() == 1e-6


@BOTH
def test_a_cancelled_sleeper_takes_no_time(run: Run) -> None:
    """Nobody waits for its end any more."""
    clock = VirtualClock()

    async def main() -> None:
        long = asyncio.create_task(clock.asleep(3600.0))
        await clock.asleep(1.0)
        long.cancel()
        with pytest.raises(asyncio.CancelledError):
            await long
        await clock.asleep(1.0)

    run(clock, main())
    assert clock() == 2.0


def test_all_of_asyncio_goes_by_it() -> None:
    """Sleeps, timeouts and timers, in a loop of the clock's."""
    clock = VirtualClock()

    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        called: list[object] = []
        loop.call_later(5.0, called.append, "timer")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.0):
                await asyncio.sleep(86_400.0)
        called.append(clock())
        await asyncio.sleep(10.0)
        called.append(loop.time())
        return called

    assert clock.run(main()) == [2.0, "timer", 12.0]


def test_other_threads_are_heard() -> None:
    """Where no timer is set, it waits for what comes from elsewhere."""
    clock = VirtualClock()

    async def main() -> int:
        return await asyncio.to_thread(lambda: 5)

    assert clock.run(main()) == 5
    assert clock() == 0.0


def test_tasks_that_wait_for_ever_are_told() -> None:
    """A test that is stuck says so instead of hanging."""

    async def main() -> None:
        await asyncio.Event().wait()

    clock = VirtualClock()
    with (
        asyncio.Runner(
            loop_factory=lambda: VirtualLoop(clock, clock.advance, stuck_after=0.01)
        ) as runner,
        pytest.raises(RuntimeError, match="they wait for something that does not come"),
    ):
        runner.run(main())


@BOTH
def test_a_loop_that_was_left_is_forgotten(run: Run) -> None:
    """Sleepers of a loop that is closed take no part in another."""
    clock = VirtualClock()

    async def leave() -> None:
        sleeper = asyncio.create_task(clock.asleep(5.0))
        await asyncio.sleep(0)
        assert not sleeper.done()

    run(clock, leave())
    run(clock, clock.asleep(7.0))
    assert clock() == 7.0


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_refuses_what_is_no_time(seconds: float) -> None:
    """By value."""
    clock = VirtualClock()
    with pytest.raises(ValueError, match="must be finite and at least 0"):
        clock.sleep(seconds)
    with pytest.raises(ValueError, match="must be finite and at least 0"):
        clock.run(clock.asleep(seconds))
