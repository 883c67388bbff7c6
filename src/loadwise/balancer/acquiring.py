"""Waiting for a node, in a thread or in a task."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Generic, TypeVar

from loadwise._numbers import number
from loadwise.balancer.bells import ThreadBell, bell_of_this_task, in_event_loop
from loadwise.balancer.lease import Lease
from loadwise.balancer.request import Request
from loadwise.balancer.wait_queue import Grant, WaitQueue
from loadwise.balancer.waiter import Waiter, comes_with_time
from loadwise.clock import Clock
from loadwise.errors import NoNodeAvailable
from loadwise.metrics import GuardedCollector

__all__ = ["Acquiring", "Acquisition", "checked_timeout"]

N = TypeVar("N")


def checked_timeout(timeout: float | None) -> float:
    """Return a timeout in seconds, inf for ``None``.

    Raises:
        TypeError: It is no number.
        ValueError: It is negative or NaN.
    """
    if timeout is None:
        return math.inf
    seconds = number("timeout", timeout)
    if not seconds >= 0:
        raise ValueError(f"timeout is {timeout!r}; it must be at least 0, or None for no bound")
    return seconds


class Acquisition(Generic[N]):
    """One request's search for a node, which may have to wait for one.

    Args:
        queue: Who waits already.
        grant: Finds a node.
        clock: The balancer's.
        metrics: Told how long it took and whether there was one, if there had to be a wait.
        request: What is asked for.
        seconds: How long to wait at most; inf for any time.

    Not thread-safe: it belongs to one request.
    """

    __slots__ = ("_clock", "_grant", "_metrics", "_queue", "_request", "_seconds")

    def __init__(
        self,
        queue: WaitQueue[N, Lease[N]],
        grant: Grant[N, Lease[N]],
        clock: Clock,
        metrics: GuardedCollector | None,
        request: Request[N],
        seconds: float,
    ) -> None:
        self._queue = queue
        self._grant = grant
        self._clock = clock
        self._metrics = metrics
        self._request = request
        self._seconds = seconds

    def at_once(self, refusal: NoNodeAvailable | None = None) -> Lease[N] | NoNodeAvailable:
        """Return a lease, or the refusal after which it may be waited for one.

        Args:
            refusal: What it was told when it asked just now, if it did.

        Raises:
            NoNodeAvailable: There is no node, and it cannot or must not be waited for one.
        """
        found: Lease[N] | NoNodeAvailable
        if refusal is None:
            found = self.look()
        else:
            found = refusal
            if self._queue.waiting:
                # Who came to wait meanwhile may have been refused for what this one gave back.
                self._queue.tell(None)
        if not isinstance(found, NoNodeAvailable):
            return found
        if self._seconds > 0 and comes_with_time(found):
            return found
        raise self.refused(found)

    def look(self) -> Lease[N] | NoNodeAvailable:
        """Return a lease, or why there is none; metrics are not told of that."""
        return self._queue.in_turn(self._grant, self._ask)

    def refused(self, refusal: NoNodeAvailable) -> NoNodeAvailable:
        """Tell metrics that the search ends without a node; return the error to raise."""
        if self._metrics is not None:
            self._metrics.on_unavailable(refusal.reason)
        return refusal

    def _ask(self) -> Lease[N] | NoNodeAvailable:
        return self._grant(self._request)

    def in_thread(self, refusal: NoNodeAvailable, *, may_stop_loop: bool = False) -> Lease[N]:
        """Wait in this thread for a node.

        Args:
            refusal: What `at_once` has returned.
            may_stop_loop: Whether a wait that has a bound may stop an event loop of this thread.

        Raises:
            NoNodeAvailable: There was none in time, or there will be none.
            RuntimeError: An event loop runs in this thread.
        """
        if in_event_loop() and not (may_stop_loop and self._seconds < math.inf):
            raise RuntimeError(
                "acquire(timeout=...) would stop the event loop that runs in this thread; "
                "await acquire_async(timeout=...) instead"
            )
        bell = ThreadBell()
        # A clock of virtual time can let it pass.
        sleep: Callable[[float], object] | None = getattr(self._clock, "sleep", None)
        waiter = self._queue.waiter(self._request, refusal, self._seconds, bell)
        try:
            self._queue.join(self._grant, waiter)
            while not waiter.is_done:
                seconds = self._queue.patience(waiter)
                if sleep is not None:
                    sleep(seconds)
                    seconds = 0.0
                self._queue.progress(self._grant, waiter, rang=bell.wait(seconds))
            return self._result(waiter)
        except BaseException:
            self._give_up(waiter)
            raise

    async def in_task(self, refusal: NoNodeAvailable) -> Lease[N]:
        """Wait in this task for a node.

        Raises:
            NoNodeAvailable: There was none in time, or there will be none.
            RuntimeError: The event loop is none of asyncio or trio.
        """
        bell = bell_of_this_task()
        waiter = self._queue.waiter(self._request, refusal, self._seconds, bell)
        try:
            self._queue.join(self._grant, waiter)
            while not waiter.is_done:
                rang = await bell.wait(self._queue.patience(waiter))
                self._queue.progress(self._grant, waiter, rang=rang)
            return self._result(waiter)
        except BaseException:
            self._give_up(waiter)
            raise

    def _give_up(self, waiter: Waiter[N, Lease[N]]) -> None:
        tells = self._metrics is not None and waiter.ticket and not waiter.is_done
        self._queue.leave(self._grant, waiter)
        if self._metrics is not None and tells:
            self._metrics.on_wait(self._clock() - waiter.since, got=False)

    def _result(self, waiter: Waiter[N, Lease[N]]) -> Lease[N]:
        got = waiter.error is None
        if self._metrics is not None and waiter.ticket:
            self._metrics.on_wait(self._clock() - waiter.since, got=got)
        if waiter.granted is not None and got:
            return waiter.granted
        error = waiter.error or waiter.refusal
        raise self.refused(error) if isinstance(error, NoNodeAvailable) else error


class Acquiring(Generic[N]):
    """A lease to come: to be awaited, or entered by ``async with``. Made by `acquire_async`.

    Not thread-safe: it belongs to one task. It may be awaited once.
    """

    def __init__(self, acquisition: Acquisition[N]) -> None:
        self._acquisition: Acquisition[N] | None = acquisition
        self._lease: Lease[N] | None = None

    async def _acquire(self) -> Lease[N]:
        acquisition = self._acquisition
        if acquisition is None:
            raise RuntimeError("it was awaited already; call acquire_async() for another lease")
        self._acquisition = None
        found = acquisition.at_once()
        return await acquisition.in_task(found) if isinstance(found, NoNodeAvailable) else found

    def __await__(self) -> Generator[object, None, Lease[N]]:
        return self._acquire().__await__()

    async def __aenter__(self) -> Lease[N]:
        self._lease = lease = await self._acquire()
        return lease

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lease = self._lease
        if lease is not None:
            lease.__exit__(exc_type, exc, traceback)
