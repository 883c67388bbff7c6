"""Ends of processes: what must be told to the server before an ordinary one."""

from __future__ import annotations

import atexit
import logging
import sys
from typing import Any, Protocol

from loadwise._fork import call_in_child

__all__ = ["close_at_end", "forget"]

_log = logging.getLogger("loadwise")


class Closable(Protocol):
    """Something to be closed when the process ends."""

    def close_at_end(self) -> None:
        """Close it, if nobody has."""
        ...


# Those in use in this process, in order.
_in_use: dict[Closable, None] = {}
_watched: set[str] = set()


def close_at_end(obj: Closable) -> None:
    """Have ``obj.close_at_end()`` called when this process ends by itself, but not in its forks.

    That is: by returning, by ``sys.exit`` or an exception, as a child of `multiprocessing` (which
    does not run `atexit`) or as a worker of celery (which runs neither). A process that is killed
    or leaves by ``os._exit`` closes nothing.
    """
    _in_use[obj] = None
    # What is not imported by now does not run this process.
    processes: Any = sys.modules.get("multiprocessing.util")
    if processes is not None and "multiprocessing" not in _watched:
        _watched.add("multiprocessing")
        # After all others, which may still use what is closed here.
        processes.Finalize(None, _close_all, exitpriority=-1000)
    celery: Any = sys.modules.get("celery.signals")
    if celery is not None and "celery" not in _watched:
        _watched.add("celery")
        celery.worker_process_shutdown.connect(_close_all, weak=False)


def forget(obj: Closable) -> None:
    """Record that ``obj`` has been closed."""
    _in_use.pop(obj, None)


def _close_all(**_: object) -> None:
    for obj in list(_in_use):
        forget(obj)
        try:
            obj.close_at_end()
        except Exception:  # noqa: BLE001 - the others are to be closed all the same
            _log.exception("%r could not be closed", obj)


def _start_in_child() -> None:
    _in_use.clear()
    # A child of multiprocessing has none of its parent's finalizers; handlers of celery's stay.
    _watched.discard("multiprocessing")


atexit.register(_close_all)
call_in_child(_start_in_child)
