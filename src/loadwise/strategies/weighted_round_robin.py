"""Weighted round robin: every node in proportion to its weight, as evenly spread as can be.

nginx's smooth sequence is periodic, with period W = sum of the weights over their greatest common
divisor. So the whole cycle can be laid out once and handed out piece by piece, and a pick costs no
more than a plain round robin. Where the cycle would be too long to lay out, or the weights are
floats and there is none, a proportionate fair schedule takes over.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from math import gcd
from random import Random as RandomSource
from typing import ClassVar

from loadwise._native import mypyc_attr
from loadwise.node_set import NodeSet
from loadwise.strategies._in_turn import InTurn
from loadwise.strategies._planned import N
from loadwise.strategies._requirements import require_weights
from loadwise.strategies._sequences import (
    LONGEST_CYCLE,
    ONE,
    Candidates,
    Cycle,
    Schedule,
    Source,
)
from loadwise.strategies._turn_book import Book

__all__ = ["WeightedRoundRobin"]

_MOST_STEPS = 2**20


@mypyc_attr(allow_interpreted_subclasses=True)
class WeightedRoundRobin(InTurn[N]):
    """Every node in proportion to its weight, smoothly interleaved.

    Use it when nodes differ in size and requests cost about the same. Needs `Weighted` nodes.

    Args:
        start: The first turn: the position in the sequence (modulo its length) to begin at.
            ``None`` begins at a random place, another one in each forked worker, so that clients
            that start together do not all begin with the heaviest node: each is first with a chance
            proportional to its weight.
        rng: Source of randomness for that; ``None`` for the shared one of the `random` module.

    Which algorithm is used, by the weights of the nodes that may be chosen:

    - **nginx's smooth sequence**, exactly, when all are ints, W (their sum over their greatest
      common divisor) is at most 65,536, and W times the number of distinct weights at most 2^20.
    - **A proportionate fair schedule** otherwise, that is for very uneven ints and whenever a
      weight is a float, unless all are alike. No node is ever more than one pick from its
      proportional share, be it behind or ahead. It has no length, so it begins at its first pick
      whatever the ``start``, unless that is ``None``.

    Each set of candidates, with their weights, has turns of its own, and the last 64 are remembered
    for each balancer: a set that is asked about again goes on where it was. A new one goes on from
    what its nodes were ahead or behind in the set before, whichever came, went, changed places or
    weights; a node that is new is neither. It serves who is furthest behind, as nginx does. Where
    the set changes before every pick, no node is ever more than H = 1 + 1/2 + ... + 1/n picks
    behind its share (7.5 for 1,000 nodes), nor more than n ahead, for at most n nodes at a time.

    An excluded node's turn passes to the next node of the sequence, and is kept for the next
    request that may use it: one turn a node.

    Raises:
        TypeError: ``start`` is not an int or ``None``; ``rng`` cannot be drawn from; at the pick,
            when a node has no ``weight``.
        ValueError: ``start`` is negative.

    Thread-safety: turns are popped off a list, which is atomic; of up to 256 picks one takes a
    lock, to lay out the next ones.

    Cost: O(1) amortised per pick from the smooth sequence, O(log n) from the schedule, the work of
    many picks being done by one of them; O(W k) to lay out the sequence for k distinct weights,
    O(n log n) for a set that goes on from another and O(k + log n) for each of its first W picks.
    Claims are taken over by single calls where it differs by at most 64 nodes from that one.

    Source: nginx commit 52327e0 ("Upstream: smooth weighted round-robin balancing");
    S. Baruah et al., "Proportionate progress", Algorithmica 15, 1996.

    Example:
        >>> from loadwise import Endpoint
        >>> nodes = NodeSet([Endpoint("a", weight=5), Endpoint("b"), Endpoint("c")])
        >>> turns = WeightedRoundRobin()
        >>> "".join(nodes[turns.select(nodes)].id for _ in range(7))
        'aabacaa'
    """

    _weighted: ClassVar[bool] = True

    def __init__(self, start: int | None = 0, rng: RandomSource | None = None) -> None:
        super().__init__(start, rng)

    def _make_state(self, nodes: NodeSet[N]) -> Book:
        require_weights(nodes, self)
        return super()._make_state(nodes)

    def _weights(self, nodes: NodeSet[N]) -> Sequence[int | float] | None:
        return None if nodes.alike else nodes.weights

    def _first(self, among: Candidates, draw: Callable[[], float]) -> Source:
        eligible, weights = among.eligible, among.weights
        cycle = eligible if weights is None else smooth_cycle(eligible, weights)
        if cycle is not None:
            return Cycle(among, cycle, self._begin(len(cycle), draw), [0] * among.size)
        if self._start is not None:
            return Schedule(among)
        # Each comes first with a chance proportional to its weight, and has any phase after that.
        sums = list(accumulate(among.parts()))
        first = min(bisect_right(sums, draw() * sums[-1]), eligible[-1])
        phases = [int((draw() - 0.5) * ONE) for _ in sums]
        phases[first] += ONE
        return Schedule(among, phases, first)

    def facts(self, nodes: NodeSet[N]) -> Mapping[str, Sequence[float]]:
        """Return the weights."""
        return {"weight": nodes.weights}


def smooth_cycle(eligible: Sequence[int], weights: Sequence[int | float]) -> Sequence[int] | None:
    """Lay out one period of nginx's smooth weighted round robin.

    Nodes of equal weight have equal claims but for the picks they had, so among them the one with
    the lowest index and the fewest picks always leads: they take turns in index order. One claim
    per distinct weight is enough, and a step costs O(distinct weights).

    Returns:
        The indices in order, or ``None`` when the weights are not ints or the cycle is too long.
    """
    chosen = [weights[i] for i in eligible]
    if not chosen:
        return ()
    members: dict[int, list[int]] = {}
    for index, weight in zip(eligible, chosen, strict=True):
        if not isinstance(weight, int):
            return None
        members.setdefault(weight, []).append(index)
    divisor = gcd(*members)
    total = sum(weight * len(group) for weight, group in members.items()) // divisor
    if total > LONGEST_CYCLE or total * len(members) > _MOST_STEPS:
        return None
    steps = [weight // divisor for weight in members]
    groups = list(members.values())
    heads = [group[0] for group in groups]
    turns = [0] * len(groups)
    claims = [0] * len(groups)
    order = range(len(groups))
    cycle: list[int] = []
    for _ in range(total):
        claims = [claim + step for claim, step in zip(claims, steps, strict=True)]
        top = max(claims)
        best = claims.index(top)
        if claims.count(top) > 1:
            best = min((i for i in order if claims[i] == top), key=heads.__getitem__)
        cycle.append(heads[best])
        turns[best] += 1
        if turns[best] == len(groups[best]):
            turns[best] = 0
            claims[best] -= total
        heads[best] = groups[best][turns[best]]
    return tuple(cycle)
