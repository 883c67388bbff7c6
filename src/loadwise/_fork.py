"""State to be forgotten in the child of a fork.

After `os.fork` only the forking thread lives on in the child: a lock that another thread held
stays held for ever, and the requests of all other threads are gone though they were counted. Each
object that owns a lock or a count registers here and starts afresh in the child.
"""

from __future__ import annotations

import os
from weakref import WeakKeyDictionary

__all__ = ["ForkAware", "reset_in_child"]


class ForkAware:
    """An object with state that must not cross a fork."""

    def _after_fork(self) -> None:
        """Replace locks, drop counts of requests that only the parent has."""


# In order of construction: whoever uses another object was made after it.
_objects: WeakKeyDictionary[ForkAware, None] = WeakKeyDictionary()


def reset_in_child(obj: ForkAware) -> None:
    """Have ``obj._after_fork()`` called in every forked child, for as long as ``obj`` lives.

    Objects are called in the order in which they registered, so what an object uses has been
    reset before it.
    """
    _objects[obj] = None


def _reset_all() -> None:
    for obj in list(_objects):
        obj._after_fork()  # noqa: SLF001 - the hook that ForkAware declares


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
