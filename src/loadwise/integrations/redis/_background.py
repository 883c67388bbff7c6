"""Work in the background, which keeps nothing alive: no interpreter, no event loop, no owner.

What is in use when the process ends is closed, so that the server is told all before.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import math
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from threading import Lock, current_thread
from typing import Any
from weakref import WeakMethod

from loadwise._fork import (
    FORKS_UNSEEN,
    ForkAware,
    call_in_child,
    is_uwsgi_master,
    notice_fork,
    reset_in_child,
)
from loadwise._threads import park, start_thread, warn_if_threads_stand_still
from loadwise.balancer.bells import ThreadBell

__all__ = ["BackgroundTask", "BackgroundThread"]

_log = logging.getLogger("loadwise")

_AFTER_FAILURE = 1.0
_LONGEST_STEP = 2.0

Step = Callable[[], float]
AsyncStep = Callable[[], Awaitable[float]]
AsyncClose = Callable[[], Awaitable[None]]


class _Signals:
    """Signals of others to one thread.

    Attributes:
        bell: Wakes it.
        abandoned: Whether it is a copy of a parent's, see `park`.
        stop: Whether it is to end.
        close: What to do in the end, if nobody else is left to do it.
    """

    __slots__ = ("abandoned", "bell", "close", "stop")

    def __init__(self) -> None:
        self.bell = ThreadBell()
        self.abandoned = False
        self.stop = False
        self.close: Callable[[], None] | None = None


class BackgroundThread(ForkAware):
    """Takes a step now and again, in a daemon thread that begins with the first use in a process.

    Args:
        name: The thread's name.
        step: A bound method that returns the seconds to wait before the next call.
        close: A bound method of the same object that ends its work, calling `close`; called when
            the process ends, unless it has been. ``None`` for no need.

    It keeps neither of them alive: an owner that is dropped hands its close over to `finish`. Where
    no thread can run, the steps that are due are taken by `attend`.

    Thread-safety: full. In a forked child it begins again with the first use there.
    """

    def __init__(self, name: str, step: Step, close: Callable[[], None] | None = None) -> None:
        self._name = name
        self._step = _OwnerStep(step)
        self._close = None if close is None else WeakMethod(close)
        self._closed = False
        # Made with the thread: gevent may replace locks, in a worker even after the fork.
        self._signals: _Signals | None = None
        self._after_fork()
        reset_in_child(self)
        warn_if_threads_stand_still()

    def _after_fork(self) -> None:
        if self._signals is not None:
            self._signals.abandoned = True
        self._signals = None
        # Nobody waits for it: whoever comes meanwhile may hold a lock that is wanted where the
        # collector strikes.
        self._starting = Lock()
        self._stepping = Lock()
        self._due = 0.0
        self._thread: threading.Thread | None = None
        self._in_use = False
        self._is_alone = False  # whether no thread could be started

    @property
    def is_begun(self) -> bool:
        """True if it works in this process."""
        return self._in_use

    @property
    def running(self) -> bool:
        """True if a thread is at work in this process."""
        thread = self._thread
        return thread is not None and thread.is_alive() and not self._closed

    def begin(self) -> None:
        """Work in this process from now on."""
        if FORKS_UNSEEN:
            notice_fork()
        if not self._in_use and self._starting.acquire(blocking=False):
            try:
                self._start()
            finally:
                self._starting.release()

    def attend(self) -> None:
        """Work in this process from now on; where no thread can run, take the step if it is due.

        Cost: where a thread runs, none.
        """
        if FORKS_UNSEEN or not self._in_use:
            self.begin()
        if self._is_alone and not self._closed:
            self._take_step()

    def wake(self) -> None:
        """Have the next step taken now; where no thread can run, by `attend`. Does not wait."""
        self.begin()
        self._due = 0.0
        if self._signals is not None:
            self._signals.bell.ring()

    def close(self) -> None:
        """End the thread, after the step under way. From then on there are no others."""
        self._closed = True
        if self._signals is not None:
            self._signals.stop = True
            self._signals.bell.ring()
        thread = self._thread
        if thread is not current_thread():
            if thread is not None:
                thread.join(_LONGEST_STEP)
            _forget(self)

    def finish(self, close: Callable[[], None]) -> None:
        """Have the thread call ``close`` and end, because the owner has been dropped.

        It may be called wherever the collector strikes. ``close`` keeps the owner alive until then.
        """
        if self._closed or not self._in_use:
            return

        def finish() -> None:
            close()
            _forget(self)  # till then the end of the process waits for it

        if self._signals is not None and self.running:
            self._signals.close = finish
            self._signals.bell.ring()
        else:
            finish()

    def close_at_end(self) -> None:
        """Have all done that the end of the process would cut off."""
        close = None if self._close is None else self._close()
        if close is not None:
            close()
        if self._thread is not None:  # which may be about to close what was dropped
            self._thread.join(_LONGEST_STEP)

    def _start(self) -> None:
        if self._in_use or self._closed:
            return
        if self._close is not None:
            _close_at_end(self)
        self._is_alone = not self._start_thread()
        self._in_use = True

    def _start_thread(self) -> bool:
        # A thread of uWSGI's master would not live on in its workers, and could hold the
        # interpreter's lock while they are forked.
        if warn_if_threads_stand_still() or is_uwsgi_master():
            return False
        signals = _Signals()
        # Looked up only now: gevent may have replaced the class, and could not join the old one.
        thread = threading.Thread(
            target=_run, args=(self._step, signals), name=self._name, daemon=True
        )
        self._signals = signals
        try:
            start_thread(thread)
        except RuntimeError as error:  # the process may have no more threads, or be about to end
            self._signals = None
            if not sys.is_finalizing():
                _log.warning("%r: no thread could be started: %s", self._name, error)
            return False
        self._thread = thread
        return True

    def _take_step(self) -> None:
        """Take the step here, if it is due and nobody is about it."""
        if time.monotonic() < self._due or not self._stepping.acquire(blocking=False):
            return
        try:
            self._due = math.inf  # unless `wake` is called meanwhile
            pause = self._step()
            self._due = min(self._due, time.monotonic() + pause)
        finally:
            self._stepping.release()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}>"


# Those whose owners are in use in this process, in order.
_to_be_closed: dict[BackgroundThread, None] = {}
_watched: set[str] = set()


def _close_at_end(thread: BackgroundThread) -> None:
    """Have the owner of a thread closed when this process ends by itself, but not in its forks.

    That is: by returning, by ``sys.exit`` or an exception, as a child of `multiprocessing` (which
    does not run `atexit`) or as a worker of celery (which runs neither). A process that is killed
    or leaves by ``os._exit`` closes nothing.
    """
    _to_be_closed[thread] = None
    # What is not imported by now does not run this process.
    processes: Any = sys.modules.get("multiprocessing.util")
    if processes is not None and "multiprocessing" not in _watched:
        _watched.add("multiprocessing")
        # After all others, which may still use what is closed here.
        processes.Finalize(None, _close_all, exitpriority=-1000)
    celery: Any = sys.modules.get("celery.signals")
    if celery is not None and "celery" not in _watched:
        _watched.add("celery")
        celery.worker_process_shutdown.connect(_close_all, weak=False)


def _forget(thread: BackgroundThread) -> None:
    """Record that its owner has been closed."""
    _to_be_closed.pop(thread, None)


def _close_all(**_: object) -> None:
    for thread in list(_to_be_closed):
        _forget(thread)
        try:
            thread.close_at_end()
        except Exception:  # noqa: BLE001 - the others are to be closed all the same
            _log.exception("%r could not be closed", thread)


def _start_in_child() -> None:
    _to_be_closed.clear()
    # A child of multiprocessing has none of its parent's finalizers; handlers of celery's stay.
    _watched.discard("multiprocessing")


atexit.register(_close_all)
call_in_child(_start_in_child)


class _OwnerStep:
    """A step of an owner that is not kept alive; its failures are logged once, and not raised."""

    __slots__ = ("_complained", "_reference")

    def __init__(self, step: Step) -> None:
        self._reference = WeakMethod(step)
        self._complained = False

    def __call__(self) -> float:
        """Take the step; return the seconds to wait before the next."""
        step = self._reference()
        if step is None:  # its owner is about to hand over its close
            return _AFTER_FAILURE
        try:
            return step()
        except Exception:  # noqa: BLE001 - whatever it is, the next step may do better
            if not self._complained:
                self._complained = True
                _log.exception("%s failed; further failures are not logged", step)
            return _AFTER_FAILURE


def _run(step: _OwnerStep, signals: _Signals) -> None:
    while not signals.stop:
        if signals.abandoned:
            park()
        if signals.close is not None:
            signals.close()
            return
        signals.bell.wait(step())


class BackgroundTask:
    """Takes a step now and again in a task.

    Args:
        step: A bound coroutine method that returns the seconds to wait before the next call.
        close: A bound coroutine method of the same object, awaited when the task is cancelled, as
            by the end of `asyncio.run`.

    It keeps neither of them alive. It ends when `aclose` is called, with the event loop, or when a
    dropped owner hands its close over to `finish`.
    """

    def __init__(self, step: AsyncStep, close: AsyncClose) -> None:
        self._step = WeakMethod(step)
        self._close = WeakMethod(close)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._signals = _LoopSignals()
        self._stop = False

    def attend(self) -> bool:
        """Work in this event loop from now on; tell whether that is news."""
        loop = asyncio.get_running_loop()
        is_news = self._loop is not loop
        if self._stop or not (is_news or self._task is None or self._task.done()):
            return False
        self._loop, self._signals = loop, _LoopSignals()
        self._task = loop.create_task(_work(self._step, self._close, self._signals))
        return is_news

    def wake(self) -> None:
        """Have the next step taken now. From any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                self._loop.call_soon_threadsafe(self._signals.rung.set)

    def finish(self, close: AsyncClose) -> None:
        """Have the task await ``close`` and end, because the owner has been dropped."""
        if not self._stop:
            self._stop = True
            self._signals.close = close
            self.wake()

    async def aclose(self) -> bool:
        """End, after the step under way; tell whether it worked in this event loop."""
        self._stop = self._signals.stop = True
        self._signals.rung.set()
        task, self._task = self._task, None
        if task is None or self._loop is not asyncio.get_running_loop():
            return False
        await asyncio.wait([task])  # it may have been cancelled, which is no concern of ours
        return True


class _LoopSignals:
    """Signals of others to one task; see `_Signals`."""

    __slots__ = ("close", "rung", "stop")

    def __init__(self) -> None:
        self.rung = asyncio.Event()
        self.stop = False
        self.close: AsyncClose | None = None


async def _work(
    step_of: WeakMethod[AsyncStep], close_of: WeakMethod[AsyncClose], signals: _LoopSignals
) -> None:
    complained = False
    try:
        while not signals.stop:
            signals.rung.clear()
            if signals.close is not None:
                await signals.close()
                return
            step, pause = step_of(), _AFTER_FAILURE
            try:
                if step is not None:  # else its owner is about to hand over its close
                    pause = await step()
            except Exception:  # noqa: BLE001 - whatever it is, the next step may do better
                if not complained:
                    complained = True
                    _log.exception("%s failed; further failures are not logged", step)
            del step
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(signals.rung.wait(), pause)
    except asyncio.CancelledError:
        close = signals.close or close_of()
        if close is not None and not signals.stop:
            await close()
        raise
