"""The watcher for event loops: asyncio's and trio's."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from tests.discovery.support import TIMEOUT, Listed, logged

from loadwise import Balancer, node_id
from loadwise.discovery import AsyncWatcher, CallableSource

QUICK = 0.005

RUNS: dict[str, Callable[[Callable[[], Awaitable[None]]], object]] = {
    "asyncio": lambda main: asyncio.run(main()),  # type: ignore[arg-type]
    "trio": trio.run,
}


@pytest.fixture(params=[*RUNS])
def run(request: pytest.FixtureRequest) -> Any:
    """What runs a coroutine function in an event loop of each kind."""
    return RUNS[request.param]


async def pause() -> None:
    """Let others run for a moment."""
    if trio.lowlevel.in_trio_run():
        await trio.sleep(0.002)
    else:
        await asyncio.sleep(0.002)


async def until(holds: Callable[[], object]) -> None:
    """Return as soon as something holds."""
    for _ in range(int(TIMEOUT / 0.002)):
        if holds():
            return
        await pause()
    raise AssertionError


def until_no_threads() -> None:
    """Return as soon as no thread of a watcher is left."""
    for thread in threading.enumerate():
        if thread.name.startswith("loadwise-discovery"):
            thread.join(TIMEOUT)
            assert not thread.is_alive()


def test_nodes_are_there_when_it_has_started(run: Any) -> None:
    """A plain function is called in a thread; the nodes stay when it stops."""
    listed, callers = Listed("a", "b"), set[str]()

    def find() -> Any:
        callers.add(threading.current_thread().name)
        return listed()

    async def main() -> None:
        balancer = Balancer(["own"])
        watcher = AsyncWatcher(balancer, CallableSource(find, interval=QUICK), debounce=0.0)
        assert not watcher.running
        async with watcher as entered:
            assert entered is watcher
            assert watcher.running
            assert balancer.nodes == ("a", "b")
            await watcher.start()  # nothing happens
            listed.nodes = ["b", "c"]
            await until(lambda: balancer.nodes == ("b", "c"))
            assert "running" in repr(watcher)
        assert not watcher.running
        await watcher.stop()  # nothing happens
        assert watcher.status().nodes == 2

    run(main)
    assert callers == {"loadwise-discovery-source"}
    until_no_threads()


def test_a_block_that_is_never_entered_leaves_nothing_behind() -> None:
    """As where the wait for the first answer is cancelled."""

    async def find() -> list[str]:
        await asyncio.sleep(TIMEOUT)
        return ["a"]

    async def main() -> None:
        watcher = AsyncWatcher(Balancer(["own"]), CallableSource(find))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), watcher:
                raise AssertionError
        assert not watcher.running
        await asyncio.to_thread(until_no_threads)

    asyncio.run(main())


def test_a_coroutine_function_is_awaited_in_the_loop(run: Any) -> None:
    """It may fail, and is asked again."""
    listed, callers = Listed("a"), set[threading.Thread]()
    listed.error = OSError("no route to host")

    async def find() -> Any:
        callers.add(threading.current_thread())
        await pause()
        return listed()

    async def main() -> None:
        balancer = Balancer(["own"])
        watcher = AsyncWatcher(balancer, CallableSource(find, interval=QUICK))
        started = watcher.start()
        assert balancer.nodes == ("own",)
        await started
        assert watcher.status().error == "OSError: no route to host"
        listed.error = None
        await until(lambda: balancer.nodes == ("a",))
        listed.nodes = ["a", "b"]
        await until(lambda: balancer.nodes == ("a", "b"))
        await watcher.stop()

    with logged():
        run(main)
    assert callers == {threading.main_thread()}
    until_no_threads()


def test_start_need_not_be_awaited(run: Any) -> None:
    """The loop goes on, and nobody complains of something that was never awaited."""
    balancer = Balancer[str]([])

    async def main() -> None:
        watcher = AsyncWatcher(balancer, CallableSource(lambda: ["a"]))
        watcher.start()
        await until(lambda: balancer.nodes == ("a",))
        await watcher.stop()
        gc.collect()

    run(main)


def test_it_ends_with_its_event_loop(run: Any) -> None:
    """Without being stopped; it may be started again in another loop."""
    listed = Listed("a")
    watcher = AsyncWatcher(balancer := Balancer[str]([]), CallableSource(listed, interval=QUICK))

    async def main() -> None:
        await watcher.start()
        assert watcher.running

    for nodes in (["a"], ["b"]):
        listed.nodes = nodes
        run(main)
        assert not watcher.running
        until_no_threads()
        assert [*balancer.nodes] == nodes


def test_a_call_under_way_is_cancelled_at_the_end(run: Any) -> None:
    """A coroutine that hangs holds up nobody, and is told."""
    cancelled = []

    async def find() -> list[str]:
        try:
            while True:
                await pause()
        except BaseException as error:
            cancelled.append(type(error).__name__)
            raise

    async def main() -> None:
        balancer = Balancer(["own"])
        watcher = AsyncWatcher(balancer, CallableSource(find), timeout=0.01)
        await watcher.start()
        assert balancer.nodes == ("own",)
        await watcher.stop()
        await until(lambda: cancelled)

    run(main)
    assert cancelled[0] in {"CancelledError", "Cancelled"}


def test_the_loop_goes_on_while_a_source_hangs() -> None:
    """And while nodes are made ready: both is done in threads."""
    released = threading.Event()
    ticks = 0

    def find() -> list[str]:
        released.wait(TIMEOUT)
        return ["a"]

    async def main() -> None:
        nonlocal ticks
        balancer = Balancer[str]([])
        watcher = AsyncWatcher(balancer, CallableSource(find))
        started = watcher.start()
        for _ in range(20):
            await pause()
            ticks += 1
        released.set()
        await started
        assert [node_id(node) for node in balancer.nodes] == ["a"]
        await watcher.stop()

    asyncio.run(main())
    assert ticks == 20


def test_it_needs_an_event_loop() -> None:
    """Without one it does not start; wrong arguments are refused as by the other watcher."""
    source = CallableSource(lambda: ["a"])
    with pytest.raises(RuntimeError, match="no running event loop"):
        AsyncWatcher(Balancer[str]([]), source).start()
    with pytest.raises(TypeError, match="no argument 'debunce'; did you mean 'debounce'"):
        AsyncWatcher(Balancer[str]([]), source, debunce=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="balancer is None"):
        AsyncWatcher(None, source)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="wait is 3"):
        AsyncWatcher(Balancer[str]([]), source, wait=3)  # type: ignore[arg-type]
