"""A task in the background of an event loop, which does not keep its owner alive."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from weakref import WeakMethod

__all__ = ["TaskWorker"]

_log = logging.getLogger("loadwise")

_AFTER_FAILURE = 1.0

Step = Callable[[], Awaitable[float]]


class TaskWorker:
    """Takes a step now and again in a task.

    It ends when `aclose` is called, when the step's owner is collected or with the event loop.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._rung = asyncio.Event()
        self._stop = False

    def attend(self, step: Step) -> bool:
        """Work in this event loop from now on; tell whether that is news.

        Args:
            step: A bound coroutine method that returns the seconds to wait before the next call.
        """
        loop = asyncio.get_running_loop()
        if self._loop is loop or self._stop:
            return False
        self._loop, self._rung = loop, asyncio.Event()
        self._task = loop.create_task(self._work(WeakMethod(step), self._rung))
        return True

    def wake(self) -> None:
        """Have the next step taken now. From any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                self._loop.call_soon_threadsafe(self._rung.set)

    async def aclose(self) -> bool:
        """End, after the step under way; tell whether it worked in this event loop."""
        self._stop = True
        self._rung.set()
        task, self._task = self._task, None
        if task is None or self._loop is not asyncio.get_running_loop():
            return False
        await asyncio.wait([task])  # it may have been cancelled, which is no concern of ours
        return True

    async def _work(self, reference: WeakMethod[Step], rung: asyncio.Event) -> None:
        complained = False
        while not self._stop:
            rung.clear()
            step = reference()
            if step is None:
                return
            try:
                pause = await step()
            except Exception:  # noqa: BLE001 - whatever it is, the next step may do better
                if not complained:
                    complained = True
                    _log.exception("%s failed; further failures are not logged", step)
                pause = _AFTER_FAILURE
            del step
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(rung.wait(), pause)
