"""Shared quotas for asyncio, through a real server."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

import pytest
import redis
from tests.integrations.redis.limits import rpm
from tests.real.redis.support import DEADLINE, PATIENCE, Valkey, until

from loadwise import Balancer, NoNodeAvailable, QuotaFilter
from loadwise.integrations.redis import AsyncSharedQuota, SharedQuota


async def eventually(condition: Callable[[], Awaitable[Any]]) -> Any:
    """Return what ``condition`` returns once it is true; fail after a while."""
    end = time.monotonic() + DEADLINE
    while not (found := await condition()):
        assert time.monotonic() < end, f"still {found!r}"
        await asyncio.sleep(0.002)
    return found


@pytest.mark.parametrize("mode", ["strict", "leased"])
def test_tasks_and_threads_share_a_quota(
    valkey: Valkey, prefix: str, client: redis.Redis, stack: ExitStack, mode: Any
) -> None:
    """Together with threads, 20 tasks get exactly the limit; what is settled is free again."""
    with SharedQuota(client, prefix, mode, timeout=PATIENCE) as other:
        other.register("node", rpm(100, window=300.0))
        assert until(lambda: other.try_acquire("node", {"rpm": 30}))

    async def main() -> None:
        async with (
            valkey.async_client() as async_client,
            AsyncSharedQuota(async_client, prefix, mode, timeout=PATIENCE) as quota,
        ):
            await quota.register("node", rpm(100, window=300.0))
            held: list[Any] = []

            async def work() -> None:
                for _ in range(5):
                    reservation = await quota.try_acquire("node")
                    if reservation is not None:
                        held.append(reservation)

            async def all_held() -> bool:
                await asyncio.gather(*(work() for _ in range(20)))
                return len(held) >= 70

            await eventually(all_held)
            await asyncio.gather(*(work() for _ in range(20)))
            assert len(held) == 70
            assert not quota.is_available("node")
            await asyncio.to_thread(held.pop().settle, {"rpm": 0})
            held.pop().cancel()
            assert quota.record_usage("node", {"rpm": 1})
            assert await eventually(lambda: quota.try_acquire("node"))
            assert await quota.try_acquire("node") is None
            assert quota.remaining_by_dimension("node") == {"rpm": 0}

    asyncio.run(main())
    strict = stack.enter_context(SharedQuota(client, prefix, timeout=PATIENCE))
    strict.register("node", rpm(100, window=300.0))
    assert strict.remaining("node", "rpm") == 0


def test_a_filter_keeps_a_balancer_off_exhausted_nodes(valkey: Valkey, prefix: str) -> None:
    """With ``where=QuotaFilter(quota)`` a balancer passes over what is known to be used up."""

    async def main() -> None:
        async with (
            valkey.async_client() as client,
            AsyncSharedQuota(client, prefix, timeout=PATIENCE) as quota,
        ):
            await quota.register("a", rpm(2))
            await quota.register("b", rpm(1))
            balancer = Balancer(["a", "b"], where=QuotaFilter(quota))
            granted = []
            for _ in range(3):
                with balancer.acquire() as lease:
                    assert await quota.try_acquire(lease.node)
                    granted.append(lease.node)
            assert sorted(granted) == ["a", "a", "b"]
            with pytest.raises(NoNodeAvailable):
                balancer.acquire()
            quota.remove("a")
            assert balancer.pick() == "a"

    asyncio.run(main())


def test_an_outage(fragile: Valkey, prefix: str) -> None:
    """Awaits go on alone while the server is down, one event tells of it, and all is told after."""

    async def main() -> None:
        async with (
            fragile.async_client() as client,
            AsyncSharedQuota(client, prefix, timeout=PATIENCE) as quota,
        ):
            await quota.register("node", rpm(10))
            assert await quota.try_acquire("node", {"rpm": 3})
            fragile.kill()
            granted = [await quota.try_acquire("node") for _ in range(10)]
            assert sum(each is not None for each in granted) == 7
            await asyncio.to_thread(fragile.start)

            async def connected() -> bool:
                return quota.connected

            await eventually(connected)
            assert await quota.try_acquire("node") is None
            assert quota.events["outage"] == quota.events["restored"] == 1

    asyncio.run(main())
    other = SharedQuota(fragile.client(), prefix, timeout=PATIENCE)
    other.register("node", rpm(10))
    assert other.remaining("node", "rpm") == 0
    other.close()


def test_closing_after_all_tasks_were_cancelled_tells_the_rest(
    valkey: Valkey, prefix: str, client: redis.Redis
) -> None:
    """A program that ends by cancelling whatever runs has cancelled the background, not itself."""

    async def main() -> None:
        async with valkey.async_client() as async_client:
            quota = AsyncSharedQuota(async_client, prefix, timeout=PATIENCE)
            await quota.register("node", rpm(100, window=300.0))
            quota.record_usage("node", {"rpm": 30})
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await quota.aclose()

    asyncio.run(main())
    with SharedQuota(client, prefix, timeout=PATIENCE) as other:
        other.register("node", rpm(100, window=300.0))
        assert other.remaining("node", "rpm") == 70


def test_a_cancelled_await_leaves_no_debt_untold(fragile: Valkey, prefix: str) -> None:
    """What an interrupted call was to tell is told by the next one."""

    async def main() -> None:
        async with (
            fragile.async_client() as client,
            AsyncSharedQuota(client, prefix, timeout=PATIENCE) as quota,
        ):
            await quota.register("node", rpm(10))
            fragile.freeze()
            assert quota.record_usage("node", {"rpm": 4})
            task = asyncio.create_task(quota.try_acquire("node"))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            fragile.thaw()
            assert quota.connected

            async def told() -> bool:
                return await quota.try_acquire("node", {"rpm": 7}) is None

            assert await eventually(told)

    asyncio.run(main())


def test_event_loops_one_after_the_other(valkey: Valkey, prefix: str) -> None:
    """It works in another event loop after the first has ended; closing twice is harmless."""
    quota = AsyncSharedQuota(valkey.async_client(), prefix, timeout=PATIENCE)

    async def first() -> None:
        await quota.register("node", rpm(10))
        assert await quota.try_acquire("node", {"rpm": 4})
        await quota._client.aclose()  # what an event loop leaves open cannot be closed after it

    async def second() -> None:
        assert await quota.try_acquire("node", {"rpm": 7}) is None
        assert await quota.try_acquire("node", {"rpm": 6})
        await quota.aclose()
        await quota.aclose()
        assert await quota.try_acquire("node") is None

    asyncio.run(first())
    quota.mark_exhausted("elsewhere", 1.0)
    asyncio.run(second())


def test_nothing_in_the_background_outlives_its_owner(
    valkey: Valkey, client: redis.Redis, prefix: str
) -> None:
    """Quotas that are dropped unclosed are collected, and their threads and tasks end."""
    quota = SharedQuota(client, prefix, timeout=PATIENCE)
    quota.register("node", rpm(10))
    assert quota.try_acquire("node")
    thread = quota._worker._thread
    assert thread is not None
    gone = weakref.ref(quota)
    del quota
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert thread not in threading.enumerate()
    gc.collect()
    assert gone() is None

    async def main() -> None:
        quota = AsyncSharedQuota(valkey.async_client(), prefix, timeout=PATIENCE)
        await quota.register("node", rpm(10))
        task = quota._worker._task
        assert task is not None
        gone = weakref.ref(quota)
        del quota
        await asyncio.wait_for(task, DEADLINE)
        gc.collect()
        assert gone() is None

    asyncio.run(main())
