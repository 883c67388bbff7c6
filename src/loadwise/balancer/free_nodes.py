"""Nodes that have room, found in O(1) however many are full."""

from __future__ import annotations

import random
import time
from collections import OrderedDict, deque
from collections.abc import Collection, Hashable, Iterable, Sequence
from itertools import islice
from threading import RLock
from typing import Any, Generic, Protocol, TypeVar
from weakref import ref

from loadwise._fork import ForkAware, reset_in_child
from loadwise.balancer.limits import Freed, Room
from loadwise.node_set import NodeSet

__all__ = ["MOST_FOUND", "FreeNodes"]

N = TypeVar("N")

MOST_FOUND = 8
"""So many nodes with room are looked for at a time."""

_MOST_SETS = 4
_MOST_LOOKED_AT = 16
"""So many nodes that were full by requests of other processes are looked at by each request."""
_LOOKS_AT_ALL = 0.005
"""Seconds after which all of them are, at least."""
_IDLE_RATIO = 20
"""So many times longer than that takes, at least."""


class Roomy(Protocol):
    """Something that may have a limited room."""

    @property
    def room(self) -> Room | None:
        """Its permits; ``None`` without a limit."""
        ...


class _Open:
    """Indices of nodes that had room when last heard of, in no order."""

    __slots__ = ("indices", "nodes", "places")

    def __init__(self, nodes: NodeSet[Any], indices: Iterable[int]) -> None:
        self.nodes = nodes
        self.indices = list(indices)
        self.places = {index: place for place, index in enumerate(self.indices)}

    def add(self, index: int) -> None:
        if index not in self.places:
            self.places[index] = len(self.indices)
            self.indices.append(index)

    def drop(self, index: int) -> None:
        place = self.places.pop(index, None)
        if place is None:
            return
        last = self.indices.pop()
        if last != index:
            self.indices[place] = last
            self.places[last] = place


class FreeNodes(ForkAware, Generic[N]):
    """Nodes that have room, for requests that have met full ones.

    That a node is full is found out when it is asked; that it has room again is told by the end of
    a request, through `freed`. So neither is part of a view, and each costs O(1).

    Other processes of the host, where they count, do not tell. So nodes that were full by their
    requests are looked at in turn by each request that has met a full node, and all of them now
    and then.

    Attributes:
        freed: Ids of nodes that have room again.

    Thread-safety: a lock, taken by requests that have met a full node. Ends of requests take none.

    Cost: O(1) amortised, and O(number banned); O(n) for a view that differs by more than a few
    from the last ones.
    """

    def __init__(self) -> None:
        self.freed: Freed = deque()
        self._after_fork()
        reset_in_child(self)

    def _after_fork(self) -> None:
        # Re-entrant: the collector may close a generator that asks for a node meanwhile.
        self._lock = RLock()
        self._busy = False
        self.freed.clear()
        # The latest last. Those of views narrowed by a request must not push out the others.
        self._common: OrderedDict[int, _Open] = OrderedDict()
        self._narrowed: OrderedDict[int, _Open] = OrderedDict()
        # Nodes that other processes may give room, the one looked at longest ago first.
        self._untold: dict[Hashable, ref[Room]] = {}
        self._looks_at_all = 0.0

    def some(
        self,
        nodes: NodeSet[N],
        slots: Sequence[Roomy],
        banned: Collection[int],
        *,
        narrowed: bool,
    ) -> tuple[list[int], bool]:
        """Return indices of nodes that have room, up to `MOST_FOUND`, and whether those are all.

        Args:
            nodes: Those that may be chosen.
            slots: Who has the room, by index.
            banned: Indices that must not be returned.
            narrowed: Whether ``nodes`` is what one request's filter left of a view.
        """
        with self._lock:
            if self._busy:
                return self._scan(nodes, slots, banned)
            self._busy = True
            try:
                self._hear()
                known = self._open_of(nodes, slots, narrowed=narrowed)
                return self._search(known, slots, banned)
            except BaseException:
                # Ctrl-C may have struck between two steps that belong together.
                self._common.clear()
                self._narrowed.clear()
                raise
            finally:
                self._busy = False

    def _scan(
        self, nodes: NodeSet[N], slots: Sequence[Roomy], banned: Collection[int]
    ) -> tuple[list[int], bool]:
        """Do as `some`, for one within another, without what that is writing. O(n)."""
        left = [
            i
            for i in nodes.eligible
            if i not in banned and ((room := slots[i].room) is None or room.left > 0)
        ]
        return left[:MOST_FOUND], len(left) <= MOST_FOUND

    def _look_at_untold(self) -> None:
        began, most = time.monotonic(), _MOST_LOOKED_AT
        looks_at_all = began >= self._looks_at_all
        if looks_at_all:
            most = len(self._untold)
        for identity in list(islice(self._untold, most)):
            reference = self._untold.pop(identity)
            room = reference()
            if room is not None and room.left > 0:
                self.freed.append(identity)
            elif room is not None:
                self._untold[identity] = reference
        if looks_at_all:
            now = time.monotonic()
            self._looks_at_all = now + max(_LOOKS_AT_ALL, _IDLE_RATIO * (now - began))

    def _hear(self) -> None:
        if self._untold:
            self._look_at_untold()
        while self.freed:
            try:
                identity = self.freed.popleft()
            except IndexError:
                return
            for each in (*self._common.values(), *self._narrowed.values()):
                index = each.nodes.index_of(identity)
                if index is not None and each.nodes.mask[index]:
                    each.add(index)

    def _open_of(self, nodes: NodeSet[N], slots: Sequence[Roomy], *, narrowed: bool) -> _Open:
        kept = self._narrowed if narrowed else self._common
        known = kept.get(id(nodes))
        if known is not None:
            kept.move_to_end(id(nodes))
            return known
        for key, each in list(kept.items()):
            if each.nodes.membership is not nodes.membership:
                del kept[key]
                continue
            apart = None if known is not None else nodes.since(each.nodes)
            if apart is not None:
                del kept[key]
                known = each
                known.nodes = nodes
                for index in apart[0]:
                    known.drop(index)
                for index in apart[1]:
                    known.add(index)
        if known is None:
            known = _Open(nodes, [i for i in nodes.eligible if self._has_room(slots[i].room)])
        # By the id of a NodeSet that the entry holds, so that no other can have it.
        kept[id(nodes)] = known
        if len(kept) > _MOST_SETS:
            kept.popitem(last=False)
        return known

    def _search(
        self, known: _Open, slots: Sequence[Roomy], banned: Collection[int]
    ) -> tuple[list[int], bool]:
        indices = known.indices
        found: dict[int, None] = {}
        while len(indices) > 2 * (MOST_FOUND + len(banned)):
            # Each draw finds one, or drops one that filled up, or is wasted: less than half are.
            index = indices[int(random.random() * len(indices))]
            if not self._has_room(slots[index].room):
                self._drop(known, index)
            elif index not in banned:
                found[index] = None
                if len(found) == MOST_FOUND:
                    return list(found), False
        for index in tuple(indices):
            if not self._has_room(slots[index].room):
                self._drop(known, index)
            elif index not in banned:
                found[index] = None
        left = list(found)
        if len(left) > MOST_FOUND:
            return random.sample(left, MOST_FOUND), False
        return left, True

    def _drop(self, known: _Open, index: int) -> None:
        for each in (*self._common.values(), *self._narrowed.values()):
            if each.nodes.membership is known.nodes.membership:
                each.drop(index)

    def _has_room(self, room: Room | None) -> bool:
        """Tell whether there is room; if there is none, ask to be told when there is."""
        if room is None or room.left > 0:
            return True
        room.known_full = True
        # Whoever gave one back before that line has not told of it.
        if room.left > 0:
            room.known_full = False
            return True
        if room.elsewhere is not None:
            self._untold[room.mine[0]] = ref(room)
        return False
