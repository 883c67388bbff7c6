"""Threads in the background, which never keep anything alive: no interpreter and no owner."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event, Thread, current_thread
from weakref import WeakMethod

__all__ = ["Worker"]

_log = logging.getLogger("loadwise")

_FORK_SETTLES = 0.05
_AFTER_FAILURE = 1.0


class _Signals:
    __slots__ = ("stop", "wake")

    def __init__(self) -> None:
        self.wake = Event()
        self.stop = False


class Worker:
    """Takes a step now and again in a daemon thread of its own.

    Args:
        name: The thread's name.

    The thread ends when `close` is called, or when the step's owner is collected.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._signals = _Signals()
        self._thread: Thread | None = None
        self._step: WeakMethod[Callable[[], float]] | None = None

    def start(self, step: Callable[[], float]) -> None:
        """Begin.

        Args:
            step: A bound method that returns the seconds to wait before the next call.
        """
        self._step = WeakMethod(step)
        self._spawn(0)

    def wake(self) -> None:
        """Have the next step taken now. Does not wait."""
        self._signals.wake.set()

    def close(self, timeout: float = 2.0) -> None:
        """End the thread, after the step under way."""
        self._signals.stop = True
        self._signals.wake.set()
        if self._thread is not None and self._thread is not current_thread():
            self._thread.join(timeout)

    def restart_in_child(self) -> None:
        """Begin anew in the child of a fork, where the thread is gone."""
        if self._thread is None or self._signals.stop:
            return
        self._signals = _Signals()
        # By then everybody has a new lock in place of one that may be held for ever.
        self._spawn(_FORK_SETTLES)

    def _spawn(self, delay: float) -> None:
        if self._step is not None:
            self._thread = Thread(
                target=_run, args=(self._step, self._signals, delay), name=self._name, daemon=True
            )
            self._thread.start()


def _run(reference: WeakMethod[Callable[[], float]], signals: _Signals, delay: float) -> None:
    complained = False
    pause = delay
    while True:
        if pause > 0:
            signals.wake.wait(pause)
        signals.wake.clear()
        step = reference()
        if signals.stop or step is None:
            return
        try:
            pause = step()
        except Exception:  # noqa: BLE001 - whatever it is, the next step may do better
            if not complained:
                complained = True
                _log.exception("%s failed; further failures are not logged", step)
            pause = _AFTER_FAILURE
        del step
