"""Stores for per-node state of your own: a protocol, and the one for a single process."""

from __future__ import annotations

import builtins
from collections.abc import Hashable
from threading import RLock
from typing import Generic, Protocol, TypeVar, cast

from loadwise._fork import ForkAware, reset_in_child
from loadwise.nodes import id_of

__all__ = ["InMemoryStore", "StateStore"]

S = TypeVar("S")
I = TypeVar("I", bound=Hashable)  # noqa: E741 - the id's type


class StateStore(Protocol[I, S]):
    """Key-value storage of per-node state (counters, latencies, settings), by node id.

    Implement it over any backend. Nothing in a pick calls it.
    """

    def get(self, id: I) -> S | None:  # noqa: A002 - the name of the thing everywhere else
        """Return the state of one node, or ``None``."""
        ...

    def put(self, id: I, state: S) -> None:  # noqa: A002
        """Insert or replace the state of one node."""
        ...

    def remove(self, id: I) -> None:  # noqa: A002
        """Delete the state of one node. An absent one is not an error."""
        ...

    def list(self) -> builtins.list[tuple[I, S]]:
        """Return all pairs of id and state."""
        ...


def _key(id: I) -> I:  # noqa: A002
    return cast("I", id_of(id))


class InMemoryStore(ForkAware, Generic[I, S]):
    """A `StateStore` in this process's memory.

    It holds the values themselves: store immutable ones, or copies. A node in the place of an id
    is taken by its id.

    Thread-safety: reads need no lock, `list` is a consistent snapshot. A forked child goes on
    with a copy of its own.

    Cost: O(1), `list` O(n).

    Example:
        >>> store = InMemoryStore()
        >>> store.put("a", {"latency": 0.2})
        >>> store.get("a"), store.get("b"), store.list()
        ({'latency': 0.2}, None, [('a', {'latency': 0.2})])
    """

    def __init__(self) -> None:
        self._states: dict[I, S] = {}
        self._after_fork()
        reset_in_child(self)

    def _after_fork(self) -> None:
        self._lock = RLock()

    def get(self, id: I) -> S | None:  # noqa: A002
        """Return the state of one node, or ``None``."""
        return self._states.get(_key(id))

    def put(self, id: I, state: S) -> None:  # noqa: A002
        """Insert or replace the state of one node."""
        with self._lock:
            self._states[_key(id)] = state

    def remove(self, id: I) -> None:  # noqa: A002
        """Delete the state of one node. An absent one is not an error."""
        with self._lock:
            self._states.pop(_key(id), None)

    def list(self) -> builtins.list[tuple[I, S]]:
        """Return all pairs of id and state, in order of insertion."""
        with self._lock:
            return [*self._states.items()]
