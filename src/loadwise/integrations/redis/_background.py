"""Work in the background, which keeps nothing alive: no interpreter, no event loop, no owner."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from threading import Event, Thread, current_thread
from weakref import WeakMethod

__all__ = ["BackgroundTask", "BackgroundThread"]

_log = logging.getLogger("loadwise")

_FORK_SETTLES = 0.05
_AFTER_FAILURE = 1.0

Step = Callable[[], Awaitable[float]]


class _Signals:
    __slots__ = ("stop", "wake")

    def __init__(self) -> None:
        self.wake = Event()
        self.stop = False


class BackgroundThread:
    """Takes a step now and again in a daemon thread of its own.

    Args:
        name: The thread's name.

    The thread ends when `close` is called, or when the step's owner is collected.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._signals = _Signals()
        self._thread: Thread | None = None
        self._step: WeakMethod[Callable[[], float]] | None = None

    def start(self, step: Callable[[], float]) -> None:
        """Begin.

        Args:
            step: A bound method that returns the seconds to wait before the next call.
        """
        self._step = WeakMethod(step)
        self._spawn(0)

    def wake(self) -> None:
        """Have the next step taken now. Does not wait."""
        self._signals.wake.set()

    def close(self, timeout: float = 2.0) -> None:
        """End the thread, after the step under way."""
        self._signals.stop = True
        self._signals.wake.set()
        if self._thread is not None and self._thread is not current_thread():
            self._thread.join(timeout)

    def restart_in_child(self) -> None:
        """Begin anew in the child of a fork, where the thread is gone."""
        if self._thread is None or self._signals.stop:
            return
        self._signals = _Signals()
        # By then everybody has a new lock in place of one that may be held for ever.
        self._spawn(_FORK_SETTLES)

    def _spawn(self, delay: float) -> None:
        if self._step is not None:
            self._thread = Thread(
                target=_run, args=(self._step, self._signals, delay), name=self._name, daemon=True
            )
            self._thread.start()


def _run(reference: WeakMethod[Callable[[], float]], signals: _Signals, delay: float) -> None:
    complained = False
    pause = delay
    while True:
        if pause > 0:
            signals.wake.wait(pause)
        signals.wake.clear()
        step = reference()
        if signals.stop or step is None:
            return
        try:
            pause = step()
        except Exception:  # noqa: BLE001 - whatever it is, the next step may do better
            if not complained:
                complained = True
                _log.exception("%s failed; further failures are not logged", step)
            pause = _AFTER_FAILURE
        del step


class BackgroundTask:
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
