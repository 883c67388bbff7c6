"""Active health checks from threads.

One thread keeps the plan, judges and reports; a short-lived thread asks one node once. So a node
that hangs holds up nobody: the plan thread gives its verdict when the time is over, whether or not
the probe returns, and there is no pool for hanging probes to use up.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack
from weakref import WeakSet

from loadwise._callables import is_awaitable, refuse_async, refuse_awaitable
from loadwise.balancer import Balancer
from loadwise.health_checks.plan import Check, Plan, require_checkable
from loadwise.health_checks.probe import NodeProbe, TimedProbe, as_sync, fault_of, fault_of_error
from loadwise.health_checks.settings import CheckOptions, Settings

__all__ = ["HealthChecker"]

N = TypeVar("N")

_log = logging.getLogger("loadwise")

_NO_VERDICT = "no verdict"


class _Run(Generic[N]):
    """One start of a checker, until it is stopped."""

    def __init__(
        self,
        plan: Plan[N],
        probe: Callable[[N], object],
        clock: Callable[[], float],
        wait: Callable[[Event, float], object],
    ) -> None:
        self._plan = plan
        self._probe = probe
        self._clock = clock
        self._wait = wait
        self._wake = Event()
        # Each with what was wrong, if anything; `_NO_VERDICT` where that was not found out.
        self._results: deque[tuple[Check[N], str | None]] = deque()
        self._complaints = [None]
        self._stopping = False
        self.thread = Thread(target=self._keep_going, name="loadwise-health", daemon=True)

    def stop(self) -> None:
        """Report no more once this returns. Probes under way run out by themselves."""
        self._stopping = True
        self._wake.set()
        if self.thread is not threading.current_thread():
            self.thread.join()

    def _keep_going(self) -> None:
        while not self._stopping:
            # Before the results are looked at, so that none that comes later is slept through.
            self._wake.clear()
            self._take_results()
            to_start, _ = self._plan.turn(self._clock())
            for check in to_start:
                self._start(check)
            if not self._stopping:
                self._wait(self._wake, self._plan.wait(self._clock()))

    def _take_results(self) -> None:
        while self._results:
            check, fault = self._results.popleft()
            if fault is _NO_VERDICT:
                self._plan.put_off(check, self._clock())
            else:
                self._plan.ended(check, fault, self._clock())

    def _start(self, check: Check[N]) -> None:
        name = f"loadwise-health {check.id!r}"
        try:
            Thread(target=self._ask, args=(check,), name=name, daemon=True).start()
        except RuntimeError:  # the process may have no more threads, or be about to end
            self._plan.put_off(check, self._clock())
            if not sys.is_finalizing():
                _log.warning("no thread could be started to check node %r", check.id)

    def _ask(self, check: Check[N]) -> None:
        try:
            answer = self._probe(check.node)
            fault = self._refuse(answer) if is_awaitable(answer) else fault_of(answer)
        except BaseException as error:  # noqa: BLE001 - whatever a probe raises is a verdict
            fault = fault_of_error(error)
        self._results.append((check, fault))
        self._wake.set()

    def _refuse(self, answer: object) -> str:
        """Complain of a probe that was to be awaited, once: that is no fault of the node's."""
        try:
            refuse_awaitable("the probe", answer, "use AsyncHealthChecker for it")
        except TypeError:
            with suppress(IndexError):
                self._complaints.pop()
                _log.exception("nothing can be found out of any node")
        return _NO_VERDICT

    def abandon(self) -> None:
        """Let it end without waiting for it: in a forked child it has no thread."""
        self._stopping = True


class HealthChecker(Generic[N]):
    """Asks the nodes of a balancer how they are, from a background thread.

    Args:
        balancer: Whose members to check, drained ones included. Nodes that are added are checked
            within half a second, nodes that are removed no more.
        probe: How: an `HttpProbe`, a `TcpProbe`, or any function of a node that returns ``True``
            or ``None`` for a pass, and returns ``False`` or raises for a failure.
        wait: Waits for an event, but for so many seconds at most.
        options: Intervals, thresholds and the like: see `CheckOptions`.

    Raises:
        TypeError: The probe is not a plain function, or there is no such argument.
        ValueError: An argument is out of range, a node has no address that the probe can use, or
            there is no tracker to report to.

    What it finds is reported to the balancer's `HealthTracker` like the outcome of a request, and
    the tracker's policy decides what becomes of that. It is not traffic: picks, latencies,
    requests in flight and quotas do not see it.

    It runs between `start` and `stop`, or in a ``with`` block. Its threads are daemons. In a
    forked child one that runs goes on with a thread of its own, since the child's tracker is its
    own.

    Thread-safety: `start` and `stop` may be called from any thread.

    Example:
        >>> balancer = Balancer(["a", "b"])
        >>> with HealthChecker(balancer, lambda node: node != "b", interval=1.0) as checker:
        ...     checker.running
        True
    """

    def __init__(
        self,
        balancer: Balancer[N],
        probe: NodeProbe[N] | TimedProbe,
        *,
        wait: Callable[[Event, float], object] = Event.wait,
        **options: Unpack[CheckOptions],
    ) -> None:
        self._balancer = balancer
        self._settings = Settings.of(options)
        self._probe = as_sync(probe, self._settings.timeout)
        if not callable(wait):
            raise TypeError(f"wait is {wait!r}; it must be a function of an event and seconds")
        refuse_async("wait", wait, "use AsyncHealthChecker for it")
        self._wait = wait
        require_checkable(balancer, self._settings, probe)
        self._lock = Lock()
        self._run: _Run[N] | None = None
        _checkers.add(self)

    @property
    def running(self) -> bool:
        """Whether it runs."""
        run = self._run
        return run is not None and run.thread.is_alive()

    def start(self) -> None:
        """Begin to check, all nodes at first. Does nothing if it runs."""
        with self._lock:
            if not self.running:
                run = _Run(
                    Plan(self._balancer, self._settings),
                    self._probe,
                    self._settings.clock,
                    self._wait,
                )
                run.thread.start()
                self._run = run

    def stop(self) -> None:
        """End checking. Does nothing if it does not run.

        Nothing is reported any more once this returns. It does not wait for probes under way:
        they run out in their daemon threads.
        """
        with self._lock:
            run, self._run = self._run, None
        if run is not None:
            run.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "running" if self.running else "stopped"
        return f"<HealthChecker of balancer {self._balancer.name!r}: {state}>"

    def _go_on_in_child(self) -> None:
        self._lock = Lock()
        run, self._run = self._run, None
        if run is not None:
            run.abandon()
            self.start()


_checkers: WeakSet[HealthChecker[Any]] = WeakSet()


def _go_on_in_child() -> None:
    for checker in list(_checkers):
        checker._go_on_in_child()  # noqa: SLF001 - a hook of this module


if hasattr(os, "register_at_fork"):
    # Those of loadwise._fork were registered before and so run before: the threads started here
    # find no lock that a thread of the parent held.
    os.register_at_fork(after_in_child=_go_on_in_child)
