"""State to be forgotten in the child of a fork.

After `os.fork` only the forking thread lives on in the child: a lock that another thread held
stays held for ever, and the requests of all other threads are gone though they were counted. Each
object that owns a lock or a count registers here and starts afresh in the child.

uWSGI forks its workers without running Python's own hooks, unless it is told to by
``py-call-uwsgi-fork-hooks``; but it calls ``uwsgi.post_fork_hook``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection
from threading import RLock
from types import ModuleType
from typing import TypeVar
from weakref import WeakKeyDictionary

__all__ = [
    "FORKS_UNSEEN",
    "ForkAware",
    "begin_anew_in_child",
    "call_in_child",
    "is_uwsgi_master",
    "notice_fork",
    "reset_in_child",
]

T = TypeVar("T")


class ForkAware:
    """An object with state that must not cross a fork."""

    def _after_fork(self) -> None:
        """Replace locks, drop counts of requests that only the parent has."""


# In order of construction: whoever uses another object was made after it.
_objects: WeakKeyDictionary[ForkAware, None] = WeakKeyDictionary()
_calls: list[Callable[[], None]] = []
# The process that all state here belongs to, and the one that is being made to own it.
_pid = _next_pid = os.getpid()
_locks: dict[int, RLock] = {}
_uwsgi: ModuleType | None = sys.modules.get("uwsgi")
FORKS_UNSEEN = _uwsgi is not None
"""True where a fork may go by unseen, so that `notice_fork` is worth a call."""
_in_worker = False


def reset_in_child(obj: ForkAware) -> None:
    """Have ``obj._after_fork()`` called in every forked child, for as long as ``obj`` lives.

    Objects are called in the order in which they registered, so what an object uses has been
    reset before it.
    """
    _objects[obj] = None


def call_in_child(function: Callable[[], None]) -> None:
    """Have a function called in every forked child, after all objects have been reset."""
    _calls.append(function)


def begin_anew_in_child(
    objects: Collection[T], leave_parent: Callable[[T], None], begin: Callable[[T], None]
) -> None:
    """Have objects with threads begin again in every forked child.

    Args:
        objects: Those of one class that there are; a weak set.
        leave_parent: Called for each with the resets: it forgets the parent's threads and locks.
        begin: Called for each later: it starts threads.

    What began with the resets might log before `logging` has renewed its locks, and wait for ever
    for one that a thread of the parent held: hooks are called in order of registration, and
    `logging` may have been imported after this module. So call this in a module that imports it.
    """

    def leave_all() -> None:
        for each in list(objects):
            leave_parent(each)
        if FORKS_UNSEEN:  # the hook below may not be called
            begin_all()

    def begin_all() -> None:
        for each in list(objects):
            begin(each)

    call_in_child(leave_all)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=begin_all)


def notice_fork() -> None:
    """Reset now what uWSGI's fork has left as it was, if somebody replaced its hook.

    Thread-safety: of threads that call it at once, all return after the reset.

    Cost: one ``getpid``.
    """
    if os.getpid() != _pid:
        _reset_all()


def _reset_all() -> None:
    """Reset everything, once in each process."""
    global _pid, _next_pid  # noqa: PLW0603 - there is one process
    pid = os.getpid()
    # A lock of the process's own: the parent's may have been held while it forked.
    with _locks.setdefault(pid, RLock()):
        if pid in (_pid, _next_pid):  # it has been done, or this is a call from within it
            return
        _next_pid = pid
        for obj in list(_objects):
            obj._after_fork()  # noqa: SLF001 - the hook that ForkAware declares
        for function in _calls:
            function()
        _pid = pid
        _locks.clear()


def is_uwsgi_master() -> bool:
    """Tell whether this is uWSGI's master, before it forks: the program is only loaded here."""
    return _uwsgi is not None and not _in_worker and not _uwsgi.worker_id()


def _follow_uwsgi(uwsgi: ModuleType) -> None:
    """Have uWSGI call the resets, and after them whatever it was to call already."""
    before: Callable[[], object] | None = getattr(uwsgi, "post_fork_hook", None)

    def begin_work() -> None:
        global _in_worker  # noqa: PLW0603 - there is one process
        _in_worker = True
        if os.getpid() == _pid:  # without a master the first worker is not forked
            for function in _calls:
                function()
        _reset_all()
        if before is not None:
            before()

    uwsgi.post_fork_hook = begin_work  # type: ignore[attr-defined]  # a module made by uWSGI


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
if _uwsgi is not None:
    _follow_uwsgi(_uwsgi)
