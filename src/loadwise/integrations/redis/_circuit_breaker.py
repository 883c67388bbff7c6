"""Circuit breaker: whether the server can be reached, and when it is tried again."""

from __future__ import annotations

from signal import getsignal, valid_signals
from threading import Lock
from traceback import walk_tb
from typing import TYPE_CHECKING

from redis.exceptions import MovedError

from loadwise._fork import ForkAware, reset_in_child
from loadwise.integrations.redis._connection import ONE_NODE

if TYPE_CHECKING:
    from loadwise.clock import Clock
    from loadwise.integrations.redis._events import EventLog

__all__ = ["CircuitBreaker"]

_FIRST_WAIT = 0.05
_LONGEST_WAIT = 1.0


def _is_of_signal_handler(error: BaseException) -> bool:
    """Tell whether a signal handler raised it, as celery's does for a soft time limit."""
    handlers = {getattr(getsignal(each), "__code__", None) for each in valid_signals()}
    return any(frame.f_code in handlers for frame, _ in walk_tb(error.__traceback__))


class CircuitBreaker(ForkAware):
    """Tell whether the server can be reached, as far as is known.

    Attributes:
        up: Whether it can; read without a lock.
        wait: Seconds from one attempt to reach it to the next: twice as long each time.
        closed: Whether it is to be asked nothing any more.

    Thread-safety: of many failures at once one is told of.
    """

    def __init__(self, log: EventLog, clock: Clock, meanwhile: str) -> None:
        self.up = True
        self.wait = _FIRST_WAIT
        self._log = log
        self._clock = clock
        self._meanwhile = meanwhile
        self.closed = False
        self._since = clock()
        self._after_fork()
        reset_in_child(self)

    def _after_fork(self) -> None:
        self._lock = Lock()

    def failed(self, error: BaseException) -> bool:
        """Record that the server did not answer; tell whether that is news.

        Raises: the error, if it is a signal handler's: then it was meant for the program.
        """
        if _is_of_signal_handler(error):
            raise error
        with self._lock:
            now = self._clock()
            if not self.up:
                self.wait = min(2 * self.wait, _LONGEST_WAIT)
                return False
            self.up = False
            # One that keeps failing right after it came back is asked less and less often.
            steady = now - self._since > 2 * _LONGEST_WAIT
            self.wait = _FIRST_WAIT if steady else min(2 * self.wait, _LONGEST_WAIT)
            self._since = now
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        # A client for asyncio of redis-py 5 says so in words only.
        if isinstance(error, MovedError) or str(error).startswith("MOVED "):
            what = f"the client is of one server, {ONE_NODE}"
        self._log.add("outage", f"the server cannot be reached ({what}); {self._meanwhile}")
        return True

    def restored(self) -> bool:
        """Record that the server answers; tell whether that is news."""
        with self._lock:
            if self.up or self.closed:
                return False
            self.up = True
            now = self._clock()
            outage, self._since = now - self._since, now
        self._log.add("restored", f"the server can be reached again, after {outage:.1f} s")
        return True

    def close(self) -> None:
        """Ask the server nothing any more."""
        with self._lock:
            self.closed = True
            self.up = False
