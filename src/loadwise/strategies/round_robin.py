"""Round robin: every node in turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from random import randrange

from loadwise._counter import counter_from, upcoming
from loadwise._native import mypyc_attr
from loadwise._numbers import whole
from loadwise.context import EMPTY, SelectionContext
from loadwise.node_set import NodeSet
from loadwise.strategies._planned import N, Plan, Planned, check_excluded

__all__ = ["RoundRobin"]

_RANDOM_START_RANGE = 2**32


@mypyc_attr(allow_interpreted_subclasses=True)
class RoundRobin(Planned[N, "count[int]", "Plan[count[int]]"]):
    """Every node in turn, in index order.

    Use it when nodes are alike and requests cost about the same. Needs nothing of a node.

    Args:
        start: The first turn: the index (modulo the number of nodes) to begin at. ``None`` begins
            at a random place, another one in each forked worker, so that clients
            that start together do not all begin with node 0.

    Raises:
        TypeError: ``start`` is not an int or ``None``.
        ValueError: ``start`` is negative.

    A turn that falls on an excluded node passes to the next one. When nodes come or go the turn
    count goes on, so a change does not send everybody back to the first node.

    Thread-safety: exact without a lock. Whatever the number of threads, picks over the same nodes
    leave counts within 1 of each other.

    Cost: O(1) per pick, and O(number of excluded nodes) more when some are.

    Example:
        >>> turns = RoundRobin()
        >>> nodes = NodeSet(["a", "b", "c"])
        >>> [nodes[turns.select(nodes)] for _ in range(4)]
        ['a', 'b', 'c', 'a']
    """

    def __init__(self, start: int | None = 0) -> None:
        self._start = None if start is None else whole("start", start, 0)
        super().__init__()

    def _after_fork(self) -> None:
        start = randrange(_RANDOM_START_RANGE) if self._start is None else self._start
        self._latest = counter_from(start)
        super()._after_fork()

    def _make_state(self, nodes: NodeSet[N]) -> count[int]:  # noqa: ARG002 - any nodes
        return counter_from(upcoming(self._latest))

    def _kept_now(self, state: count[int]) -> None:
        self._latest = state

    def _make_plan(self, nodes: NodeSet[N], state: count[int]) -> Plan[count[int]]:
        return Plan(nodes, state)

    def select(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return the index whose turn it is, or ``None`` when none may be chosen."""
        source, plan = self._hot
        if source is not candidates:
            plan = self._resolve(candidates)
        elif not context.exclude:
            return plan.eligible[next(plan.state) % plan.count]
        return _next_in_turn(plan, plan.state, context)

    def peek(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return what `select` would return, without taking the turn."""
        plan = self._glance(candidates)
        return _next_in_turn(plan, count(upcoming(plan.state)), context)


def _next_in_turn(
    plan: Plan[count[int]], turns: Iterator[int], context: SelectionContext
) -> int | None:
    """Take turns until one falls on an index that is not excluded."""
    check_excluded(context.exclude, plan.size)
    eligible, size = plan.eligible, plan.count
    if not size:
        return None
    exclude = context.exclude
    turn = 0
    for _ in range(len(exclude) + 1):
        turn = next(turns)
        index = eligible[turn % size]
        if index not in exclude:
            return index
    # Other threads took the turns between ours: look at every node once, from the last turn on.
    for offset in range(1, size):
        index = eligible[(turn + offset) % size]
        if index not in exclude:
            return index
    return None
