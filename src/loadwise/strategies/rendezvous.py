"""Rendezvous hashing: every node draws a score for a key, and the best has it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop
from itertools import repeat
from math import frexp, ldexp, log1p
from typing import Any, Final

from xxhash import xxh64_intdigest

from loadwise._native import mypyc_attr
from loadwise.context import EMPTY, SelectionContext
from loadwise.node_set import NodeSet
from loadwise.strategies._draws import share_of_full
from loadwise.strategies._keyed import Keyed
from loadwise.strategies._planned import N, Plan, check_excluded

__all__ = ["Rendezvous"]

_ALL_ONES: Final = 2**64 - 1
_LARGEST: Final = 500
_LEAST_WEIGHT: Final = 2.0**-900


class _Entrants:
    """Seeds and weights of all nodes, by index. Immutable.

    Attributes:
        seeds: The hashes of the ids.
        weights: The weights times a power of two, so that scores can be neither too large nor too
            small for a float. That rounds nothing, so it changes no score's place.
    """

    __slots__ = ("seeds", "weights")

    def __init__(self, nodes: NodeSet[Any]) -> None:
        self.seeds = [xxh64_intdigest(f"{identity}".encode()) for identity in nodes.ids]
        shift = _LARGEST - frexp(max(nodes.membership.tally, default=1))[1]
        known = {weight: max(ldexp(weight, shift), _LEAST_WEIGHT) for weight in {*nodes.weights}}
        self.weights = list(map(known.__getitem__, nodes.weights))


@mypyc_attr(allow_interpreted_subclasses=True)
class _ScorePlan(Plan[_Entrants]):
    """Seeds and weights by position among the eligible, and whether all weights are the same.

    Attributes:
        warming: Whether some are in slow start, so that weights hold for this view only.
    """

    __slots__ = ("alike", "seeds", "warming", "weights")

    def __init__(self, nodes: NodeSet[Any], entrants: _Entrants) -> None:  # only indices matter
        super().__init__(nodes, entrants)
        parts = share_of_full(nodes)
        self.warming = bool(parts)
        self.alike = nodes.alike and not parts
        self.seeds = [entrants.seeds[index] for index in self.eligible]
        self.weights = [] if self.alike else [entrants.weights[index] for index in self.eligible]
        if parts:
            for position, index in enumerate(self.eligible):
                self.weights[position] *= parts.get(index, 1.0)

    def patched(
        self, nodes: NodeSet[Any], gone: Sequence[int], back: Sequence[int]
    ) -> _ScorePlan | None:
        """Return the plan for a set of which a few others are eligible; see `Planned`."""
        if nodes.alike is not self.alike or self.warming or nodes.warm_up is not None:
            return None
        twin = _ScorePlan.__new__(_ScorePlan)
        steps = twin.follow(self, gone, back)
        twin.warming = False
        twin.alike, twin.seeds, twin.weights = self.alike, self.seeds.copy(), self.weights.copy()
        for position, index in steps:
            if index is None:
                del twin.seeds[position]
                del twin.weights[position : position + 1]
            else:
                twin.seeds.insert(position, self.state.seeds[index])
                if not twin.alike:
                    twin.weights.insert(position, self.state.weights[index])
        return twin


@mypyc_attr(allow_interpreted_subclasses=True)
class Rendezvous(Keyed[N, _Entrants, _ScorePlan]):
    """The node that draws the best score for a key: rendezvous, or highest random weight, hashing.

    Use it for few nodes, where shares are to be exactly by weight and no key may move that does not
    have to. The context's ``hash_key`` is required, and hashed as by `ConsistentHash`.

    Each node draws a number u between 0 and 1 by a hash of the key and of its id, and its score is
    ``-weight / ln(u)``. So the chance of each node is its share of the weights, with no table to
    round it. A node without a weight has weight 1.

    A node that comes, goes, or gets another weight moves its own keys, and none between the others.
    One that is down, filtered out or excluded passes each of its keys to the next best score, so
    its load is spread over all others by weight. One in slow start has its weight times a factor:
    as that grows, keys move to it only. Ids that are alike as text, such as 1 and "1", draw alike;
    of equal weights the first has the keys.

    Raises:
        MissingHashKey: At the pick, when there is no ``hash_key``.
        ValueError: At the pick, when an int key is outside 0..2^64-1, or when a str key cannot be
            written in UTF-8.

    Thread-safety: lock-free.

    Cost: O(n) per pick, about 0.1 us a node, and twice that where weights differ.

    Source: D. Thaler, C. Ravishankar, "A name-based mapping scheme for rendezvous", 1996; weights
    as by J. Resch, "New hashing algorithms for data storage", SDC 2015.

    Example:
        >>> nodes = ["cache-a", "cache-b", "cache-c"]
        >>> strategy = Rendezvous()
        >>> nodes[strategy.select(nodes, SelectionContext(hash_key="user-42"))]
        'cache-c'
        >>> nodes[strategy.select(nodes, SelectionContext(hash_key="user-42", exclude={2}))]
        'cache-a'
    """

    def _make_state(self, nodes: NodeSet[N]) -> _Entrants:
        return _Entrants(nodes)

    def _make_plan(self, nodes: NodeSet[N], state: _Entrants) -> _ScorePlan:
        return _ScorePlan(nodes, state)

    def _patch(
        self, before: _ScorePlan, nodes: NodeSet[N], gone: list[int], back: list[int]
    ) -> _ScorePlan | None:
        return before.patched(nodes, gone, back)

    def select(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return the index of the node that ``context.hash_key`` belongs to, or ``None``."""
        source, plan = self._hot
        if source is not candidates:
            plan = self._resolve(candidates)
        draws = _draws(plan, self._hash(context.hash_key))
        if not context.exclude:
            return _best(plan, draws)
        check_excluded(context.exclude, plan.size)
        found = [p for p, index in enumerate(plan.eligible) if index not in context.exclude]
        if not found:
            return None
        if plan.alike:
            return plan.eligible[max(found, key=draws.__getitem__)]
        return plan.eligible[
            min(found, key=lambda p: (_wait(draws[p], plan.weights[p]), -draws[p]))
        ]

    def peek(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return what `select` would return: it depends on the key alone."""
        return self.select(candidates, context)

    def _first(self, plan: _ScorePlan, hashed: int) -> int | None:
        return _best(plan, _draws(plan, hashed))

    def _order(self, plan: _ScorePlan, hashed: int) -> Iterator[int]:
        draws = _draws(plan, hashed)
        weights = repeat(1.0) if plan.alike else plan.weights
        queue = [
            (_wait(draw, weight), -draw, position)
            for position, (draw, weight) in enumerate(zip(draws, weights, strict=False))
        ]
        heapify(queue)
        while queue:
            yield plan.eligible[heappop(queue)[2]]


def _draws(plan: _ScorePlan, hashed: int) -> list[int]:
    return list(map(xxh64_intdigest, repeat(hashed.to_bytes(8, "little")), plan.seeds))


def _wait(draw: int, weight: float) -> float:
    """Return the inverse of a score, ``-ln(u) / weight``, which is exact for u near 1."""
    return -log1p(-ldexp((_ALL_ONES - draw) >> 11, -53)) / weight


def _best(plan: _ScorePlan, draws: list[int]) -> int | None:
    if not draws:
        return None
    if plan.alike:
        return plan.eligible[draws.index(max(draws))]
    waits = [_wait(draw, weight) for draw, weight in zip(draws, plan.weights, strict=True)]
    shortest = min(waits)
    position = waits.index(shortest)
    if waits.count(shortest) > 1:
        position = max(
            [p for p, wait in enumerate(waits) if wait == shortest], key=draws.__getitem__
        )
    return plan.eligible[position]
