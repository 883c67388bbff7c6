"""Active health checks from threads.

One thread keeps the plan, judges and reports; a short-lived thread asks one node once. So a node
that hangs holds up nobody: the plan thread gives its verdict when the time is over, whether or not
the probe returns, and there is no pool for hanging probes to use up.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from threading import Event, Lock
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack
from weakref import WeakSet

from loadwise._callables import is_awaitable, refuse_async, refuse_awaitable
from loadwise._fork import begin_anew_in_child, is_uwsgi_master
from loadwise._numbers import finite
from loadwise._threads import (
    park,
    start_in_child,
    start_thread,
    warn_if_threads_stand_still,
)
from loadwise.balancer import Balancer
from loadwise.health_checks.checkable import require_checkable
from loadwise.health_checks.leader import as_leader
from loadwise.health_checks.plan import Check, CheckPlan
from loadwise.health_checks.probe import NodeProbe, TimedProbe, as_sync, fault_of, fault_of_error
from loadwise.health_checks.round import Round
from loadwise.health_checks.settings import CheckOptions, CheckSettings

__all__ = ["HealthChecker"]

N = TypeVar("N")

_log = logging.getLogger("loadwise")

_NO_VERDICT = "no verdict"


class _ThreadRun(Generic[N]):
    """Run of a checker, until it is stopped.

    It has a thread while it checks at intervals or somebody waits for verdicts.
    """

    def __init__(
        self,
        plan: CheckPlan[N],
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
        self._rounds: deque[Round] = deque()
        # As its thread, looked up only now: gevent may have replaced what was imported before, and
        # nobody could join an old thread, or give way to others while waiting for an old lock.
        self._lock = threading.Lock()  # so that its thread does not end just as it is needed
        self._thread: threading.Thread | None = None
        self.regular = False
        self.ended = False
        self.is_copy = False  # of a parent's, in the child of a fork

    @property
    def running(self) -> bool:
        """True if it checks at intervals."""
        thread = self._thread
        return self.regular and not self.ended and thread is not None and thread.is_alive()

    @property
    def leads(self) -> bool:
        """True if it is this process that checks at intervals."""
        return self._plan.leads

    def start(self) -> None:
        """Check at intervals from now on, if threads may run here."""
        if warn_if_threads_stand_still():
            return
        with self._lock:
            if not is_uwsgi_master():  # else its workers are to begin
                self._need_thread()
            self.regular = True
            self._wake.set()

    def check_now(self, finished: Callable[[], object]) -> Round:
        """Check all nodes now, and have ``finished`` called when all verdicts are in.

        Raises:
            RuntimeError: This is its own thread, or no thread can be started.
        """
        if self._thread is threading.current_thread():
            raise RuntimeError(
                "check_now was called in the checker's own thread, as by a listener, and would "
                "wait for itself; call it in another thread"
            )
        round_ = Round(finished)
        with self._lock:
            self._need_thread()
            self._rounds.append(round_)
            self._wake.set()
        return round_

    def stop(self) -> None:
        """Report no more once this returns. Probes under way run out by themselves."""
        thread = self._thread
        self.ended = True
        self._wake.set()
        if thread is not threading.current_thread() and thread is not None and thread.is_alive():
            thread.join()

    def _need_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=self._keep_going, name="loadwise-health", daemon=True
            )
            start_thread(self._thread)

    def _keep_going(self) -> None:
        try:
            while not self.ended:
                # Before the results are looked at, so that none that comes later is slept through.
                self._wake.clear()
                self._take_in()
                to_start, _ = self._plan.turn(self._clock())
                for check in to_start:
                    self._start(check)
                if self._may_rest():
                    return
                if not self.ended:
                    self._wait(self._wake, self._plan.wait(self._clock()))
            if self.is_copy:
                park()
        finally:
            # Unless it is idle, be it that it was stopped or that a clock raised.
            with self._lock:
                if self._thread is threading.current_thread():
                    self._thread = None
                    self.abandon()
                    self._plan.resign()

    def _take_in(self) -> None:
        while self._results and not self.ended:
            check, fault = self._results.popleft()
            if fault is _NO_VERDICT:
                self._plan.put_off(check, self._clock())
            else:
                self._plan.ended(check, fault, self._clock())
        if self.regular:
            self._plan.go_regular(self._clock())
        while self._rounds:
            self._plan.check_now(self._rounds.popleft(), self._clock())

    def _may_rest(self) -> bool:
        with self._lock:
            is_idle = self._plan.idle and not (self.regular or self._rounds)
            if is_idle:
                self._thread = None
            return is_idle

    def _start(self, check: Check[N]) -> None:
        name = f"loadwise-health {check.id!r}"
        try:
            start_thread(threading.Thread(target=self._ask, args=(check,), name=name, daemon=True))
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
        if self.is_copy:
            park()

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
        """End it without waiting for its thread, which it does not have in a forked child."""
        self.ended = True
        self._plan.stop()
        while self._rounds:
            self._rounds.popleft().stop()


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

    It runs between `start` and `stop`, or in a ``with`` block; `check_now` works besides. Its
    threads are daemons. In a forked child one that runs goes on with a thread of its own, since
    the child's tracker is its own. In uWSGI it begins in the workers, never in the master; without
    uWSGI's option ``enable-threads`` it does not run, and a warning says so.

    Thread-safety: `start`, `stop` and `check_now` may be called from any thread.

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
        self._settings = CheckSettings.of(options)
        self._probe = as_sync(probe, self._settings.timeout)
        if not callable(wait):
            raise TypeError(f"wait is {wait!r}; it must be a function of an event and seconds")
        refuse_async("wait", wait, "use AsyncHealthChecker for it")
        self._wait = wait
        require_checkable(balancer, self._settings, probe)
        self._leader = as_leader(self._settings.leader)
        self._lock = Lock()
        self._run: _ThreadRun[N] | None = None
        self._goes_on = False  # in the child of a fork, once all locks there are new
        _checkers.add(self)

    @property
    def running(self) -> bool:
        """True if it runs, between `start` and `stop`."""
        run = self._run
        return run is not None and run.running

    def start(self) -> None:
        """Begin to check at intervals, all nodes at first. Does nothing if it runs.

        Nodes that `check_now` has just checked are due an interval after that.
        """
        with self._lock:
            self._get_run().start()

    def check_now(self, timeout: float | None = None) -> dict[Hashable, str | None]:
        """Check all members at once, whatever the schedule, and wait for the verdicts.

        For the moment after the start or a deploy, and for tests. It works whether or not the
        checker runs.

        Args:
            timeout: Seconds to wait for all verdicts, finite and >= 0; ``None`` for as long as it
                takes. That is bounded: each check has the checker's ``timeout``, and
                ``concurrency`` are made at a time.

        Returns:
            By the id of each member what was wrong, or ``None`` if it passed, in the order of the
            members. A node that leaves meanwhile is left out.

        Raises:
            TimeoutError: Not all verdicts were in. The checks go on, and are reported.
            LoadwiseError: The checker was stopped meanwhile.
            RuntimeError: It was called in the checker's own thread, as by a listener that the
                checker's report has called; or no thread can be started.
            TypeError: ``timeout`` is not a number.
            ValueError: ``timeout`` is out of range.

        Every verdict is of a probe that began after the call. If one is under way for a node, the
        node is asked again when it has returned; if it hangs, that is the verdict.

        By the time this returns the verdicts have been reported and listeners have been called,
        as for regular checks: thresholds hold back what is not yet a streak, and the policy
        decides. So one failed check need not make a node UNHEALTHY; but its fault is returned.

        The next regular check of each node comes an interval later.

        Thread-safety: any thread but the checker's own. Calls at the same time share their
        checks. Who is interrupted leaves the checks to end by themselves.

        Cost: O(n log n) and one probe per node.

        Example:
            >>> balancer = Balancer(["a", "b"])
            >>> checker = HealthChecker(balancer, lambda node: node != "b")
            >>> checker.check_now()
            {'a': None, 'b': 'the probe returned False'}
        """
        seconds = None if timeout is None else finite("timeout", timeout)
        if seconds is not None and not seconds >= 0:
            raise ValueError(
                f"timeout is {timeout!r}; it must be a finite number of seconds, at least 0, or "
                f"None"
            )
        done = Event()
        with self._lock:
            round_ = self._get_run().check_now(done.set)
        if not done.wait(None if seconds is None else min(seconds, threading.TIMEOUT_MAX)):
            raise TimeoutError(
                f"the checks of balancer {self._balancer.name!r} did not all end within "
                f"{seconds:g} s; they go on, and what they find is reported"
            )
        return round_.result(self._balancer.name)

    def stop(self) -> None:
        """End checking. Does nothing if it does not run.

        Nothing is reported any more once this returns. It does not wait for probes under way:
        they run out in their daemon threads. Who waits in `check_now` is told by an error.
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
        run = self._run
        state = "stopped"
        if run is not None and run.running:
            state = "running" if run.leads else "standing by"
        return f"<HealthChecker of balancer {self._balancer.name!r}: {state}>"

    def _get_run(self) -> _ThreadRun[N]:
        run = self._run
        if run is None or run.ended:
            run = self._run = _ThreadRun(
                CheckPlan(self._balancer, self._settings, self._leader, regular=False),
                self._probe,
                self._settings.clock,
                self._wait,
            )
        return run

    def _leave_parent(self) -> None:
        self._lock = Lock()
        run, self._run = self._run, None
        if run is not None:
            self._goes_on = run.regular and not run.ended
            run.is_copy = True
            run.abandon()

    def _begin_anew(self) -> None:
        goes_on, self._goes_on = self._goes_on, False
        if goes_on:
            start_in_child(self.start)


_checkers: WeakSet[HealthChecker[Any]] = WeakSet()
# Their private methods are hooks of this module.
begin_anew_in_child(_checkers, HealthChecker[Any]._leave_parent, HealthChecker[Any]._begin_anew)  # noqa: SLF001 - see above
