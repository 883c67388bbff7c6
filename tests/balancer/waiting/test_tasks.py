"""Tasks that wait for a node get it in order, and lose nothing when they are cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import trio
from tests.balancer.waiting.support import LONG, Waits, run

from loadwise import (
    Balancer,
    NoNodeAvailable,
)


def test_a_thread_with_an_event_loop_is_told_what_to_await() -> None:
    """To wait there would stop the loop; what need not wait is given."""
    balancer = Balancer(["a"], max_in_flight=1)

    async def work() -> None:
        lease = balancer.acquire(timeout=1.0)
        with pytest.raises(RuntimeError, match=r"await acquire_async\(timeout=...\) instead"):
            balancer.acquire(timeout=1.0)
        lease.success()

    run(work())
    trio.run(work)


def test_a_task_needs_a_loop_to_wait_in() -> None:
    """Elsewhere there is nothing to wake it; what need not wait is given."""
    balancer = Balancer(["a"], max_in_flight=1)

    def drive(awaitable: Any) -> Any:
        steps = awaitable.__await__()
        try:
            next(steps)
        except StopIteration as end:
            return end.value
        raise AssertionError

    lease = drive(balancer.acquire_async())
    with pytest.raises(RuntimeError, match="asyncio or trio"):
        drive(balancer.acquire_async(timeout=1.0))
    lease.success()


def test_a_lease_to_come_is_awaited_once() -> None:
    """A second time it would take another slot, of which nobody knows."""
    balancer = Balancer(["a"], max_in_flight=2)

    async def work() -> None:
        coming = balancer.acquire_async()
        lease = await coming
        with pytest.raises(RuntimeError, match="awaited already; call acquire_async"):
            await coming
        with pytest.raises(RuntimeError, match="awaited already"):
            async with coming:
                pass
        assert balancer.status()[0].in_flight == 1
        lease.success()

    run(work())


def test_tasks_wait_in_order() -> None:
    """With `await` and with ``async with``, in asyncio."""
    balancer = Balancer(["a"], max_in_flight=1)
    order: list[int] = []

    async def work(number: int) -> None:
        if number % 2:
            async with balancer.acquire_async(timeout=None) as lease:
                order.append(number)
                await asyncio.sleep(0)
                assert lease.node == "a"
            return
        with await balancer.acquire_async(timeout=LONG):
            order.append(number)
            await asyncio.sleep(0)

    async def all_of_them() -> None:
        await asyncio.gather(*[work(number) for number in range(50)])

    run(all_of_them())
    assert order == list(range(50))


def test_tasks_of_trio_wait_in_order() -> None:
    """And those that are cancelled lose their place."""
    balancer = Balancer(["a"], max_in_flight=1)
    order: list[int] = []

    async def work(number: int) -> None:
        with trio.move_on_after(0.01 if number == 3 else LONG):
            async with balancer.acquire_async(timeout=None):
                order.append(number)
                await trio.sleep(0.0)

    async def all_of_them() -> None:
        async with trio.open_nursery() as nursery:
            held = balancer.acquire()
            for number in range(10):
                nursery.start_soon(work, number)
                await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(0.02)
            held.success()

    trio.run(all_of_them)
    assert order == [0, 1, 2, 4, 5, 6, 7, 8, 9]


def test_a_timeout_in_a_task() -> None:
    """The place is free, and the error says why."""
    balancer = Balancer(["a"], max_in_flight=1)

    async def work() -> None:
        held = balancer.acquire()
        with pytest.raises(NoNodeAvailable, match="1 full"):
            await balancer.acquire_async(timeout=0.01)
        with pytest.raises(NoNodeAvailable, match="1 full"):
            await balancer.acquire_async()
        assert not balancer.waiting
        held.success()

    run(work())


def test_a_cancelled_task_loses_its_place_and_no_slot() -> None:
    """Before it is given a node, and at the very moment."""
    waits = Waits()
    balancer = Balancer(["a"], max_in_flight=1, metrics=waits)

    async def work() -> None:
        held = balancer.acquire()
        tasks = [asyncio.ensure_future(balancer.acquire_async(timeout=None)) for _ in range(4)]
        await asyncio.sleep(0)
        assert balancer.waiting == 4
        tasks[1].cancel()
        await asyncio.sleep(0)
        held.success()  # wakes the first
        tasks[0].cancel()  # which has not run since
        held = await tasks[2]
        assert balancer.waiting == 1
        held.success()
        (await tasks[3]).success()
        assert tasks[0].cancelled()
        assert tasks[1].cancelled()

    run(work())
    assert [got for _, got in waits.told].count(True) == 2
    assert balancer.acquire().success()
