"""Functions that are told when a node changes its state of health."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import RLock
from typing import Final

from loadwise._callables import refuse_async, refuse_awaitable
from loadwise._log import log_exception
from loadwise._numbers import shown
from loadwise.health.status import HealthStatus

__all__ = ["HealthListener", "Listeners"]

_TOLD_NOW: Final = "nobody would await it: make it a plain function that does not wait"

HealthListener = Callable[[Hashable, HealthStatus, HealthStatus], None]
"""Called with a node's id, its old state and its new one."""


class Listeners:
    """The listeners of a tracker.

    Thread-safety: a lock to add and remove, none to tell.
    """

    def __init__(self) -> None:
        self._listeners: dict[object, HealthListener] = {}
        self.after_fork()

    def after_fork(self) -> None:
        """Replace the lock, which another thread may have held at the fork."""
        # Re-entrant: the collector may strike while it is held, and take a balancer whose end
        # removes its listener.
        self._lock = RLock()

    def __len__(self) -> int:
        return len(self._listeners)

    def add(self, listener: HealthListener) -> Callable[[], None]:
        """Add a listener, and return the function that removes it.

        Raises:
            TypeError: ``listener`` is not callable, or is to be awaited.
        """
        if not callable(listener):
            raise TypeError(
                f"listener is {shown(listener)}; it must be a function of an id, the old state "
                f"and the new one"
            )
        refuse_async("listener", listener, _TOLD_NOW)
        with self._lock:
            # By a key of its own, because the same function may subscribe twice.
            key = object()
            self._listeners = {**self._listeners, key: listener}

        def remove() -> None:
            with self._lock:
                self._listeners = {k: each for k, each in self._listeners.items() if k is not key}

        return remove

    def tell(self, node_id: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        """Tell all of a change; one that raises is logged and harms nobody else."""
        for listener in self._listeners.values():
            try:
                answer: object = listener(node_id, old, new)
                if answer is not None:
                    refuse_awaitable(f"the health listener {listener!r}", answer, _TOLD_NOW)
            except Exception:  # noqa: BLE001 - a listener's errors are its own
                log_exception("a health listener failed on node %r", node_id)
