"""One object for each node and event loop: made once, shared by tasks, closed in its loop."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from tests.balancer.per_node.support import Maker, Thing, lease_of

from loadwise import (
    Balancer,
    LoadwiseError,
    PerNode,
)


def test_tasks_get_one_object() -> None:
    """A hundred tasks that come at once make it once, and it is closed by `aclose`."""
    make = Maker()

    async def main() -> None:
        balancer = Balancer(["a"])
        async with PerNode(make.later, close=Thing.aclose) as per_node:

            async def request() -> object:
                async with balancer.acquire() as lease:
                    return await per_node(lease)

            things = await asyncio.gather(*(request() for _ in range(100)))
            assert things == make.made * 100
            assert make.closed == [0]
        assert make.closed == [1]

    asyncio.run(main())


def test_a_cancelled_first_does_not_doom_the_others() -> None:
    """Whoever began it goes; those who wait get the object that was being made."""
    make = Maker()

    async def main() -> None:
        go = asyncio.Event()

        async def slow(node: str) -> Thing:
            await go.wait()
            return make(node)

        balancer = Balancer(["a"])
        per_node = PerNode(slow, close=Thing.aclose)

        async def request() -> Thing:
            async with balancer.acquire() as lease:
                return await per_node(lease)

        tasks = [asyncio.create_task(request()) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        go.set()
        assert await tasks[1] is await tasks[2] is make.made[0]
        await per_node.aclose()

    asyncio.run(main())
    assert make.closed == [1]


def test_what_nobody_waits_for_any_more_is_closed() -> None:
    """All who waited were cancelled and the node has left: the object is closed as it comes."""
    make = Maker()

    async def main() -> None:
        go = asyncio.Event()

        async def slow(node: str) -> Thing:
            await go.wait()
            return make(node)

        balancer = Balancer(["a"])
        per_node = PerNode(slow, close=Thing.aclose)

        async def request() -> None:
            async with balancer.acquire() as lease:
                await per_node(lease)

        task = asyncio.create_task(request())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        balancer.remove("a")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()
        for _ in range(10):
            await asyncio.sleep(0)
        assert make.closed == [1]
        assert per_node._stock.entries == {}

    asyncio.run(main())


def test_tasks_that_wait_are_told_an_error() -> None:
    """One failure is one: they share it, and the next lease tries again."""
    make = Maker(errors=1)

    async def main() -> None:
        balancer = Balancer(["a"])
        per_node = PerNode(make.later, close=Thing.aclose)

        async def request() -> Thing:
            async with balancer.acquire() as lease:
                return await per_node(lease)

        errors = await asyncio.gather(*(request() for _ in range(3)), return_exceptions=True)
        assert [type(error) for error in errors] == [ConnectionError] * 3
        assert await request() is make.made[0]
        await per_node.aclose()

    asyncio.run(main())
    assert make.closed == [1]


@pytest.mark.parametrize("later", [False, True], ids=["plain make", "awaited make"])
def test_it_is_closed_by_a_task_of_its_loop(later: bool) -> None:  # noqa: FBT001 - from pytest
    """Where ``close`` is to be awaited and the last lease ends by a plain call, also elsewhere."""
    make = Maker()

    async def main() -> None:
        balancer = Balancer(["a", "b"])
        per_node: PerNode[Any, Any] = PerNode(make.later if later else make, close=Thing.aclose)
        for node in "ab":
            async with lease_of(balancer, node) as lease:
                found = per_node(lease)
                assert (await found if later else found).node == node
        balancer.remove("a")
        await per_node.aclose()
        assert make.closed == [1, 1]

        per_node = PerNode(make.later if later else make, close=Thing.aclose)
        async with balancer.acquire() as lease:
            found = per_node(lease)
            thing = await found if later else found
        await asyncio.to_thread(balancer.remove, "b")
        for _ in range(10):
            await asyncio.sleep(0)
        assert thing.closed == 1

    asyncio.run(main())


def test_each_loop_has_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """An object of one loop is never given to another; of a closed one, it cannot be closed."""
    make = Maker()
    balancer = Balancer(["a"])
    per_node = PerNode(make.later, close=Thing.aclose)

    async def request() -> Thing:
        async with balancer.acquire() as lease:
            return await per_node(lease)

    with caplog.at_level(logging.WARNING, "loadwise"):
        one = asyncio.run(request())
        assert caplog.records == []
        two = asyncio.run(request())
    assert one is not two
    assert one.closed == 0
    [record] = caplog.records
    assert (
        "the object of node 'a' cannot be closed: its event loop is closed" in record.getMessage()
    )

    async def last() -> Thing:
        thing = await request()
        await per_node.aclose()
        return thing

    assert asyncio.run(last()).closed == 1


def test_what_waits_for_its_loop_is_closed_when_it_runs_again() -> None:
    """Between two runs of a loop it is kept, and closed by `aclose`."""
    make = Maker()
    balancer = Balancer(["a"])
    per_node = PerNode(make, close=Thing.aclose)

    async def request() -> Thing:
        async with balancer.acquire() as lease:
            return per_node(lease)

    with asyncio.Runner() as runner:
        thing = runner.run(request())
        balancer.remove("a")
        assert thing.closed == 0
        runner.run(per_node.aclose())
        assert thing.closed == 1


def test_an_awaited_close_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """As one that is not."""

    async def broken(_: Thing) -> None:
        raise OSError("still busy")

    async def main() -> None:
        balancer = Balancer(["a"])
        per_node = PerNode(Maker(), close=broken)
        async with balancer.acquire() as lease:
            per_node(lease)
        balancer.remove("a")
        await per_node.aclose()

    with caplog.at_level(logging.ERROR, "loadwise"):
        asyncio.run(main())
    assert "still busy" in caplog.text


def test_a_close_that_turns_out_to_be_awaited() -> None:
    """A lambda that returns a coroutine is awaited, too; `close` says that it cannot."""
    make = Maker()
    balancer = Balancer(["a"])
    per_node = PerNode(make, close=lambda thing: thing.aclose())
    with balancer.acquire() as lease:
        per_node(lease)
    with pytest.raises(
        LoadwiseError, match=r"to be awaited for 1 objects: use await per_node.aclo"
    ):
        per_node.close()
    asyncio.run(per_node.aclose())
    assert make.closed == [1]


def test_what_is_to_be_awaited_has_async_with() -> None:
    """A plain `with` or `close` could not close it, and says so beforehand."""
    per_node = PerNode(Maker().later, close=Thing.aclose)
    with pytest.raises(LoadwiseError, match="use async with"):
        per_node.__enter__()
    with pytest.raises(LoadwiseError, match=r"await per_node\.aclose"):
        per_node.close()


def test_a_coroutine_is_no_object() -> None:
    """A lambda around a coroutine function would give a coroutine to whoever comes first."""
    make, balancer = Maker(), Balancer(["a"])
    per_node: PerNode[str, Any] = PerNode(lambda node: make.later(node))  # noqa: PLW0108 - what is tested
    with (
        pytest.raises(TypeError, match="returned a coroutine for node 'a'; give the coroutine"),
        balancer.acquire() as lease,
    ):
        per_node(lease)


def test_a_make_that_awaits_its_own_object_is_told_so() -> None:
    """Its task would wait for itself, for ever."""
    balancer = Balancer(["a"])

    async def make(_node: str) -> object:
        with balancer.acquire() as lease:
            return await per_node(lease)

    per_node: PerNode[str, Any] = PerNode(make)

    async def main() -> None:
        with balancer.acquire() as lease:
            await asyncio.wait_for(per_node(lease), 10.0)

    with pytest.raises(LoadwiseError, match="asked for that very object"):
        asyncio.run(main())
