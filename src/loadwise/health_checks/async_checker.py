"""Active health checks from an event loop.

One task keeps the plan; a task per probe asks one node once, and is cancelled when its time is
over.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack

from loadwise._event_loops import current_loop
from loadwise.balancer import Balancer
from loadwise.health_checks.checkable import require_checkable
from loadwise.health_checks.leader import as_leader
from loadwise.health_checks.plan import Check, CheckPlan
from loadwise.health_checks.probe import (
    AsyncNodeProbe,
    TimedProbe,
    as_async,
    fault_of,
    fault_of_error,
)
from loadwise.health_checks.round import Round
from loadwise.health_checks.settings import CheckOptions, CheckSettings

__all__ = ["AsyncHealthChecker"]

N = TypeVar("N")


class _TaskRun(Generic[N]):
    """Run of a checker, until it is stopped.

    It has a task while it checks at intervals or somebody waits for verdicts.
    """

    def __init__(
        self,
        plan: CheckPlan[N],
        probe: Callable[[N], Awaitable[object]],
        clock: Callable[[], float],
        wait: Callable[[Any, float], Awaitable[object]] | None,
    ) -> None:
        self._plan = plan
        self._probe = probe
        self._clock = clock
        self.loop = loop = current_loop()
        self._wait = loop.wait if wait is None else wait
        self._wake = loop.event()
        # Tasks and events are Any: they are those of asyncio or of trio.
        self._probes: dict[Check[N], Any] = {}
        self._rounds: list[Round] = []
        self._task: Any = None
        self._regular = False
        self._ended = False
        self._process = os.getpid()

    @property
    def alive(self) -> bool:
        """True if it can be used, in its loop."""
        return not (self._ended or self._process != os.getpid() or self.loop.is_closed)

    @property
    def running(self) -> bool:
        """True if it checks at intervals."""
        return self._regular and self.alive

    @property
    def leads(self) -> bool:
        """True if it is this process that checks at intervals."""
        return self._plan.leads

    def start(self) -> None:
        """Check at intervals from now on."""
        self._regular = True
        self._need_task()

    def check_now(self, finished: Callable[[], object]) -> Round:
        """Check all nodes now, and have ``finished`` called when all verdicts are in."""
        round_ = Round(finished)
        self._rounds.append(round_)
        self._need_task()
        return round_

    async def stop(self, patience: float) -> None:
        """Report no more, and wait for the probes under way to end, but not for ever."""
        tasks = list(self._probes.values())
        if self._task is not None:
            self._task.cancel()
            tasks.append(self._task)
        self._end()
        if tasks:
            await self.loop.join(tasks, patience)

    def _need_task(self) -> None:
        if self._task is None or self._task.done():
            self._task = self.loop.spawn(self._keep_going, "loadwise-health")
        self._wake.set()

    def _end(self) -> None:
        self._ended = True
        self._plan.stop()
        self._plan.resign()
        rounds, self._rounds = self._rounds, []
        for round_ in rounds:
            round_.stop()
        for task in self._probes.values():
            task.cancel()

    async def _keep_going(self) -> None:
        try:
            while True:
                self._wake = self.loop.event()
                if self._regular:
                    self._plan.go_regular(self._clock())
                rounds, self._rounds = self._rounds, []
                for round_ in rounds:
                    self._plan.check_now(round_, self._clock())
                to_start, overdue = self._plan.turn(self._clock())
                for check in overdue:
                    self._probes[check].cancel()
                for check in to_start:
                    self._probes[check] = self.loop.spawn(
                        partial(self._ask, check), f"loadwise-health {check.id!r}"
                    )
                if self._plan.idle:
                    return
                await self._wait(self._wake, self._plan.wait(self._clock()))
        except BaseException:
            # However it ends, be it that the loop shuts down.
            self._end()
            raise

    async def _ask(self, check: Check[N]) -> None:
        try:
            fault = fault_of(await self._probe(check.node))
        except BaseException as error:
            if not self.loop.is_verdict(error):
                # By the plan, which has given its verdict, or by whoever ends the event loop.
                self._plan.put_off(check, self._clock())
                raise
            fault = fault_of_error(error)
        finally:
            del self._probes[check]
            self._wake.set()
        if not self._ended:
            self._plan.ended(check, fault, self._clock())


class AsyncHealthChecker(Generic[N]):
    """Asks the nodes of a balancer how they are, from tasks of an event loop: asyncio's or trio's.

    Args:
        balancer: Whose members to check, drained ones included. Nodes that are added are checked
            within half a second, nodes that are removed no more.
        probe: How: an `HttpProbe`, a `TcpProbe`, or any coroutine function of a node that returns
            ``True`` or ``None`` for a pass, and returns ``False`` or raises for a failure.
        wait: Waits for an event of the loop's, but for so many seconds at most; for tests.
        options: Intervals, thresholds and the like: see `CheckOptions`.

    Raises:
        TypeError: The probe is not a coroutine function, or there is no such argument.
        ValueError: An argument is out of range, a node has no address that the probe can use, or
            there is no tracker to report to.

    What it finds is reported as by `HealthChecker`. It runs between `start` and `stop`, or in an
    ``async with`` block, and ends with its event loop; `check_now` works besides. An event loop
    does not survive a fork: in the child it is stopped, and may be started in a loop of the
    child's.

    Thread-safety: `start`, `stop` and `check_now` belong to the thread of the event loop.

    Example:
        >>> import asyncio
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
        wait: Callable[[Any, float], Awaitable[object]] | None = None,
        **options: Unpack[CheckOptions],
    ) -> None:
        self._balancer = balancer
        self._settings = CheckSettings.of(options)
        self._probe = as_async(probe)
        if wait is not None and not callable(wait):
            raise TypeError(f"wait is {wait!r}; it must be a function of an event and seconds")
        self._wait = wait
        require_checkable(balancer, self._settings, probe)
        self._leader = as_leader(self._settings.leader)
        self._run: _TaskRun[N] | None = None

    @property
    def running(self) -> bool:
        """True if it runs, between `start` and `stop`."""
        return self._run is not None and self._run.running

    def start(self) -> None:
        """Begin to check at intervals, all nodes at first. Does nothing if it runs.

        Nodes that `check_now` has just checked are due an interval after that.

        Raises:
            RuntimeError: No event loop is running.
        """
        if not self.running:
            self._get_run().start()

    async def check_now(self) -> dict[Hashable, str | None]:
        """Check all members at once, whatever the schedule, and wait for the verdicts.

        As `HealthChecker.check_now`, whether or not the checker runs. To wait no longer than so
        many seconds use ``asyncio.timeout`` or ``trio.fail_after``: who is cancelled leaves the
        checks to go on.

        Returns:
            By the id of each member what was wrong, or ``None`` if it passed, in the order of the
            members. A node that leaves meanwhile is left out.

        Raises:
            LoadwiseError: The checker was stopped meanwhile.
            RuntimeError: The checker runs in another event loop.

        Thread-safety: it belongs to the thread of the event loop.

        Cost: O(n log n) and one probe per node.

        Example:
            >>> import asyncio
            >>> async def probe(node: str) -> bool:
            ...     return node != "b"
            >>> checker = AsyncHealthChecker(Balancer(["a", "b"]), probe)
            >>> asyncio.run(checker.check_now())
            {'a': None, 'b': 'the probe returned False'}
        """
        loop = current_loop()
        if self.running and self._run is not None and not self._run.loop.is_current:
            raise RuntimeError(
                "the checker runs in another event loop, to which check_now belongs; from this "
                "one use asyncio.run_coroutine_threadsafe"
            )
        done = loop.event()
        round_ = self._get_run().check_now(done.set)
        await done.wait()
        return round_.result(self._balancer.name)

    async def stop(self) -> None:
        """End checking, and probes under way. Does nothing if it does not run.

        Nothing is reported any more once this returns. Who waits in `check_now` is told by an
        error.
        """
        if self._run is not None and self._run.alive:
            await self._run.stop(self._settings.timeout)

    def _get_run(self) -> _TaskRun[N]:
        run = self._run
        if run is None or not run.alive or not run.loop.is_current:
            run = self._run = _TaskRun(
                CheckPlan(self._balancer, self._settings, self._leader, regular=False),
                self._probe,
                self._settings.clock,
                self._wait,
            )
        return run

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
        run = self._run
        state = "stopped"
        if run is not None and run.running:
            state = "running" if run.leads else "standing by"
        return f"<AsyncHealthChecker of balancer {self._balancer.name!r}: {state}>"
