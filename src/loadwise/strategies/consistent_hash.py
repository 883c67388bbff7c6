"""Consistent hashing: a key keeps its node, and membership changes move few keys.

Each node owns points on a ring of 64-bit hashes; a key belongs to the first point at or after its
own hash. There is one ring per membership, derived from that of a similar one where there is such.
Nodes that may not be chosen now are walked past, so a node that goes down moves only its own keys,
each to the next node along, and gets them back when it returns; nothing is rebuilt.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

from loadwise._native import mypyc_attr
from loadwise._numbers import shown, whole
from loadwise.context import EMPTY, HashKey, SelectionContext
from loadwise.errors import nearest
from loadwise.node_set import NodeSet
from loadwise.strategies._keyed import Keyed, half_a_character
from loadwise.strategies._planned import N
from loadwise.strategies._points import KINDS, Points
from loadwise.strategies._ring import Ring, build, derive
from loadwise.strategies._ring_plan import RingPlan, position_of, stops_from, walk

__all__ = ["ConsistentHash"]

_USUAL = 160
_MOST_MEDIANS = 2**32
"""Of a weight, because more would leave no other node a second point, and could overflow."""
_DIGITS = 9
"""Decimals of a number of points that count, so that 2.5 times 0.7 / 0.7 is 2.5."""


@mypyc_attr(allow_interpreted_subclasses=True)
class ConsistentHash(Keyed[N, Ring, RingPlan]):
    """The node that a key belongs to.

    Use it for caches, sessions and anything that is cheaper where it was before. The context's
    ``hash_key`` is required: a ``str`` (as UTF-8) or ``bytes`` is hashed with xxHash64, seed 0;
    an ``int`` is the 64-bit hash itself.

    Args:
        virtual_nodes: Points of a node of the median weight, >= 1. More points share the keys more
            evenly: the spread of shares is about 1/sqrt(points per node).
        points: Where the points lie, and how a key is hashed: ``"xxh64"`` and ``"murmur2"`` are
            Envoy's two ways, ``"ketama"`` is nginx's, ``"haproxy"`` HAProxy's. See below.
        max_points: How many points the ring has at most, >= 1. If there would be more, all nodes
            have half as many, or a quarter, and so on, but never fewer than one each.

    Point i of a node is ``xxh64(f"{id}_{i}")``, so all programs agree that know the same ids. Ids
    that are alike as text, such as 1 and "1", share points, which are those of the first node.
    With ``points="murmur2"`` the points are those of Envoy's MURMUR_HASH_2.

    With ``"ketama"`` and ``"haproxy"`` a client agrees with the proxy beside it, so points are
    given as there: 160, or 16, for each unit of weight, and weights are whole. The ring of nginx
    goes by the ids, which are its ``server`` addresses (``hash $key consistent``); that of HAProxy
    by its server ids (``hash-type consistent``): ids are numbered as for `JumpHash`. An int key is
    the 32-bit hash itself. More weights than ``max_points`` has room for are refused.

    Otherwise weights are relative: a node has ``virtual_nodes * weight / median`` points (rounded,
    at least 1), where the median is that of the positive weights, the lower one of two. Scaling all
    weights moves no key. Nor does a node that comes, goes or changes its weight, between the
    others, while the median stays the same, as it does where one weight is the most common by far.
    A node without a weight has weight 1.

    Adding or removing one of n equal nodes moves about 1/n of the keys, and none between the
    others. A node that is down, filtered out or excluded passes its keys to the next along the
    ring. A node in slow start takes as large a part of its keys as its factor says, and the ring
    stays as it is: of its keys each moves to it once, and none between the others.

    Raises:
        TypeError: ``virtual_nodes`` or ``max_points`` is not an int.
        ValueError: One of them is below 1, ``points`` is unknown, or takes no ``virtual_nodes``;
            for a membership, where ``points`` needs whole weights or numbered ids; at the pick,
            when an int key is outside 0..2^64-1, or when a str key cannot be written in UTF-8.
        MissingHashKey: At the pick, when there is no ``hash_key``.

    Thread-safety: the ring is immutable. While one is built, picks go on with those there are.

    Cost: O(1) expected per pick. A membership of p points takes O(p log p) once, and 15 to 48 bytes
    a point; one that differs by few nodes from any asked about lately, O(1) expected for each point
    that differs and a copy of the rest; with ``"haproxy"`` always as for the first.

    Source: D. Karger et al., "Consistent hashing and random trees", STOC 1997; points and hash
    as in Envoy's ring_hash policy, nginx's ngx_http_upstream_hash_module, HAProxy's lb_chash.c.

    Example:
        >>> nodes = ["cache-a", "cache-b", "cache-c"]
        >>> strategy = ConsistentHash()
        >>> nodes[strategy.select(nodes, SelectionContext(hash_key="user-42"))]
        'cache-c'
        >>> nodes[strategy.select(nodes, SelectionContext(hash_key="user-42", exclude={2}))]
        'cache-a'
    """

    kept_size = 2**22

    def __init__(
        self, virtual_nodes: int = 160, points: str = "xxh64", *, max_points: int = 2**22
    ) -> None:
        self._virtual_nodes = whole("virtual_nodes", virtual_nodes, 1)
        self._max_points = whole("max_points", max_points, 1)
        kind = _kind_of(points)
        if kind is None:
            raise ValueError(
                f"points is {shown(points)}; it must be one of {', '.join(map(repr, KINDS))}"
                f"{nearest(points, KINDS)}"
            )
        if kind.unit is not None and self._virtual_nodes != _USUAL:
            raise ValueError(
                f"virtual_nodes is {self._virtual_nodes}, but with points={points!r} a node has "
                f"{kind.unit} for each unit of its weight, as in {kind.proxy}; leave virtual_nodes "
                f"out, and give weights"
            )
        self._kind: Points = kind
        self._digest: Callable[[bytes], int] = kind.of_key
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
        if self._kind.unit is not None:
            return found | self._by_unit(nodes, self._kind, self._kind.unit)
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

    def _by_unit(self, nodes: NodeSet[N], kind: Points, unit: int) -> dict[int | float, int]:
        """Return how many points a node of each weight has, where each unit of weight has some."""
        asked, tally = f"points={kind.name!r}", nodes.membership.tally
        for weight in tally:
            high = kind.most_weight is not None and weight > kind.most_weight
            if high or int(weight) != weight:
                limit = "" if kind.most_weight is None else f" up to {kind.most_weight}"
                identity = nodes.ids[nodes.weights.index(weight)]
                raise ValueError(
                    f"node {identity!r} has the weight {weight!r}; {asked} needs whole weights"
                    f"{limit}, as {kind.proxy} has them"
                )
        total = sum([int(weight) * number for weight, number in tally.items()]) * unit
        if total > self._max_points:
            raise ValueError(
                f"the weights come to {total} points, {unit} for each unit ({asked}), but "
                f"max_points is {self._max_points}; divide the weights by a common factor, or give "
                f"more"
            )
        return {weight: int(weight) * unit for weight in tally}

    def _size(self, nodes: NodeSet[N]) -> int:
        found, tally = self._by_weight(nodes), nodes.membership.tally
        return sum([found[weight] * number for weight, number in tally.items()])

    def _make_state(self, nodes: NodeSet[N]) -> Ring:
        counts = self._counts(nodes)
        # The text decides where the points lie, so ids that are alike as text are alike here.
        names = self._kind.labels(nodes.ids)
        for base in self._kept_states():
            ring = derive(base, names, counts, self._kind)
            if ring is not None:
                return ring
        return build(names, counts, self._kind)

    def _make_plan(self, nodes: NodeSet[N], state: Ring) -> RingPlan:
        return RingPlan(nodes, state)

    def _patch(
        self, before: RingPlan, nodes: NodeSet[N], gone: list[int], back: list[int]
    ) -> RingPlan:
        return before.patched(nodes, gone, back)

    def select(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return the index of the node that ``context.hash_key`` belongs to, or ``None``."""
        source, plan = self._hot
        if source is not candidates:
            plan = self._resolve(candidates)
        key = context.hash_key
        try:
            hashed = self._digest(key.encode()) if isinstance(key, str) else self._hash(key)
        except UnicodeEncodeError:
            raise half_a_character(key) from None
        points = plan.points
        position = hashed >> plan.shift
        while points[position] < hashed:
            position += 1
        if not context.exclude:
            index = plan.indices[plan.owners[position]]
            if index >= 0:
                return index
        return walk(plan, position, hashed, context.exclude)

    def peek(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return what `select` would return: it depends on the key alone."""
        return self.select(candidates, context)

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
                self._digest(hash_key.encode())
                if isinstance(hash_key, str)
                else self._hash(hash_key)
            )
        except UnicodeEncodeError:
            raise half_a_character(hash_key) from None
        points = plan.points
        position = hashed >> plan.shift
        while points[position] < hashed:
            position += 1
        index = plan.indices[plan.owners[position]]
        return index if index >= 0 else walk(plan, position, hashed, EMPTY.exclude)

    @property
    def _bits(self) -> int:
        return self._kind.bits

    def _hash_of(self, data: bytes) -> int:
        return self._digest(data)

    def _order(self, plan: RingPlan, hashed: int) -> Iterator[int]:
        seen: set[int] = set()
        position = position_of(plan, hashed)
        stops = stops_from(plan, position, hashed)
        while len(seen) < plan.count:
            index = walk(plan, position, hashed, seen) if plan.slow else plan.indices[next(stops)]
            if index is not None and index >= 0 and index not in seen:
                seen.add(index)
                yield index


def _kind_of(points: object) -> Points | None:
    return KINDS.get(points) if isinstance(points, str) else None
