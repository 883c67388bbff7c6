"""Bounds of one request's attempts, in time and number, and their waits."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from loadwise._numbers import finite, shown
from loadwise.backoff import Backoff
from loadwise.balancer.acquiring import checked_timeout
from loadwise.balancer.bells import bell_of_this_task, in_event_loop
from loadwise.clock import Clock
from loadwise.retry_budget import RetryBudget

__all__ = ["Pacing"]


class Pacing:
    """Deadline, backoff, budget and timeout of one request's attempts, which begins now.

    Args:
        clock: The balancer's.
        deadline: Seconds from now, finite and > 0; ``None`` for none.
        backoff: How long to wait between rounds; ``None`` for one round only.
        budget: Limits attempts after the first.
        timeout: Seconds for which an attempt waits for a node, ``None`` for without bound.

    Attributes:
        backoff: As given.
        deadline: As given, as a plain number.
        timeout: As given, as a plain number; inf for without bound.
        sleep: Lets the thread wait so many seconds.
        sleep_async: The same for a task.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: ``deadline`` or ``timeout`` is out of range.

    Not thread-safe: one request belongs to one thread or task.
    """

    __slots__ = (
        "_budget",
        "_clock",
        "_ends",
        "_rounds",
        "backoff",
        "deadline",
        "sleep",
        "sleep_async",
        "timeout",
    )

    def __init__(
        self,
        clock: Clock,
        deadline: float | None = None,
        backoff: Backoff | None = None,
        budget: RetryBudget | None = None,
        timeout: float | None = 0.0,
    ) -> None:
        self._clock = clock
        self.deadline = _checked_deadline(deadline)
        self._ends = None if self.deadline is None else clock() + self.deadline
        if backoff is not None and not isinstance(backoff, Backoff):
            raise TypeError(f"backoff is {shown(backoff)}; it must be a Backoff, or None")
        if budget is not None and not isinstance(budget, RetryBudget):
            raise TypeError(f"budget is {shown(budget)}; it must be a RetryBudget, or None")
        self.backoff = backoff
        self._budget = budget
        self.timeout = checked_timeout(timeout)
        # A clock of virtual time lets it pass.
        self.sleep: Callable[[float], None] = getattr(clock, "sleep", time.sleep)
        self.sleep_async: Callable[[float], Awaitable[object]] = _sleep_async
        self._rounds = 0
        if budget is not None:
            budget.deposit()

    def time_left(self) -> float | None:
        """Return the seconds until the deadline; ``None`` without one."""
        return None if self._ends is None else self._ends - self._clock()

    def is_late(self, delay: float = 0.0) -> bool:
        """Tell whether the deadline has passed, or will have after so many more seconds."""
        return self._ends is not None and self._clock() + delay >= self._ends

    def allows_another(self) -> bool:
        """Tell whether another attempt may follow; if so, it is taken from the budget."""
        if self.is_late():
            return False
        return self._budget is None or self._budget.try_withdraw()

    def next_delay(self, least: float) -> float | None:
        """End a round; return the seconds to wait before the next, ``None`` if there is none.

        Args:
            least: Seconds that have to pass in any case.
        """
        if self.backoff is None:
            return None
        delay = max(least, self.backoff.delay(self._rounds))
        self._rounds += 1
        return None if self.is_late(delay) else delay

    def patience(self) -> float:
        """Return the seconds for which an attempt may wait for a node; inf for any time."""
        left = self.time_left()
        return self.timeout if left is None else min(self.timeout, max(0.0, left))

    def wait(self, seconds: float) -> None:
        """Let the thread wait.

        Raises:
            RuntimeError: An event loop is running in it, which would stand still.
        """
        if seconds <= 0:
            return
        if in_event_loop():
            raise RuntimeError(
                f"the next attempt is due in {seconds:.3g} s, and to sleep until then would stop "
                f"the event loop of this thread; use async with, or await call_async"
            )
        self.sleep(seconds)

    async def wait_async(self, seconds: float) -> None:
        """Let the task wait."""
        if seconds <= 0:
            return
        await self.sleep_async(seconds)


async def _sleep_async(seconds: float) -> None:
    """Sleep in a task of asyncio or trio."""
    await bell_of_this_task().wait(seconds)  # nobody rings it


def _checked_deadline(seconds: object) -> float | None:
    if seconds is None:
        return None
    plain = finite("deadline", seconds)
    if not plain > 0:
        raise ValueError(
            f"deadline is {shown(seconds)}; it must be a finite number of seconds above 0, or None"
        )
    return plain
