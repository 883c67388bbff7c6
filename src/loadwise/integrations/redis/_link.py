"""Whether the server can be reached: a circuit that opens at the first failure.

While it is open nobody but the background asks the server, so that no pick waits for one that is
down or hangs.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from loadwise._fork import ForkAware, reset_in_child

if TYPE_CHECKING:
    from loadwise.clock import Clock
    from loadwise.integrations.redis._events import EventLog

__all__ = ["Link"]

_FIRST_WAIT = 0.05
_LONGEST_WAIT = 1.0


class Link(ForkAware):
    """Whether the server can be reached, as far as is known.

    Attributes:
        up: Whether it can; read without a lock.
        wait: Seconds from one attempt to reach it to the next: twice as long each time.

    Thread-safety: of many failures at once one is told of.
    """

    def __init__(self, log: EventLog, clock: Clock, meanwhile: str) -> None:
        self.up = True
        self.wait = _FIRST_WAIT
        self._log = log
        self._clock = clock
        self._meanwhile = meanwhile
        self._closed = False
        self._since = clock()
        self._after_fork()
        reset_in_child(self)

    def _after_fork(self) -> None:
        self._lock = Lock()

    def failed(self, error: BaseException) -> bool:
        """Take note that the server did not answer; tell whether that is news."""
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
        self._log.add("outage", f"the server cannot be reached ({what}); {self._meanwhile}")
        return True

    def restored(self) -> bool:
        """Take note that the server answers; tell whether that is news."""
        with self._lock:
            if self.up or self._closed:
                return False
            self.up = True
            now = self._clock()
            outage, self._since = now - self._since, now
        self._log.add("restored", f"the server can be reached again, after {outage:.1f} s")
        return True

    def close(self) -> None:
        """Ask the server nothing any more."""
        with self._lock:
            self._closed = True
            self.up = False
