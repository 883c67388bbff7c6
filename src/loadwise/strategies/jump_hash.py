"""Jump consistent hashing: numbered shards, and no table."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain
from typing import Any, Final

from xxhash import xxh64_intdigest

from loadwise._native import mypyc_attr
from loadwise._numbers import whole
from loadwise.context import EMPTY, SelectionContext
from loadwise.node_set import NodeSet
from loadwise.strategies._draws import share_of_full
from loadwise.strategies._keyed import Keyed
from loadwise.strategies._numbered import numbers_of
from loadwise.strategies._planned import N, Plan, check_excluded, none_left

__all__ = ["JumpHash"]

_MASK: Final = 2**64 - 1
_MULTIPLIER: Final = 2862933555777941757
_TRIES: Final = 64
"""So many shards may be found missing or out before the next in order of number is taken."""


class _Shards:
    """Shards of a membership, by their place from the first number on. Immutable.

    A place that no shard has is kept free for one, so that the others do not move; so is that of a
    shard of weight 0. Such a place weighs what most of them do.

    Attributes:
        size: How many places there are.
        at: The index of the node at a place.
        place_of: The place of each node, by index.
        places: All that are taken, ascending.
        usual: The most common weight.
        weights: By position in ``places``; empty where all are the same.
        before: The sum of the weights of all places before each in ``places``.
    """

    __slots__ = ("at", "before", "place_of", "places", "size", "usual", "weights")

    def __init__(self, nodes: NodeSet[Any], first: int) -> None:
        numbers = numbers_of(nodes.ids, "JumpHash")
        low = min(numbers, default=first)
        if low < first:
            raise ValueError(
                f"node {nodes.ids[numbers.index(low)]!r} has the number {low}, but JumpHash was "
                f"given first={first}; number shards from there on"
            )
        self.place_of = [number - first for number in numbers]
        self.at = {place: index for index, place in enumerate(self.place_of)}
        self.places = sorted(self.at)
        self.size = self.places[-1] + 1 if self.places else 0
        tally = nodes.membership.tally
        self.usual = max(tally, key=lambda weight: (tally[weight], weight), default=1)
        self.weights: list[int | float] = []
        self.before: list[int | float] = []
        if len(tally) > 1:
            self.weights = [nodes.weights[self.at[place]] or self.usual for place in self.places]
            total: int | float = 0
            following = 0
            for place, weight in zip(self.places, self.weights, strict=True):
                total += (place - following) * self.usual
                self.before.append(total)
                total += weight
                following = place + 1

    def jump(self, key: int) -> int:
        """Return the place of a key. O(log n).

        The key passes along the places and remembers the last of those that it chose: each with
        the chance of its share in the weights up to there. What it leaves out it jumps over.
        """
        if self.weights:
            return self._jump_by_weight(key)
        place, following = -1, 0
        while following < self.size:
            place = following
            key = (key * _MULTIPLIER + 1) & _MASK
            following = int((place + 1) * (2147483648.0 / ((key >> 33) + 1)))
        return place

    def _jump_by_weight(self, key: int) -> int:
        total = self.before[-1] + self.weights[-1]
        place, until = self._where(0.0)
        while True:
            key = (key * _MULTIPLIER + 1) & _MASK
            mark = until * (2147483648.0 / ((key >> 33) + 1))
            if mark >= total:
                return place
            place, until = self._where(mark)

    def _where(self, mark: float) -> tuple[int, int | float]:
        """Return the place where the sum of the weights reaches beyond a mark, and that sum."""
        position = bisect_right(self.before, mark) - 1
        place, start = -1, 0.0
        if position >= 0:
            place = self.places[position]
            start = self.before[position] + self.weights[position]
            if mark < start:
                return place, start
        gap = int((mark - start) / self.usual)
        return place + 1 + gap, start + (gap + 1) * self.usual


@mypyc_attr(allow_interpreted_subclasses=True)
class _ShardPlan(Plan[_Shards]):
    """Shards, and the index at each place: none of those that may not be chosen.

    Attributes:
        slow: Shards in slow start by place, which are not in ``at``: the index, and a bound of 64
            bits. As large a part of the hashes as they take of their keys is below it.
    """

    __slots__ = ("at", "shards", "slow")

    def __init__(self, nodes: NodeSet[Any], shards: _Shards) -> None:  # only indices matter
        super().__init__(nodes, shards)
        self.shards = shards
        self.at = shards.at
        if not self.whole:
            mask = nodes.mask
            self.at = {place: index for place, index in shards.at.items() if mask[index]}
        self._slow_down(nodes)

    def _slow_down(self, nodes: NodeSet[Any]) -> None:
        place_of, parts = self.shards.place_of, share_of_full(nodes)
        self.slow = {place_of[i]: (i, int(part * 2**64)) for i, part in parts.items()}
        if self.slow:
            self.at = {place: i for place, i in self.at.items() if place not in self.slow}

    def patched(self, nodes: NodeSet[Any], gone: Sequence[int], back: Sequence[int]) -> _ShardPlan:
        """Return the plan for the same nodes with a few others eligible; see `Planned`."""
        twin = _ShardPlan.__new__(_ShardPlan)
        twin.follow(self, gone, back)
        twin.shards, twin.at = self.shards, self.at.copy()
        for place, (index, _) in self.slow.items():
            twin.at[place] = index
        for index in gone:
            del twin.at[self.shards.place_of[index]]
        for index in back:
            twin.at[self.shards.place_of[index]] = index
        twin._slow_down(nodes)  # noqa: SLF001 - its own
        return twin


@mypyc_attr(allow_interpreted_subclasses=True)
class JumpHash(Keyed[N, _Shards, _ShardPlan]):
    """The shard that a key belongs to, by jump consistent hashing.

    Use it for shards that are numbered and seldom change, added at the end and never renamed: the
    most even shares there are, without a table. The context's ``hash_key`` is required: a ``str``
    (as UTF-8) or ``bytes`` is hashed with xxHash64; an ``int`` is the 64-bit key itself.

    Args:
        first: Number of the first shard, >= 0.

    Ids are ints, digits, or end in a number after a dash, such as ``"shard-7"``: their numbers
    count, and the order of the nodes does not. A shard that joins with the next number takes its
    share of the keys from all others, and none moves between those.

    A shard that is down, filtered out, excluded, or no member though there are higher numbers,
    keeps its place: its keys alone go elsewhere, each to where a second hash of the key leads, and
    so on. The highest number decides how many places there are, so leave no large gaps, and none
    just below it; and let the last shard leave while it is up, or its keys move twice.

    Weights are heeded: shares are exactly by weight, and are those of the published function where
    all weights are the same. A weight that changes moves keys between the shards of higher numbers,
    too. A shard of weight 0 keeps its place. One in slow start takes as large a part of its keys as
    its factor says.

    Raises:
        TypeError: ``first`` is not an int.
        ValueError: It is negative; for a membership, where an id has no number, two have the same,
            or one is below ``first``; at the pick, when an int key is outside 0..2^64-1, or when a
            str key cannot be written in UTF-8.
        MissingHashKey: At the pick, when there is no ``hash_key``.

    Thread-safety: lock-free.

    Cost: O(log n) per pick, for n up to the highest number, and its square where weights differ;
    O(n) once per membership, to read the numbers.

    Source: J. Lamping, E. Veach, "A fast, minimal memory, consistent hash algorithm", 2014.

    Example:
        >>> shards = ["shard-0", "shard-1", "shard-2"]
        >>> strategy = JumpHash()
        >>> shards[strategy.select(shards, SelectionContext(hash_key="user-42"))]
        'shard-1'
        >>> shards[strategy.select(shards, SelectionContext(hash_key="user-42", exclude={1}))]
        'shard-0'
    """

    def __init__(self, first: int = 0) -> None:
        self._lowest = whole("first", first, 0)
        super().__init__()

    def _make_state(self, nodes: NodeSet[N]) -> _Shards:
        return _Shards(nodes, self._lowest)

    def _make_plan(self, nodes: NodeSet[N], state: _Shards) -> _ShardPlan:
        return _ShardPlan(nodes, state)

    def _patch(
        self,
        before: _ShardPlan,
        nodes: NodeSet[N],
        gone: list[int],
        back: list[int],
    ) -> _ShardPlan:
        return before.patched(nodes, gone, back)

    def select(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return the index of the shard that ``context.hash_key`` belongs to, or ``None``."""
        source, plan = self._hot
        if source is not candidates:
            plan = self._resolve(candidates)
        hashed = self._hash(context.hash_key)
        if not context.exclude:
            index = plan.at.get(plan.shards.jump(hashed))
            if index is not None:
                return index
        return _search(plan, hashed, context.exclude)

    def peek(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return what `select` would return: it depends on the key alone."""
        return self.select(candidates, context)

    def _first(self, plan: _ShardPlan, hashed: int) -> int | None:
        index = plan.at.get(plan.shards.jump(hashed))
        return _search(plan, hashed, EMPTY.exclude) if index is None else index

    def _order(self, plan: _ShardPlan, hashed: int) -> Iterator[int]:
        seen: set[int] = set()
        for index in _hops(plan, hashed):
            if index not in seen:
                seen.add(index)
                yield index


def _search(plan: _ShardPlan, hashed: int, exclude: AbstractSet[int]) -> int | None:
    check_excluded(exclude, plan.size)
    if none_left(plan.eligible, exclude):
        return None
    for index in _hops(plan, hashed):
        if index not in exclude:
            return index
    return None


def _hops(plan: _ShardPlan, hashed: int) -> Iterator[int]:
    """Give the indices that a key comes to, again and again some, and in the end all."""
    shards, at, slow = plan.shards, plan.at, plan.slow
    if not at and not slow:
        return
    data, key = hashed.to_bytes(8, "little"), hashed
    for seed in range(1, _TRIES + 1):
        place = shards.jump(key)
        index = at.get(place)
        if index is not None:
            yield index
        elif place in slow and xxh64_intdigest(data, _TRIES + seed) < slow[place][1]:
            yield slow[place][0]
        key = xxh64_intdigest(data, seed)
    start = bisect_left(shards.places, shards.jump(key)) % len(shards.places)
    for position in chain(range(start, len(shards.places)), range(start)):
        place = shards.places[position]
        index = slow[place][0] if place in slow else at.get(place)
        if index is not None:
            yield index
