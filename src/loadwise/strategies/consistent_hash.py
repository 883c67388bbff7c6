"""Consistent hashing: a key keeps its node, and membership changes move few keys.

Each node owns points on a ring of 64-bit hashes; a key belongs to the first point at or after its
own hash. There is one ring per membership, derived from that of a similar one where there is such.
Nodes that may not be chosen now are walked past, so a node that goes down moves only its own keys,
each to the next node along, and gets them back when it returns; nothing is rebuilt.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from itertools import accumulate
from typing import Any

from xxhash import xxh64_intdigest

from loadwise._native import mypyc_attr
from loadwise._numbers import shown, whole
from loadwise.context import EMPTY, HashKey, SelectionContext, as_hash_key
from loadwise.errors import MissingHashKey
from loadwise.node_set import NodeSet
from loadwise.strategies._draws import share_of_full
from loadwise.strategies._planned import N, Plan, Planned, check_excluded, none_left
from loadwise.strategies._ring import Ring, build, derive

__all__ = ["ConsistentHash"]

_HASH_LIMIT = 2**64
_MOST_MEDIANS = 2**32
"""Of a weight, because more would leave no other node a second point, and could overflow."""
_MOST_MET = 64
"""So many points of nodes in slow start may turn a key down."""
_DIGITS = 9
"""Decimals of a number of points that count, so that 2.5 times 0.7 / 0.7 is 2.5."""


@mypyc_attr(allow_interpreted_subclasses=True)
class _Plan(Plan[Ring]):
    """The ring, and the index of each owner: -1 for those that may not be chosen, and nobody.

    Attributes:
        slow: Owners in slow start, whose index is -1, too: the index that they have, and a bound of
            64 bits. As large a part of the hashes as they take of their keys is below it.
    """

    __slots__ = ("indices", "owners", "points", "shift", "slow")

    def __init__(self, nodes: NodeSet[Any], ring: Ring) -> None:  # only indices matter
        super().__init__(nodes, ring)
        self.points = ring.points
        self.owners = ring.owners
        self.shift = ring.shift
        self.indices = [-1] * (max(ring.order, default=0) + 1)
        for index in nodes.eligible:
            self.indices[ring.order[index]] = index
        self._slow_down(nodes)

    def _slow_down(self, nodes: NodeSet[Any]) -> None:
        order, parts = self.state.order, share_of_full(nodes)
        self.slow = {order[i]: (i, int(part * _HASH_LIMIT)) for i, part in parts.items()}
        for number in self.slow:
            self.indices[number] = -1

    def patched(self, nodes: NodeSet[Any], gone: Sequence[int], back: Sequence[int]) -> _Plan:
        """Return the plan for the same nodes with a few others eligible; see `Planned`."""
        twin = _Plan.__new__(_Plan)
        twin.follow(self, gone, back)
        twin.points, twin.owners, twin.shift = self.points, self.owners, self.shift
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


@mypyc_attr(allow_interpreted_subclasses=True)
class ConsistentHash(Planned[N, Ring, _Plan]):
    """The node that a key belongs to.

    Use it for caches, sessions and anything that is cheaper where it was before. The context's
    ``hash_key`` is required: a ``str`` (as UTF-8) or ``bytes`` is hashed with xxHash64, seed 0;
    an ``int`` is the 64-bit hash itself.

    Args:
        virtual_nodes: Points of a node of the median weight, >= 1. More points share the keys more
            evenly: the spread of shares is about 1/sqrt(points per node).
        max_points: How many points the ring has at most, >= 1. If there would be more, all nodes
            have half as many, or a quarter, and so on, but never fewer than one each.

    Point i of a node is ``xxh64(f"{id}_{i}")``, so all programs agree that know the same ids. Ids
    that are alike as text, such as 1 and "1", share points, which are those of the first node.

    Weights are relative: a node has ``virtual_nodes * weight / median`` points (rounded, at least
    1), where the median is that of the positive weights, the lower one of two. Scaling all weights
    moves no key. Nor does a node that comes, goes or changes its weight, between the others, while
    the median stays the same, as it does where one weight is the most common by far.
    A node without a weight has weight 1.

    Adding or removing one of n equal nodes moves about 1/n of the keys, and none between the
    others. A node that is down, filtered out or excluded passes its keys to the next along the
    ring. A node in slow start takes as large a part of its keys as its factor says, and the ring
    stays as it is: of its keys each moves to it once, and none between the others.

    Raises:
        TypeError: ``virtual_nodes`` or ``max_points`` is not an int.
        ValueError: One of them is below 1; at the pick, when an int key is outside 0..2^64-1, or
            when a str key cannot be written in UTF-8.
        MissingHashKey: At the pick, when there is no ``hash_key``.

    Thread-safety: the ring is immutable. While one is built, picks go on with those there are.

    Cost: O(1) expected per pick. A membership of p points takes O(p log p) once, and 15 to 48 bytes
    a point; one that differs by few nodes from any asked about lately, O(1) expected for each point
    that differs and a copy of the rest.

    Source: D. Karger et al., "Consistent hashing and random trees", STOC 1997; points and hash
    as in Envoy's ring_hash policy.

    Example:
        >>> nodes = ["cache-a", "cache-b", "cache-c"]
        >>> strategy = ConsistentHash()
        >>> nodes[strategy.select(nodes, SelectionContext(hash_key="user-42"))]
        'cache-c'
        >>> nodes[strategy.select(nodes, SelectionContext(hash_key="user-42", exclude={2}))]
        'cache-a'
    """

    kept_size = 2**22

    def __init__(self, virtual_nodes: int = 160, *, max_points: int = 2**22) -> None:
        self._virtual_nodes = whole("virtual_nodes", virtual_nodes, 1)
        self._max_points = whole("max_points", max_points, 1)
        super().__init__()

    def _counts(self, nodes: NodeSet[N]) -> list[int]:
        """Return how many points each node has."""
        found = self._by_weight(nodes)
        return list(map(found.__getitem__, nodes.weights))

    def _by_weight(self, nodes: NodeSet[N]) -> dict[int | float, int]:
        """Return how many points a node of each weight has. Mostly there are few different ones."""
        tally = nodes.membership.tally
        positive = sum(tally.values())
        found: dict[int | float, int] = {0: 0}
        if not positive:
            return found
        different = sorted(tally)
        sums = list(accumulate([tally[weight] for weight in different]))
        median = different[bisect_right(sums, (positive - 1) // 2)]
        most = median * _MOST_MEDIANS
        parts = {weight: min(weight, most) / median for weight in different}
        points = float(self._virtual_nodes)
        while True:
            for weight, part in parts.items():
                found[weight] = max(1, round(round(points * part, _DIGITS)))
            total = sum([found[weight] * number for weight, number in tally.items()])
            if total <= max(self._max_points, positive):
                return found
            points /= 2

    def _size(self, nodes: NodeSet[N]) -> int:
        found, tally = self._by_weight(nodes), nodes.membership.tally
        return sum([found[weight] * number for weight, number in tally.items()])

    def _make_state(self, nodes: NodeSet[N]) -> Ring:
        counts = self._counts(nodes)
        # The text decides where the points lie, so ids that are alike as text are alike here.
        names = [f"{identity}_" for identity in nodes.ids]
        for base in self._kept_states():
            ring = derive(base, names, counts)
            if ring is not None:
                return ring
        return build(names, counts)

    def _make_plan(self, nodes: NodeSet[N], state: Ring) -> _Plan:
        return _Plan(nodes, state)

    def _patch(self, before: _Plan, nodes: NodeSet[N], gone: list[int], back: list[int]) -> _Plan:
        return before.patched(nodes, gone, back)

    def select(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return the index of the node that ``context.hash_key`` belongs to, or ``None``."""
        source, plan = self._hot
        if source is not candidates:
            plan = self._resolve(candidates)
        key = context.hash_key
        try:
            hashed = xxh64_intdigest(key.encode()) if isinstance(key, str) else self._hash(key)
        except UnicodeEncodeError:
            raise _half_a_character(key) from None
        points = plan.points
        position = hashed >> plan.shift
        while points[position] < hashed:
            position += 1
        if not context.exclude:
            index = plan.indices[plan.owners[position]]
            if index >= 0:
                return index
        return _walk(plan, position, context.exclude, hashed)

    def owner(self, candidates: Sequence[N], hash_key: HashKey) -> int | None:
        """Return the index of the node that a key belongs to, or ``None`` when there is none.

        Use it where there is no request to describe, to shard data or to look up where a key is
        kept: it is ``select(candidates, SelectionContext(hash_key))`` in half the time or less.

        Args:
            candidates: As for `select`.
            hash_key: As in a `SelectionContext`.

        Raises:
            MissingHashKey: ``hash_key`` is ``None``.
            TypeError: It is no str, bytes or int.
            ValueError: It is an int outside 0..2^64-1, or a str that UTF-8 cannot express.

        Thread-safety and cost: those of `select`.

        Example:
            >>> shards = NodeSet(["shard-0", "shard-1", "shard-2"])
            >>> ring = ConsistentHash()
            >>> [shards[ring.owner(shards, name)] for name in ("ada", "grace", "edsger")]
            ['shard-1', 'shard-1', 'shard-2']
        """
        # What `select` does, written out, because a call would cost a third of it.
        source, plan = self._hot
        if source is not candidates:
            plan = self._resolve(candidates)
        try:
            hashed = (
                xxh64_intdigest(hash_key.encode())
                if isinstance(hash_key, str)
                else self._hash(hash_key)
            )
        except UnicodeEncodeError:
            raise _half_a_character(hash_key) from None
        points = plan.points
        position = hashed >> plan.shift
        while points[position] < hashed:
            position += 1
        index = plan.indices[plan.owners[position]]
        return index if index >= 0 else _walk(plan, position, EMPTY.exclude, hashed)

    def peek(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return what `select` would return: it depends on the key alone."""
        return self.select(candidates, context)

    def _hash(self, key: object) -> int:
        if isinstance(key, int) and not isinstance(key, bool):
            if not 0 <= key < _HASH_LIMIT:
                raise ValueError(
                    f"hash_key is {shown(key)}; an int is taken as the 64-bit hash itself and must "
                    f"be in 0..2^64-1 (give a str or bytes to have it hashed)"
                )
            return key
        if isinstance(key, bytes):
            return xxh64_intdigest(key)
        if key is not None:
            return self._hash(as_hash_key(key))
        raise MissingHashKey(
            f"{type(self).__name__} maps a key to a node, but the request has no hash_key; give "
            f"one, such as select(nodes, SelectionContext(hash_key='user-42')) or "
            f"balancer.acquire(hash_key='user-42')"
        )


def _half_a_character(key: object) -> ValueError:
    return ValueError(
        f"hash_key is {shown(key)}, which has a lone surrogate (half a character) and so cannot be "
        f"written in UTF-8; give bytes, such as key.encode('utf-8', 'surrogatepass')"
    )


def _walk(plan: _Plan, position: int, exclude: AbstractSet[int], hashed: int) -> int | None:
    """Return the owner of the first point from ``position`` on that may be chosen."""
    check_excluded(exclude, plan.size)
    if none_left(plan.eligible, exclude):
        return None
    if plan.slow:
        return _walk_past_slow(plan, position, exclude, hashed)
    indices, owners = plan.indices, plan.owners
    while True:
        index = indices[owners[position]]
        if index >= 0 and index not in exclude:
            return index
        position = (position + 1) % len(owners)


def _walk_past_slow(plan: _Plan, position: int, exclude: AbstractSet[int], hashed: int) -> int:
    """Do as `_walk` where nodes are in slow start, and take but a part of what they own.

    For each of their points that the key meets another hash decides. So the shares are those of the
    weights, and as a node takes more and more, a key of its can only move to it.
    """
    indices, owners, points = plan.indices, plan.owners, plan.points
    key = hashed.to_bytes(8, "little")
    first, met, last = -1, 0, -1
    while True:
        index = indices[owners[position]]
        if index >= 0 and index not in exclude:
            return index
        slow = plan.slow.get(owners[position])
        # A cell may repeat the point of the one before it.
        if slow is not None and points[position] != last and slow[0] not in exclude:
            if xxh64_intdigest(key, met) < slow[1]:
                return slow[0]
            first = slow[0] if first < 0 else first
            met += 1
            if met == _MOST_MET:  # hardly anybody but nodes in slow start
                return first
        last = points[position]
        position += 1
        if position == len(owners):
            position, last = 0, -1
