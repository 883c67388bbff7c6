"""Wake-up calls for those who wait for a node, in threads and in event loops."""

from __future__ import annotations

import math
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Hashable
    from types import ModuleType

    import trio

__all__ = ["AsyncBell", "Bell", "ThreadBell", "bell_of_this_task", "in_event_loop"]


class Bell(Protocol):
    """Bell that wakes one who waits.

    Thread-safety: any thread may ring it, and in the middle of anything, because it takes no lock.
    """

    @property
    def home(self) -> Hashable:
        """The event loop in which it is heard; ``None`` for a thread."""
        ...

    @property
    def is_dead(self) -> bool:
        """True if nobody will ever hear it, because the event loop is closed."""
        ...

    def ring(self) -> None:
        """Wake the one who waits, or have it not fall asleep."""
        ...


class AsyncBell(Bell, Protocol):
    """A bell of a task."""

    async def wait(self, seconds: float) -> bool:
        """Sleep until it rings, or has rung since the last time; ``seconds`` at most.

        Returns:
            Whether it has rung.
        """
        ...


class ThreadBell:
    """A bell of a thread."""

    home = None
    is_dead = False

    def __init__(self) -> None:
        self._silent = threading.Lock()
        self._silent.acquire()

    def ring(self) -> None:
        """Wake the thread, or have it not fall asleep."""
        with suppress(RuntimeError):  # it has rung already
            self._silent.release()

    def wait(self, seconds: float) -> bool:
        """Sleep until it rings, or has rung since the last time; ``seconds`` at most."""
        return self._silent.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))


class _AsyncioBell:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.home: Hashable = loop
        self._loop = loop
        self._thread = threading.get_ident()
        self._asleep: asyncio.Future[None] | None = None
        self._rung = False

    @property
    def is_dead(self) -> bool:
        return self._loop.is_closed()

    def ring(self) -> None:
        self._rung = True
        if self._asleep is None:
            return
        with suppress(RuntimeError):  # the loop is closed, so nobody is there to wake
            if threading.get_ident() == self._thread:
                self._wake()
            else:
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        asleep = self._asleep
        if asleep is not None and not asleep.done():
            asleep.set_result(None)

    async def wait(self, seconds: float) -> bool:
        self._asleep = asleep = self._loop.create_future()
        timer = None if math.isinf(seconds) else self._loop.call_later(seconds, self._wake)
        try:
            # Asked after `_asleep` is set: whoever rings from here on wakes it.
            if not self._rung:
                await asleep
            return self._rung
        finally:
            self._asleep = None
            self._rung = False
            if timer is not None:
                timer.cancel()


class _TrioBell:
    is_dead = False
    """Trio ends no run before all its tasks have left."""

    def __init__(self, library: ModuleType) -> None:
        self._library = library
        self._token: trio.lowlevel.TrioToken = library.lowlevel.current_trio_token()
        self.home: Hashable = self._token
        self._rung: trio.Event = library.Event()

    def ring(self) -> None:
        with suppress(self._library.RunFinishedError):
            self._token.run_sync_soon(self._rung.set)

    async def wait(self, seconds: float) -> bool:
        with self._library.move_on_after(seconds):
            await self._rung.wait()
        rang = self._rung.is_set()
        if rang:
            self._rung = self._library.Event()
        return rang


def in_event_loop() -> bool:
    """Tell whether this thread runs an event loop, so that to wait here would stop it."""
    return _asyncio_loop() is not None or _trio_here() is not None


def bell_of_this_task() -> AsyncBell:
    """Return a bell for the task that asks.

    Raises:
        RuntimeError: There is no event loop, or one of a kind that is not known.
    """
    loop = _asyncio_loop()
    if loop is not None:
        return _AsyncioBell(loop)
    library = _trio_here()
    if library is not None:
        return _TrioBell(library)
    raise RuntimeError("acquire_async() can wait in a task of asyncio or trio only")


def _asyncio_loop() -> asyncio.AbstractEventLoop | None:
    # Not imported here: where nobody has, no loop runs.
    library = sys.modules.get("asyncio")
    if library is None:
        return None
    try:
        loop: asyncio.AbstractEventLoop = library.get_running_loop()
    except RuntimeError:
        return None
    return loop


def _trio_here() -> ModuleType | None:
    library = sys.modules.get("trio")
    if library is None:
        return None
    try:
        library.lowlevel.current_trio_token()
    except (AttributeError, RuntimeError):
        return None
    return library
