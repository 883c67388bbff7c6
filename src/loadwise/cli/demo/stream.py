"""The times at which the requests of the demo are sent."""

from __future__ import annotations

import random
import time
from threading import Event, Lock

__all__ = ["Stream"]

_PATIENCE = 0.05


class Stream:
    """Hands out the numbers of the requests, each when it is due.

    The times are those of a Poisson process. When the clients cannot keep up, the rest of the
    schedule is put off rather than sent in a burst.

    Args:
        requests: Their number.
        seconds: How long the stream lasts if the clients keep up.
        seed: Seed of the times.
        gate: Number of the first request that waits until `open` is called.
    """

    def __init__(self, requests: int, seconds: float, seed: int, gate: int) -> None:
        source = random.Random(seed)
        self._due = sorted(source.uniform(0, seconds) for _ in range(requests))
        self._gate = gate
        self._opened = Event()
        self._stopped = Event()
        self._lock = Lock()
        self._start = time.monotonic()
        self.taken = 0

    def take(self) -> int | None:
        """Wait for the next request and return its number; ``None`` when there are no more."""
        with self._lock:
            number = self.taken
            if number == len(self._due) or self._stopped.is_set():
                return None
            self.taken += 1
        if number >= self._gate:
            self._opened.wait()
        with self._lock:
            wait = self._start + self._due[number] - time.monotonic()
            if wait < -_PATIENCE:
                self._start -= wait
        return None if self._stopped.wait(max(0.0, wait)) else number

    def open(self) -> None:
        """Let the requests after the gate pass."""
        self._opened.set()

    def stop(self) -> None:
        """Hand out no more."""
        self._stopped.set()
        self._opened.set()
