"""Threads of a watcher: one asks the source and may hang, one keeps the fleet and never does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from loadwise._random import source_of
from loadwise._threads import park, start_thread
from loadwise.discovery.claims import claim
from loadwise.discovery.keeper import Keeper
from loadwise.discovery.pace import LookPace
from loadwise.discovery.settings import WatchSettings
from loadwise.discovery.source import Feed, Found, SourceError

__all__ = ["WatchRun"]

N = TypeVar("N")

_log = logging.getLogger("loadwise")

_IDLE = 3600.0
"""Seconds until somebody who waits for an event alone looks up."""


class WatchRun(Generic[N]):
    """Run of a watcher, until it is stopped.

    Args:
        keeper: Rules of the fleet.
        open_feed: Opens the source.
        settings: The watcher's.
        told: Called in the keeping thread once the first answer or error has had its effect, and
            once more at the end.

    Raises:
        LoadwiseError: Another watcher keeps the fleet.
    """

    def __init__(
        self,
        keeper: Keeper[N],
        open_feed: Callable[[], Feed[N]],
        settings: WatchSettings,
        told: Callable[[], object],
    ) -> None:
        self._keeper = keeper
        self._open_feed = open_feed
        self._clock = settings.clock
        self._wait = settings.wait
        self._told = told
        self._pace = LookPace(source_of(settings.rng))
        # Looked up only now: gevent may have replaced what was imported before.
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._found: Found[N] | None = None
        self._error: BaseException | None = None
        self._feed: Feed[N] | None = None
        self._asking: threading.Thread | None = None
        self._keeping: threading.Thread | None = None
        self.ended = False
        self.is_copy = False  # of a parent's, in the child of a fork
        claim(self, keeper)

    @property
    def running(self) -> bool:
        """True if it keeps the fleet."""
        thread = self._keeping
        return not self.ended and thread is not None and thread.is_alive()

    def start(self) -> None:
        """Begin.

        Raises:
            RuntimeError: The process may have no more threads.
        """
        self._keeping = threading.Thread(
            target=self._keep_going, name="loadwise-discovery", daemon=True
        )
        self._asking = threading.Thread(
            target=self._ask, name="loadwise-discovery-source", daemon=True
        )
        try:
            start_thread(self._keeping)
            start_thread(self._asking)
        except RuntimeError:
            self._end()
            raise

    def stop(self, patience: float) -> None:
        """Change nothing any more once this returns.

        It waits for a fetch under way, too, but only so many seconds: that ends by itself.
        """
        self.close()
        for thread, seconds in ((self._keeping, None), (self._asking, patience)):
            if thread is not None and thread is not threading.current_thread():
                with suppress(RuntimeError):  # it has not begun
                    thread.join(seconds)

    def close(self) -> None:
        """End it, and let its threads end soon."""
        self._end()
        if self._feed is not None:
            self._close(self._feed)

    def abandon(self) -> None:
        """End it in a forked child, where its threads are not.

        Its events are not touched: a thread of the parent's may have held their locks.
        """
        self.ended = True
        self.is_copy = True

    def _end(self) -> None:
        self.ended = True
        self._stopping.set()
        self._wake.set()

    def _keep_going(self) -> None:
        try:
            self._keeper.begin()
            while not self.ended:
                # Before the news is looked at, so that none that comes later is slept through.
                self._wake.clear()
                has_news = self._take_in()
                seconds = self._keeper.turn(self._clock())
                if has_news:
                    self._told()
                if not self.ended:
                    self._wait(self._wake, _IDLE if seconds is None else seconds)
            if self.is_copy:
                park()
        finally:
            # Also when a clock raised: nobody is to wait for what does not come.
            self._end()
            self._told()

    def _take_in(self) -> bool:
        with self._lock:
            found, self._found = self._found, None
            error, self._error = self._error, None
        if found is not None:
            self._keeper.offer(found, self._clock())
        if error is not None:
            self._keeper.failed(error)
        return found is not None or error is not None

    def _ask(self) -> None:
        try:
            while not self.ended:
                self._wait(self._stopping, self._look())
            if self.is_copy:
                park()
        finally:
            if self._feed is not None:
                self._close(self._feed)

    def _look(self) -> float:
        """Ask once, and return the seconds until the next time."""
        try:
            if self._feed is None:
                self._feed = self._open_feed()
                if self.ended:  # and whoever ended it may have found no feed to close
                    return 0.0
            found = _checked(self._feed.fetch())
        except BaseException as error:  # noqa: BLE001 - sources may be the user's
            with self._lock:
                self._error = error
            self._wake.set()
            return self._pace.after_error(error.again if isinstance(error, SourceError) else None)
        with self._lock:
            self._found, self._error = found, None
        self._wake.set()
        return self._pace.after_answer(found.again, is_empty=not found.nodes)

    @staticmethod
    def _close(feed: Feed[N]) -> None:
        try:
            feed.close()
        except Exception:  # noqa: BLE001 - as above
            _log.warning("a feed could not be closed", exc_info=True)


def _checked(answer: Found[N]) -> Found[N]:
    if not isinstance(answer, Found):
        raise SourceError(f"fetch returned a {type(answer).__name__}; it must be a Found")
    return answer
