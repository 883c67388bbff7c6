"""Round robin: every node in turn."""

from __future__ import annotations

from collections.abc import Callable
from random import Random as RandomSource

from loadwise._native import mypyc_attr
from loadwise.strategies._in_turn import InTurn
from loadwise.strategies._planned import N
from loadwise.strategies._sequences import Candidates, Cycle, Source

__all__ = ["RoundRobin"]


@mypyc_attr(allow_interpreted_subclasses=True)
class RoundRobin(InTurn[N]):
    """Every node in turn, in index order.

    Use it when nodes are alike and requests cost about the same. Needs nothing of a node.

    Args:
        start: The first turn: the index (modulo the number of nodes) to begin at. ``None`` begins
            at a random place, another one in each forked worker, so that clients
            that start together do not all begin with node 0.
        rng: Source of randomness for that; ``None`` for the shared one of the `random` module.

    Raises:
        TypeError: ``start`` is not an int or ``None``; ``rng`` cannot be drawn from.
        ValueError: ``start`` is negative.

    Each set of candidates has turns of its own, and the last 64 are remembered for each balancer: a
    set that is asked about again goes on where it was. A new one goes on where its nodes were in
    the set before, whichever came, went or changed places; a node that is new is neither ahead nor
    behind. Of the picks from one set, counts stay within 1 of each other. Where the set changes
    before every pick no node is ever more than H = 1 + 1/2 + ... + 1/n picks behind its share, nor
    more than n ahead, for at most n nodes at a time.

    A turn that falls on an excluded node passes to the next one, and is kept for the next request
    that may use it: one turn a node.

    Thread-safety: exact without a lock, but for one pick in up to 256, which lays out the next
    turns. Whatever the number of threads, picks over the same nodes leave counts within 1 of each
    other.

    Cost: O(1) per pick, and O(number of excluded nodes) more when some are; O(n log n) for a set
    that is new, O(n) for one that is remembered. Where a set differs by at most 64 nodes from the
    latest of the same membership, only those are looked at one by one; the rest is sorted, copied
    and added up by single calls.

    Example:
        >>> from loadwise import NodeSet
        >>> turns = RoundRobin()
        >>> nodes = NodeSet(["a", "b", "c"])
        >>> [nodes[turns.select(nodes)] for _ in range(4)]
        ['a', 'b', 'c', 'a']
    """

    def __init__(self, start: int | None = 0, rng: RandomSource | None = None) -> None:
        super().__init__(start, rng)

    def _first(self, among: Candidates, draw: Callable[[], float]) -> Source:
        eligible = among.eligible
        return Cycle(among, eligible, self._begin(len(eligible), draw), [0] * among.size)
