"""Limits on how many requests a node may have in flight at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from loadwise._callables import refuse_async, refuse_awaitable
from loadwise._numbers import shown, whole
from loadwise.nodes import node_id

__all__ = ["Freed", "Limit", "Limits", "Room", "Rooms"]

N = TypeVar("N")

Limit = int | Callable[[N], int | None] | None
"""One limit for all nodes, or a function that gives each node's; ``None`` for no limit."""

Freed = deque[Hashable]
"""Ids of nodes that were known to be full, and have room again."""

_HIGHEST = 2**20
_ONE: list[None] = [None]
_ASKED_NOW = "the limit is needed at once: look it up in a plain function"


class Limits(Generic[N]):
    """Limits of a balancer's nodes.

    Args:
        max_in_flight: As for `Balancer`.

    Raises:
        TypeError: It is neither an int nor a function.
        ValueError: It is below 1, or above 2 ** 20.

    Immutable, so thread-safe.
    """

    def __init__(self, max_in_flight: Limit[N]) -> None:
        self._function = max_in_flight if callable(max_in_flight) else None
        self._number: int | None = None
        if self._function is not None:
            refuse_async("max_in_flight", self._function, _ASKED_NOW)
        elif max_in_flight is not None:
            self._number = _checked("max_in_flight", max_in_flight)
        self.exist = max_in_flight is not None

    def of(self, node: N) -> int | None:
        """Return a node's limit, asked for now.

        Raises:
            TypeError: The function returned neither an int nor ``None``.
            ValueError: What it returned is out of range.
        """
        if self._function is None:
            return self._number
        limit = self._function(node)
        if limit is None:
            return None
        whose = f"max_in_flight of node {node_id(node)!r}"
        refuse_awaitable(whose, limit, _ASKED_NOW)
        return _checked(whose, limit)


def _checked(name: str, value: object) -> int:
    limit = whole(name, value)
    if limit < 1:
        raise ValueError(f"{name} is {limit}; it must be at least 1 (drain a node to stop it)")
    if limit > _HIGHEST:
        raise ValueError(
            f"{name} is {shown(limit)}; it must be at most {_HIGHEST} (give None for no limit)"
        )
    return limit


class Room:
    """Permits of one node, one for each request that it may have in flight.

    To take one is ``del room.free[-1]``, to give one back ``free += [None]``: each is atomic, with
    and without the GIL, and calls nothing, so Ctrl-C strikes before it or after what follows.

    Attributes:
        limit: How many there are.
        free: Those that nobody has.
        debt: As many as must not be taken any more, because the limit was lowered.
        known_full: Whether somebody relies on being told when the node has room again.
        freed: Whom to tell: the id is added there.
        mine: The node's id, ready to be added.
        elsewhere: Tells how many requests other processes have in flight there, which count
            against the limit, too; ``None`` where that is not known.

    Thread-safety: lock-free. Cost: O(1), and O(limit) to make.
    """

    __slots__ = ("__weakref__", "debt", "elsewhere", "free", "freed", "known_full", "limit", "mine")

    def __init__(self, node_id: Hashable, limit: int, freed: Freed) -> None:
        self.limit = limit
        self.free: list[None] = [None] * limit
        self.debt: list[None] = []
        self.known_full = False
        self.freed = freed
        self.mine: tuple[Hashable] = (node_id,)
        self.elsewhere: Callable[[], int] | None = None

    @property
    def left(self) -> int:
        """Requests that may begin now, by all that is known; 0 or less for none."""
        free = len(self.free)
        return free if self.elsewhere is None else free - self.elsewhere()

    def resize(self, limit: int) -> None:
        """Set another limit. Requests in flight beyond a lower one end before others begin.

        For one thread at a time.
        """
        free, debt = self.free, self.debt
        # One by one, so that Ctrl-C finds the limit and the permits in accord.
        while self.limit > limit:
            debt += _ONE
            self.limit -= 1
        self.pay()
        while self.limit < limit:
            try:
                del debt[-1]
            except IndexError:
                free += _ONE
            self.limit += 1
        self.tell()

    def pay(self) -> None:
        """Set permits against the debt, as far as there are any."""
        free = self.free
        while self.debt:
            # Nothing is called between taking a permit and what becomes of it.
            try:
                del free[-1]
            except IndexError:
                return
            try:
                del self.debt[-1]
            except IndexError:  # another thread was quicker
                free += _ONE
                self.tell()
                return

    def tell(self) -> None:
        """Tell who relies on it that there may be room again."""
        if self.known_full:
            self.known_full = False
            self.freed.append(self.mine[0])


class Rooms:
    """Permits of nodes, for as long as a member or a request has them.

    Args:
        freed: Whom to tell of nodes that have room again.

    For one thread at a time.
    """

    def __init__(self, freed: Freed) -> None:
        self._freed = freed
        self._known: WeakValueDictionary[Hashable, Room] = WeakValueDictionary()

    def begin_anew(self, rooms: Iterable[Room]) -> None:
        """Forget all but these."""
        self._known = WeakValueDictionary([(room.mine[0], room) for room in rooms])

    def of(self, identity: Hashable, limit: int | None) -> Room | None:
        """Return the permits of a node that joins; if it comes back, those it had.

        For requests that it was given before it left may still be in flight.
        """
        if limit is None:
            return None
        room = self._known.get(identity)
        if room is None:
            room = self._known[identity] = Room(identity, limit, self._freed)
        return room

    def forget(self, identity: Hashable) -> None:
        """Forget the permits of a node."""
        self._known.pop(identity, None)
