"""Watcher for programs with an event loop: asyncio's or trio's."""

from __future__ import annotations

import os
from collections.abc import Generator
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack

from loadwise._event_loops import AsyncioLoop, TrioLoop, current_loop
from loadwise.balancer import Balancer
from loadwise.discovery.callable_source import CallableSource
from loadwise.discovery.keeper import Keeper, WatchStatus
from loadwise.discovery.run import WatchRun
from loadwise.discovery.settings import WatchOptions, WatchSettings, require_watchable
from loadwise.discovery.source import NodeSource

__all__ = ["AsyncWatcher"]

N = TypeVar("N")

_PATIENCE = 5.0
"""Seconds that `stop` waits for the thread that changes nodes."""


class _LoopRun(Generic[N]):
    """Run of a watcher, and a task that ends it with its event loop."""

    def __init__(self, keeper: Keeper[N], source: NodeSource[N], settings: WatchSettings) -> None:
        self.loop: AsyncioLoop | TrioLoop = current_loop()
        self._process = os.getpid()
        # Events are Any: they are those of asyncio or of trio.
        self._first: Any = self.loop.event()
        self._over: Any = self.loop.event()
        open_feed = source.open
        if isinstance(source, CallableSource) and source.is_async:
            open_feed = partial(source.open_in, self.loop)
        self._threads = WatchRun(keeper, open_feed, settings, self._told)
        self._threads.start()
        self._task: Any = self.loop.spawn(self._guard, "loadwise-discovery")

    @property
    def running(self) -> bool:
        """True if it keeps the fleet, in this process."""
        return self._process == os.getpid() and not self.loop.is_closed and self._threads.running

    async def first(self, seconds: float) -> None:
        """Wait until the first answer or error has had its effect, or the time is over."""
        if seconds:
            await self.loop.wait(self._first, seconds)

    def close(self) -> None:
        """End it, without waiting for the end."""
        self._threads.close()

    async def stop(self) -> None:
        """End it."""
        if self._process != os.getpid():
            return
        if self.loop.is_closed:
            self._threads.close()
            return
        self._task.cancel()
        self._threads.close()
        await self.loop.wait(self._over, _PATIENCE)

    def _told(self) -> None:
        self.loop.call_soon(self._first.set)
        if self._threads.ended:
            self.loop.call_soon(self._over.set)

    async def _guard(self) -> None:
        try:
            await self._over.wait()
        finally:
            self._threads.close()


class AsyncWatcher(Generic[N]):
    """Keeps the nodes of a balancer those that a source lists, for a program with an event loop.

    Args:
        balancer: Whose nodes to keep. What nodes it has of its own stay until the source first
            answers.
        source: Where the nodes are listed, as for `Watcher`. The function of a `CallableSource`
            may be a coroutine function here.
        options: When to believe the source, and how fast to follow: see `WatchOptions`.

    Raises:
        TypeError: There is no such argument, or one is of the wrong type.
        ValueError: An argument is out of range.

    It does what `Watcher` does, and never holds up the event loop: the source is asked, and what
    strategies need of new nodes is made, in two threads of its own. Only a coroutine function runs
    in the loop.

    It runs between `start` and `stop`, or in an ``async with`` block, and ends with its event
    loop, be it asyncio's or trio's. An event loop does not survive a fork: in the child it is
    stopped, and may be started in a loop of the child's.

    Thread-safety: `start` and `stop` belong to the thread of the event loop.

    Cost: O(n) for each change of the nodes, in the background.

    Example:
        >>> import asyncio
        >>> from loadwise import Balancer
        >>> from loadwise.discovery import CallableSource
        >>> async def find() -> list[str]:
        ...     return ["10.0.0.1:80", "10.0.0.2:80"]
        >>> async def main() -> tuple[str, ...]:
        ...     balancer = Balancer([], name="search")
        ...     async with AsyncWatcher(balancer, CallableSource(find, interval=30.0)):
        ...         return balancer.nodes
        >>> asyncio.run(main())
        ('10.0.0.1:80', '10.0.0.2:80')
    """

    def __init__(
        self, balancer: Balancer[N], source: NodeSource[N], **options: Unpack[WatchOptions]
    ) -> None:
        self._settings = WatchSettings.of(options)
        require_watchable(balancer, source)
        self._source = source
        self._keeper: Keeper[N] = Keeper(balancer, self._settings, repr(source))
        self._run: _LoopRun[N] | None = None

    @property
    def running(self) -> bool:
        """True if it runs, between `start` and `stop`."""
        return self._run is not None and self._run.running

    def start(self) -> First:
        """Begin; await what this returns to wait for the first answer. Does nothing if it runs.

        A source that fails at first is no error: the balancer keeps its own nodes, the log says
        what is wrong, and the source is asked again.

        Returns:
            Something to await, or not: it is over after the first answer or error, or after
            ``timeout`` seconds.

        Raises:
            LoadwiseError: Another watcher keeps the nodes of this balancer.
            RuntimeError: No event loop is running, or the process may have no more threads.
        """
        if not self.running:
            self._run = _LoopRun(self._keeper, self._source, self._settings)
        return First(self._run, self._settings.timeout)

    async def stop(self) -> None:
        """End watching; the balancer keeps the nodes that it has. Does nothing if it does not run.

        Nothing is changed any more once this returns. A fetch under way is given up.
        """
        run, self._run = self._run, None
        if run is not None:
            await run.stop()

    def status(self) -> WatchStatus:
        """Return how it is. O(1)."""
        return self._keeper.status(self._settings.clock())

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:  # such as a cancellation: without a block nobody would stop it
            if self._run is not None:
                self._run.close()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def __repr__(self) -> str:
        state = "running" if self.running else "stopped"
        return f"<AsyncWatcher of {self._keeper}: {state}>"


class First:
    """First answer of a source, to be awaited by whoever wants to wait for it."""

    def __init__(self, run: _LoopRun[Any] | None, seconds: float) -> None:
        self._run = run
        self._seconds = seconds

    def __await__(self) -> Generator[Any, Any, None]:
        return self._wait().__await__()

    async def _wait(self) -> None:
        if self._run is not None:
            await self._run.first(self._seconds)
