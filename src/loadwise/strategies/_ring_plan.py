"""Plan of a hash ring: who owns a point, and whom a key comes to one after the other."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import cycle
from typing import Any, Final

from xxhash import xxh64_intdigest

from loadwise._native import mypyc_attr
from loadwise.node_set import NodeSet
from loadwise.strategies._draws import share_of_full
from loadwise.strategies._planned import Plan, check_excluded, none_left
from loadwise.strategies._ring import Ring

__all__ = ["RingPlan", "position_of", "stops_from", "walk"]

_HASH_LIMIT: Final = 2**64
_MOST_MET: Final = 64
"""So many points of nodes in slow start may turn a key down."""


@mypyc_attr(allow_interpreted_subclasses=True)
class RingPlan(Plan[Ring]):
    """The ring, and the index of each owner: -1 for those that may not be chosen, and nobody.

    Attributes:
        slow: Owners in slow start, whose index is -1, too: the index that they have, and a bound of
            64 bits. As large a part of the hashes as they take of their keys is below it.
    """

    __slots__ = ("indices", "owners", "points", "shift", "sites", "slow")

    def __init__(self, nodes: NodeSet[Any], ring: Ring) -> None:  # only indices matter
        super().__init__(nodes, ring)
        self.points = ring.points
        self.owners = ring.owners
        self.shift = ring.shift
        self.sites = ring.sites
        self.indices = [-1] * (max(ring.order, default=0) + 1)
        for index in nodes.eligible:
            self.indices[ring.order[index]] = index
        self._slow_down(nodes)

    def _slow_down(self, nodes: NodeSet[Any]) -> None:
        order, parts = self.state.order, share_of_full(nodes)
        self.slow = {order[i]: (i, int(part * _HASH_LIMIT)) for i, part in parts.items()}
        for number in self.slow:
            self.indices[number] = -1

    def patched(self, nodes: NodeSet[Any], gone: Sequence[int], back: Sequence[int]) -> RingPlan:
        """Return the plan for the same nodes with a few others eligible; see `Planned`."""
        twin = RingPlan.__new__(RingPlan)
        twin.follow(self, gone, back)
        twin.points, twin.owners, twin.shift = self.points, self.owners, self.shift
        twin.sites = self.sites
        order = self.state.order
        twin.indices = self.indices.copy()
        for number, (index, _) in self.slow.items():
            twin.indices[number] = index
        for index in gone:
            twin.indices[order[index]] = -1
        for index in back:
            twin.indices[order[index]] = index
        twin._slow_down(nodes)  # noqa: SLF001 - its own
        return twin


def walk(plan: RingPlan, position: int, hashed: int, exclude: AbstractSet[int]) -> int | None:
    """Return the owner of the first point from ``position`` on that may be chosen."""
    check_excluded(exclude, plan.size)
    if none_left(plan.eligible, exclude):
        return None
    indices, owners = plan.indices, plan.owners
    if plan.slow or plan.sites is not None:
        return _walk_past_slow(plan, stops_from(plan, position, hashed), exclude, hashed)
    while True:
        index = indices[owners[position]]
        if index >= 0 and index not in exclude:
            return index
        position = (position + 1) % len(owners)


def _walk_past_slow(
    plan: RingPlan, stops: Iterator[int], exclude: AbstractSet[int], hashed: int
) -> int | None:
    """Do as `walk` from stop to stop, where nodes in slow start take but a part of what they own.

    For each of their points that the key meets another hash decides. So the shares are those of the
    weights, and as a node takes more and more, a key of its can only move to it.
    """
    key = hashed.to_bytes(8, "little")
    first: int | None = None
    met = 0
    for owner in stops:
        index = plan.indices[owner]
        if index >= 0 and index not in exclude:
            return index
        slow = plan.slow.get(owner)
        if slow is not None and slow[0] not in exclude:
            if xxh64_intdigest(key, met) < slow[1]:
                return slow[0]
            first = slow[0] if first is None else first
            met += 1
            if met == _MOST_MET:  # hardly anybody but nodes in slow start
                break
    return first


def stops_from(plan: RingPlan, position: int, hashed: int) -> Iterator[int]:
    """Give the owners' numbers of the points from a hash on, again and again."""
    if plan.sites is not None:
        yield from cycle(_nearest(plan.sites, hashed))
    points, owners, last = plan.points, plan.owners, -1
    while True:
        # A cell may repeat the point of the one before it.
        if points[position] != last:
            yield owners[position]
        last = points[position]
        position += 1
        if position == len(owners):
            position, last = 0, -1


def position_of(plan: RingPlan, hashed: int) -> int:
    """Return the cell of the first point at or after a hash."""
    points, position = plan.points, hashed >> plan.shift
    while points[position] < hashed:
        position += 1
    return position


def _nearest(sites: tuple[array[int], array[int]], hashed: int) -> Iterator[int]:
    """Give the owners' numbers of all points, the nearest to a hash first."""
    points, owners = sites
    size = len(points)
    after = bisect_left(points, hashed) % size if size else 0
    before = after - 1  # the last of all stands at -1, too
    for _ in range(size):
        behind = (hashed - points[before % size]) % _HASH_LIMIT
        ahead = (points[after % size] - hashed) % _HASH_LIMIT
        if behind <= ahead:
            yield owners[before % size]
            before -= 1
        else:
            yield owners[after % size]
            after += 1
