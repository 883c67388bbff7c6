"""Background threads under uWSGI, which may not let them run, and gevent, which copies them."""

from __future__ import annotations

import _thread
import logging
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

__all__ = [
    "park",
    "start_in_child",
    "start_thread",
    "threads_are_greenlets",
    "warn_if_threads_stand_still",
]

_log = logging.getLogger("loadwise")

_warned = [None]
# Not those of faults, which strike the thread that made them.
_ENDINGS = {
    getattr(signal, name)
    for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
}


def warn_if_threads_stand_still() -> bool:
    """Tell whether no thread of this process runs between requests; log what to do, once.

    That is so with uWSGI up to 2.0.26 unless it is started with ``enable-threads`` or ``threads``:
    it keeps the interpreter's lock to itself.
    """
    stand_still = not getattr(sys.modules.get("uwsgi"), "has_threads", True)
    if stand_still and _warned:
        _warned.clear()
        _log.warning(
            "uWSGI was started without threads, so nothing that loadwise does in the background is "
            "done between requests; start it with `enable-threads = true` (on the command line: "
            "--enable-threads)"
        )
    return stand_still


def threads_are_greenlets() -> bool:
    """Tell whether gevent runs what is started as a thread from now on."""
    monkey: Any = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def start_thread(thread: threading.Thread) -> None:
    """Start a thread in which no handler of uWSGI's signals ever runs.

    uWSGI ends a process from within its handlers, in whatever thread the signal strikes. In one of
    Python's, the end waits for the main thread for ever: exit handlers do not run, and the process
    stays until it is killed.

    Raises:
        RuntimeError: The process may have no more threads, or is about to end.
    """
    if "uwsgi" not in sys.modules or not hasattr(signal, "pthread_sigmask"):
        thread.start()
        return
    # Threads inherit what is blocked; those that Python starts otherwise have a moment before.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_in_child(start: Callable[[], object]) -> None:
    """Call a function that starts threads, in the child of a fork.

    To start a thread is to wait until it has begun: for gevent, to run its event loop, which must
    not run in a child before gevent has made it fit for that.
    """
    if threads_are_greenlets():
        _thread.start_new_thread(start, ())
    else:
        start()


def park() -> NoReturn:
    """Wait for ever, as the copy of a parent's thread in the child of a fork.

    Only gevent makes such copies. One that ended would be complained about: in the child, Python
    knows of no such thread.
    """
    while True:
        threading.Event().wait()
