"""Event loops as checkers and watchers need them: tasks that they may cancel, events, and waits.

asyncio and trio have that under different names. Whoever does not use trio does not need it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from typing import Any

__all__ = ["AsyncioLoop", "TrioLoop", "current_loop", "running_trio"]

# Tasks and events are Any throughout: they are those of either library.


def running_trio() -> Any:
    """Return trio, if it is what runs the present task."""
    trio = sys.modules.get("trio")
    return trio if trio is not None and trio.lowlevel.in_trio_task() else None


def current_loop() -> AsyncioLoop | TrioLoop:
    """Return the event loop that runs.

    Raises:
        RuntimeError: None does.
    """
    trio = running_trio()
    return AsyncioLoop() if trio is None else TrioLoop(trio)


class AsyncioLoop:
    """The event loop of asyncio that runs."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    @property
    def is_closed(self) -> bool:
        """True if nothing runs in it any more."""
        return self._loop.is_closed()

    @property
    def is_current(self) -> bool:
        """True if it is the one that runs."""
        return self._loop is asyncio.get_running_loop()

    @staticmethod
    def event() -> Any:
        """Return an event, not set."""
        return asyncio.Event()

    @staticmethod
    async def wait(event: Any, seconds: float) -> None:
        """Wait for an event, but for so many seconds at most."""
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            pass

    def spawn(self, run: Callable[[], Any], name: str) -> asyncio.Task[None]:
        """Return a task that runs a coroutine function, and that can be cancelled."""
        return self._loop.create_task(run(), name=name)

    @staticmethod
    async def join(tasks: Iterable[asyncio.Task[None]], seconds: float) -> None:
        """Wait for the end of tasks, but for so many seconds at most."""
        await asyncio.wait(tasks, timeout=seconds)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Have a function called in the loop, from any thread; nothing is done once it is closed.

        What it raises is the loop's to report.
        """
        with suppress(RuntimeError):  # it is closed
            self._loop.call_soon_threadsafe(function)

    def submit(self, run: Callable[[], Any]) -> Future[Any]:
        """Run a coroutine function in the loop, from another thread.

        Raises:
            RuntimeError: The loop is closed.
        """
        awaitable = _awaiting(run)
        try:
            return asyncio.run_coroutine_threadsafe(awaitable, self._loop)
        except RuntimeError:
            awaitable.close()
            raise

    @staticmethod
    def is_verdict(error: BaseException) -> bool:
        """Tell whether an error in the present task is none that ends it from outside."""
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            return task is None or not task.cancelling()
        return isinstance(error, Exception)


class TrioLoop:
    """The run of trio that is under way."""

    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()
        # What runs in it is cancelled before it ends.
        self.is_closed = False

    @property
    def is_current(self) -> bool:
        """True if it is the one that runs."""
        return (
            running_trio() is not None and self._trio.lowlevel.current_trio_token() is self._token
        )

    def event(self) -> Any:
        """Return an event, not set."""
        return self._trio.Event()

    async def wait(self, event: Any, seconds: float) -> None:
        """Wait for an event, but for so many seconds at most."""
        with self._trio.move_on_after(seconds):
            await event.wait()

    def spawn(self, run: Callable[[], Awaitable[object]], name: str) -> _TrioTask:
        """Return a task that runs a coroutine function, and that can be cancelled."""
        task = _TrioTask(self._trio, run)
        # No nursery is there to begin it in, because a checker may be started in one function and
        # stopped in another. The context is that of who begins it, as with asyncio.
        self._trio.lowlevel.spawn_system_task(task.run, name=name, context=copy_context())
        return task

    async def join(self, tasks: Iterable[_TrioTask], seconds: float) -> None:
        """Wait for the end of tasks, but for so many seconds at most."""
        with self._trio.move_on_after(seconds):
            for task in tasks:
                await task.over.wait()

    def call_soon(self, function: Callable[[], object]) -> None:
        """Have a function called in the loop, from any thread; nothing is done once it is over."""
        with suppress(self._trio.RunFinishedError):
            self._token.run_sync_soon(function)

    def submit(self, run: Callable[[], Any]) -> Future[Any]:
        """Run a coroutine function in the loop, from another thread.

        Raises:
            RuntimeError: The loop is over.
        """
        return _TrioCall(self._trio, self._token, run).future

    @staticmethod
    def is_verdict(error: BaseException) -> bool:
        """Tell whether an error in the present task is none that ends it from outside."""
        return isinstance(error, Exception)


class _TrioCall:
    """A coroutine function that runs in trio for another thread.

    Attributes:
        future: Its result; to cancel the future is to cancel the task.
    """

    def __init__(self, trio: Any, token: Any, run: Callable[[], Any]) -> None:
        self._trio = trio
        self._token = token
        self._run = run
        self._scope = trio.CancelScope()
        self.future: Future[Any] = Future()
        self.future.add_done_callback(self._ended)
        token.run_sync_soon(trio.lowlevel.spawn_system_task, self._work)

    async def _work(self) -> None:
        with self._scope:
            try:
                answer = await self._run()
            except Exception as error:  # noqa: BLE001 - it is the other thread's to handle
                if not self.future.cancelled():
                    self.future.set_exception(error)
            else:
                if not self.future.cancelled():
                    self.future.set_result(answer)
        self.future.cancel()

    def _ended(self, future: Future[Any]) -> None:
        if future.cancelled():
            with suppress(self._trio.RunFinishedError):
                self._token.run_sync_soon(self._scope.cancel)


async def _awaiting(run: Callable[[], Any]) -> Any:
    return await run()


class _TrioTask:
    """A task of trio that can be cancelled.

    Attributes:
        over: Is set at its end.
    """

    def __init__(self, trio: Any, run: Callable[[], Awaitable[object]]) -> None:
        self._run = run
        self._scope = trio.CancelScope()
        self.over = trio.Event()

    async def run(self) -> None:
        """Run."""
        try:
            with self._scope:
                await self._run()
        finally:
            self.over.set()

    def cancel(self) -> None:
        """End it soon."""
        self._scope.cancel()

    def done(self) -> bool:
        """Tell whether it has ended."""
        ended: bool = self.over.is_set()
        return ended
