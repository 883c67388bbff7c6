"""Consistent hashing: a key keeps its node, and membership changes move few keys.

Each node owns points on a ring of 64-bit hashes; a key belongs to the first point at or after its
own hash. The ring is built once per membership. Nodes that may not be chosen now are walked past,
so a node that goes down moves only its own keys, each to the next node along, and gets them back
when it returns; nothing is rebuilt.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from xxhash import xxh64_intdigest

from loadwise.context import EMPTY, SelectionContext
from loadwise.errors import MissingHashKey
from loadwise.node_set import NodeSet
from loadwise.strategies._planned import N, Plan, Planned, check_excluded

__all__ = ["ConsistentHash"]

_HASH_LIMIT = 2**64
_MOST_POINTS = 2**24


class Ring:
    """Points in ascending order, who owns each, and where in them to begin for a hash.

    ``starts[h >> shift]`` is the first point whose top bits are those of ``h`` or higher. There
    are at least as many such buckets as points, so from there the first point at or after ``h``
    is a step or two away: a lookup costs the same on a large ring as on a small one. A last
    point, as high as any hash, leads back to the first owner.
    """

    __slots__ = ("owners", "points", "shift", "starts")

    def __init__(self, nodes: NodeSet[Any], counts: Sequence[int]) -> None:
        hashes: list[int] = []
        owners: list[int] = []
        for index, (identity, count) in enumerate(zip(nodes.ids, counts, strict=True)):
            prefix = f"{identity}_"
            hashes += [xxh64_intdigest(f"{prefix}{point}".encode()) for point in range(count)]
            owners += [index] * count
        order = sorted(range(len(hashes)), key=hashes.__getitem__)
        self.points = array("Q", [hashes[i] for i in order])
        self.owners = array("L", [owners[i] for i in order])
        bits = max(1, len(order).bit_length())
        self.shift = 64 - bits
        self.starts = array("L", bytes(array("L").itemsize << bits))
        bucket = 0
        for position, point in enumerate(self.points):
            last = point >> self.shift
            while bucket <= last:
                self.starts[bucket] = position
                bucket += 1
        while bucket < 1 << bits:
            self.starts[bucket] = len(order)
            bucket += 1
        if order:
            self.points.append(_HASH_LIMIT - 1)
            self.owners.append(self.owners[0])


class _Plan(Plan[Ring]):
    __slots__ = ("mask", "owners", "points", "shift", "starts", "whole")

    def __init__(self, nodes: NodeSet[Any], ring: Ring) -> None:  # only indices matter
        super().__init__(nodes, ring)
        self.points = ring.points
        self.owners = ring.owners
        self.starts = ring.starts
        self.shift = ring.shift
        self.mask = nodes.mask
        self.whole = len(nodes.eligible) == len(nodes.membership.eligible) > 0


class ConsistentHash(Planned[N, Ring, _Plan]):
    """The node that a key belongs to.

    Use it for caches, sessions and anything that is cheaper where it was before. The context's
    ``hash_key`` is required: a ``str`` (as UTF-8) or ``bytes`` is hashed with xxHash64, seed 0;
    an ``int`` is the 64-bit hash itself.

    Args:
        virtual_nodes: Points per unit of weight, >= 1. More points share the keys more evenly:
            the spread of shares is about 1/sqrt(points per node).

    Point i of a node is ``xxh64(f"{id}_{i}")``, so all programs agree that know the same ids. A
    weight multiplies the points (rounded, at least 1); a node without a weight has weight 1.

    Adding or removing one of n nodes moves about 1/n of the keys, and none between the others.
    A node that is down, filtered out or excluded passes its keys to the next along the ring.

    Raises:
        TypeError: ``virtual_nodes`` is not an int.
        ValueError: ``virtual_nodes`` is below 1; at the pick, when an int key is outside
            0..2^64-1, or when the ring would have more than 2^24 points.
        MissingHashKey: At the pick, when there is no ``hash_key``.

    Thread-safety: the ring is immutable.

    Cost: O(1) expected per pick; O(p log p) once per membership of p points, 20 bytes a point.

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

    def __init__(self, virtual_nodes: int = 160) -> None:
        if not isinstance(virtual_nodes, int):
            raise TypeError(f"virtual_nodes is {virtual_nodes!r}; it must be an int")
        if virtual_nodes < 1:
            raise ValueError(f"virtual_nodes is {virtual_nodes}; it must be at least 1")
        self._virtual_nodes = virtual_nodes
        super().__init__()

    def _counts(self, nodes: NodeSet[N]) -> list[int]:
        per_unit = self._virtual_nodes
        return [max(1, round(per_unit * weight)) if weight else 0 for weight in nodes.weights]

    def _size(self, nodes: NodeSet[N]) -> int:
        return sum(self._counts(nodes))

    def _make_state(self, nodes: NodeSet[N]) -> Ring:
        counts = self._counts(nodes)
        if sum(counts) > _MOST_POINTS:
            raise ValueError(
                f"the ring of {len(nodes)} nodes would have {sum(counts)} points, more than "
                f"{_MOST_POINTS}; use smaller weights or fewer virtual_nodes "
                f"(now {self._virtual_nodes} per unit of weight)"
            )
        return Ring(nodes, counts)

    def _make_plan(self, nodes: NodeSet[N], state: Ring) -> _Plan:
        return _Plan(nodes, state)

    def select(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return the index of the node that ``context.hash_key`` belongs to, or ``None``."""
        source, plan = self._hot
        if source is not candidates:
            plan = self._resolve(candidates)
        key = context.hash_key
        hashed = xxh64_intdigest(key.encode()) if isinstance(key, str) else self._hash(key)
        if not plan.count:
            check_excluded(context.exclude, plan.size)
            return None
        points = plan.points
        position = plan.starts[hashed >> plan.shift]
        while points[position] < hashed:
            position += 1
        if plan.whole and not context.exclude:
            return plan.owners[position]
        return _walk(plan, position, context.exclude)

    def peek(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return what `select` would return: it depends on the key alone."""
        return self.select(candidates, context)

    def _hash(self, key: object) -> int:
        if isinstance(key, int):
            if not 0 <= key < _HASH_LIMIT:
                raise ValueError(
                    f"hash_key is {key}; an int is taken as the 64-bit hash itself and must be in "
                    f"0..2^64-1 (give a str or bytes to have it hashed)"
                )
            return key
        if isinstance(key, bytes):
            return xxh64_intdigest(key)
        raise MissingHashKey(
            f"{type(self).__name__} maps a key to a node, but the request has no hash_key; give "
            f"one, such as select(nodes, SelectionContext(hash_key='user-42')) or "
            f"balancer.acquire(hash_key='user-42')"
        )


def _walk(plan: _Plan, position: int, exclude: AbstractSet[int]) -> int | None:
    """Return the owner of the first point from ``position`` on that may be chosen."""
    check_excluded(exclude, plan.size)
    if len(exclude) >= plan.count and exclude >= frozenset(plan.eligible):
        return None
    mask, owners = plan.mask, plan.owners
    last = len(owners) - 1
    while True:
        owner = owners[position]
        if mask[owner] and owner not in exclude:
            return owner
        # The last entry repeats the first, so the walk goes on from the second.
        position = position + 1 if position < last else 1
