"""Virtual time: a clock for which to sleep is to let it pass, and event loops that go by it."""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from loadwise._numbers import finite
from loadwise.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    import asyncio

__all__ = ["VirtualClock"]

T = TypeVar("T")

_MOST_PASSES = 50
"""Times to let others go first in a loop that does not tell whether there are any."""


class VirtualClock(ManualClock):
    """A clock for which to sleep is to let time pass: no test waits for it.

    Args:
        start: Its first reading, in seconds.

    `sleep` advances it at once. `asleep` has tasks sleep side by side: when all of them wait, it is
    advanced to the earliest end of a sleep. `run` runs a coroutine in an event loop whose time it
    is, so that `asyncio.sleep`, `asyncio.timeout` and all that is built on them go by it, too: the
    waits of ``acquire_async``, backoff and deadlines.

    Not thread-safe: virtual time has one thread, or one event loop. Other threads run in real time,
    and it does not wait for them.

    Cost: O(log n) per sleep, for n that sleep.

    Example:
        >>> clock = VirtualClock()
        >>> import asyncio
        >>> async def nap(seconds):
        ...     await asyncio.sleep(seconds)
        ...     return clock()
        >>> async def main():
        ...     return await asyncio.gather(nap(3600.0), nap(60.0))
        >>> clock.run(main())
        [3600.0, 60.0]
    """

    def __init__(self, start: float = 0.0) -> None:
        super().__init__(start)
        self._order = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        # In which loop `_pass_time` is planned: once, because two would each wait for the other.
        self._driven: asyncio.AbstractEventLoop | None = None

    def sleep(self, seconds: float) -> None:
        """Let so many seconds pass, at once.

        Raises:
            ValueError: ``seconds`` is negative, NaN or infinite.
        """
        self.advance(seconds)

    async def asleep(self, seconds: float) -> None:
        """Sleep for so many seconds of virtual time, while other tasks go on.

        Raises:
            ValueError: ``seconds`` is negative, NaN or infinite.
        """
        pause = finite("seconds", seconds)
        if not pause >= 0:
            raise ValueError(f"seconds is {seconds!r}; it must be finite and at least 0")
        import asyncio  # noqa: PLC0415 - whoever is here has imported it

        loop = asyncio.get_running_loop()
        if getattr(loop, "clock", None) is self:
            await asyncio.sleep(pause)
            return
        woken: asyncio.Future[None] = loop.create_future()
        heappush(self._sleepers, (self.now + pause, next(self._order), woken))
        if self._driven is not loop:
            self._driven = loop
            loop.call_soon(self._pass_time, loop, 0)
        await woken

    def _pass_time(self, loop: asyncio.AbstractEventLoop, passes: int) -> None:
        """Wake the sleeper who is first, once no task of the loop has anything else to do."""
        while self._sleepers and _is_over(self._sleepers[0][2]):
            heappop(self._sleepers)
        if not self._sleepers:
            self._driven = None
            return
        ready: deque[object] | None = getattr(loop, "_ready", None)
        if ready or (ready is None and passes < _MOST_PASSES):
            loop.call_soon(self._pass_time, loop, passes + 1)
            return
        when, _, woken = heappop(self._sleepers)
        if when > self.now:
            self.advance(when - self.now)
        woken.set_result(None)
        loop.call_soon(self._pass_time, loop, 0)

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Return an event loop whose time this is; a ``loop_factory`` for whoever takes one."""
        from loadwise.testing.virtual_loop import VirtualLoop  # noqa: PLC0415 - needs asyncio

        return VirtualLoop(self, self.advance)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in an event loop whose time this is, and return what it returns.

        Raises:
            RuntimeError: All tasks wait for something that does not come, or a loop runs already.
        """
        import asyncio  # noqa: PLC0415 - threads have no use for it

        with asyncio.Runner(loop_factory=self.new_event_loop) as runner:
            return runner.run(main)


def _is_over(sleep: asyncio.Future[None]) -> bool:
    return sleep.done() or sleep.get_loop().is_closed()
