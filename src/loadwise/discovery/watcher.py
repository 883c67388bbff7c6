"""Watcher for programs with threads: it keeps a balancer's nodes those that a source lists."""

from __future__ import annotations

import threading
from threading import Lock
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack
from weakref import WeakSet

from loadwise._fork import begin_anew_in_child, is_uwsgi_master
from loadwise._numbers import shown
from loadwise._threads import start_in_child, warn_if_threads_stand_still
from loadwise.balancer import Balancer
from loadwise.discovery.keeper import Keeper, WatchStatus
from loadwise.discovery.run import WatchRun
from loadwise.discovery.settings import WatchOptions, WatchSettings, require_watchable
from loadwise.discovery.source import NodeSource

__all__ = ["Watcher"]

N = TypeVar("N")

_PATIENCE = 1.0
"""Seconds that `stop` waits for a fetch under way."""


class Watcher(Generic[N]):
    """Keeps the nodes of a balancer those that a source lists, from background threads.

    Args:
        balancer: Whose nodes to keep. What nodes it has of its own stay until the source first
            answers.
        source: Where the nodes are listed: a `FileSource`, `DnsSource`, `KubernetesSource`,
            `ConsulSource`, `CallableSource`, or a `NodeSource` of your own.
        options: When to believe the source, and how fast to follow: see `WatchOptions`.

    Raises:
        TypeError: There is no such argument, or one is of the wrong type.
        ValueError: An argument is out of range.

    Nodes are told apart by their ids: who stays keeps health, counts and connections. A source
    that fails changes nothing, and is asked again within 10 seconds; an empty answer changes
    nothing, either. Nodes that are about to end are drained. Nothing of that holds up a pick: all
    members change at once, by one reference, when all that a strategy needs of them is there.

    A balancer has one watcher at a time: two would undo what the other did.

    It runs between `start` and `stop`, or in a ``with`` block. Its two threads are daemons. In a
    forked child one that runs goes on with threads and a connection of its own. In uWSGI it begins
    in the workers, never in the master; without uWSGI's option ``enable-threads`` it does not run,
    and a warning says so.

    Thread-safety: all methods may be called from any thread.

    Cost: O(n) for each change of the nodes, in the background.

    Example:
        >>> from loadwise import Balancer
        >>> from loadwise.discovery import CallableSource
        >>> balancer = Balancer([], name="search")
        >>> with Watcher(balancer, CallableSource(lambda: ["10.0.0.1:80", "10.0.0.2:80"])):
        ...     balancer.nodes
        ('10.0.0.1:80', '10.0.0.2:80')
    """

    def __init__(
        self, balancer: Balancer[N], source: NodeSource[N], **options: Unpack[WatchOptions]
    ) -> None:
        self._settings = WatchSettings.of(options)
        require_watchable(balancer, source)
        if getattr(source, "is_async", False):
            raise TypeError(
                f"source is {shown(source)}, whose function is to be awaited; use AsyncWatcher for "
                f"it"
            )
        self._source = source
        self._keeper: Keeper[N] = Keeper(balancer, self._settings, repr(source))
        self._lock = Lock()
        self._run: WatchRun[N] | None = None
        self._goes_on = False  # in the child of a fork, once all locks there are new
        _watchers.add(self)

    @property
    def running(self) -> bool:
        """True if it runs, between `start` and `stop`."""
        run = self._run
        return run is not None and run.running

    def start(self) -> None:
        """Begin, and wait for the first answer or error, for ``timeout`` seconds at most.

        Does nothing if it runs. A source that fails at first is no error here: the balancer keeps
        its own nodes, the log says what is wrong, and the source is asked again.

        Raises:
            LoadwiseError: Another watcher keeps the nodes of this balancer.
            RuntimeError: The process may have no more threads.
        """
        told = self._begin()
        if told is not None and self._settings.timeout:
            told.wait(min(self._settings.timeout, threading.TIMEOUT_MAX))

    def stop(self) -> None:
        """End watching; the balancer keeps the nodes that it has. Does nothing if it does not run.

        Nothing is changed any more once this returns. A fetch under way is given up.
        """
        with self._lock:
            run, self._run = self._run, None
        if run is not None:
            run.stop(_PATIENCE)

    def status(self) -> WatchStatus:
        """Return how it is. O(1)."""
        return self._keeper.status(self._settings.clock())

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:  # such as Ctrl-C: without a block nobody would stop it
            self.stop()
            raise
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
        return f"<Watcher of {self._keeper}: {state}>"

    def _begin(self) -> threading.Event | None:
        """Begin, unless it runs or may not here; return what is set after the first answer."""
        if warn_if_threads_stand_still():
            return None
        with self._lock:
            if self.running:
                return None
            told = threading.Event()
            self._run = run = WatchRun(self._keeper, self._source.open, self._settings, told.set)
            if is_uwsgi_master():  # its workers are to begin
                return None
            run.start()
            return told

    def _leave_parent(self) -> None:
        self._lock = Lock()
        run, self._run = self._run, None
        if run is not None:
            self._goes_on = not run.ended
            run.abandon()

    def _begin_anew(self) -> None:
        goes_on, self._goes_on = self._goes_on, False
        if goes_on:
            start_in_child(self._begin)


_watchers: WeakSet[Watcher[Any]] = WeakSet()
# Their private methods are hooks of this module.
begin_anew_in_child(_watchers, Watcher[Any]._leave_parent, Watcher[Any]._begin_anew)  # noqa: SLF001 - see above
