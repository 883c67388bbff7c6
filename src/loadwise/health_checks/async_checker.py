"""Active health checks from an event loop.

One task keeps the plan; a task per probe asks one node once, and is cancelled when its time is
over.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Generic, Self, TypeVar, Unpack

from loadwise.balancer import Balancer
from loadwise.health_checks.plan import Check, Plan, require_checkable
from loadwise.health_checks.probe import (
    AsyncNodeProbe,
    TimedProbe,
    as_async,
    fault_of,
    fault_of_error,
)
from loadwise.health_checks.settings import CheckOptions, Settings

__all__ = ["AsyncHealthChecker"]

N = TypeVar("N")


async def _wait_for_event(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


class _Run(Generic[N]):
    """One start of a checker, until it is stopped."""

    def __init__(
        self,
        plan: Plan[N],
        probe: Callable[[N], Awaitable[object]],
        clock: Callable[[], float],
        wait: Callable[[asyncio.Event, float], Awaitable[object]],
    ) -> None:
        self._plan = plan
        self._probe = probe
        self._clock = clock
        self._wait = wait
        self._wake = asyncio.Event()
        self._probes: dict[Check[N], asyncio.Task[None]] = {}
        self._stopping = False
        self.process = os.getpid()
        loop = asyncio.get_running_loop()
        self.task = loop.create_task(self._keep_going(), name="loadwise-health")

    async def stop(self, patience: float) -> None:
        """Report no more, and wait for the probes under way to end, but not for ever."""
        self._stopping = True
        self.task.cancel()
        await asyncio.wait([self.task, *self._probes.values()], timeout=patience)

    async def _keep_going(self) -> None:
        try:
            while True:
                self._wake.clear()
                to_start, overdue = self._plan.turn(self._clock())
                for check in overdue:
                    self._probes[check].cancel()
                for check in to_start:
                    self._probes[check] = asyncio.create_task(
                        self._ask(check), name=f"loadwise-health {check.id!r}"
                    )
                await self._wait(self._wake, self._plan.wait(self._clock()))
        finally:
            # However it ends, be it that the loop shuts down.
            self._stopping = True
            for task in self._probes.values():
                task.cancel()

    async def _ask(self, check: Check[N]) -> None:
        try:
            fault = fault_of(await self._probe(check.node))
        except asyncio.CancelledError as error:
            fault = fault_of_error(error)
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # By the plan, which has given its verdict, or by whoever ends the event loop.
                self._plan.put_off(check, self._clock())
                raise
        except Exception as error:  # noqa: BLE001 - whatever a probe raises is a verdict
            fault = fault_of_error(error)
        finally:
            del self._probes[check]
            self._wake.set()
        if not self._stopping:
            self._plan.ended(check, fault, self._clock())


class AsyncHealthChecker(Generic[N]):
    """Asks the nodes of a balancer how they are, from tasks of an event loop.

    Args:
        balancer: Whose members to check, drained ones included. Nodes that are added are checked
            within half a second, nodes that are removed no more.
        probe: How: an `HttpProbe`, a `TcpProbe`, or any coroutine function of a node that returns
            ``True`` or ``None`` for a pass, and returns ``False`` or raises for a failure.
        wait: Waits for an event, but for so many seconds at most.
        options: Intervals, thresholds and the like: see `CheckOptions`.

    Raises:
        TypeError: The probe is not a coroutine function, or there is no such argument.
        ValueError: An argument is out of range, a node has no address that the probe can use, or
            there is no tracker to report to.

    What it finds is reported as by `HealthChecker`. It runs between `start` and `stop`, or in an
    ``async with`` block, and ends with its event loop. An event loop does not survive a fork: in
    the child it is stopped, and may be started in a loop of the child's.

    Thread-safety: `start` and `stop` belong to the thread of the event loop.

    Example:
        >>> async def probe(node: str) -> bool:
        ...     return node != "b"
        >>> async def main() -> bool:
        ...     async with AsyncHealthChecker(Balancer(["a", "b"]), probe) as checker:
        ...         return checker.running
        >>> asyncio.run(main())
        True
    """

    def __init__(
        self,
        balancer: Balancer[N],
        probe: AsyncNodeProbe[N] | TimedProbe,
        *,
        wait: Callable[[asyncio.Event, float], Awaitable[object]] = _wait_for_event,
        **options: Unpack[CheckOptions],
    ) -> None:
        self._balancer = balancer
        self._settings = Settings.of(options)
        self._probe = as_async(probe)
        if not callable(wait):
            raise TypeError(f"wait is {wait!r}; it must be a function of an event and seconds")
        self._wait = wait
        require_checkable(balancer, self._settings, probe)
        self._run: _Run[N] | None = None

    @property
    def running(self) -> bool:
        """Whether it runs."""
        run = self._run
        if run is None or run.process != os.getpid():
            return False
        return not (run.task.done() or run.task.get_loop().is_closed())

    def start(self) -> None:
        """Begin to check, all nodes at first. Does nothing if it runs.

        Raises:
            RuntimeError: No event loop is running.
        """
        if not self.running:
            self._run = _Run(
                Plan(self._balancer, self._settings),
                self._probe,
                self._settings.clock,
                self._wait,
            )

    async def stop(self) -> None:
        """End checking, and probes under way. Does nothing if it does not run.

        Nothing is reported any more once this returns.
        """
        if self.running and self._run is not None:
            await self._run.stop(self._settings.timeout)

    async def __aenter__(self) -> Self:
        self.start()
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
        return f"<AsyncHealthChecker of balancer {self._balancer.name!r}: {state}>"
