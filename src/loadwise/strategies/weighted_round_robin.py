"""Weighted round robin: every node in proportion to its weight, as evenly spread as can be.

nginx's smooth sequence is periodic, with period W = sum of the weights over their greatest common
divisor. So the whole cycle can be laid out once and read by a counter, and a pick costs no more
than a plain round robin. Where the cycle would be too long to lay out, or the weights are floats
and there is none, a proportionate fair schedule takes over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from math import gcd
from typing import Any

from loadwise._counter import upcoming
from loadwise._native import mypyc_attr
from loadwise.context import EMPTY, SelectionContext
from loadwise.node_set import NodeSet
from loadwise.strategies._fair_schedule import FairSchedule
from loadwise.strategies._planned import N, Plan, Planned, check_excluded
from loadwise.strategies._requirements import require_weights

__all__ = ["WeightedRoundRobin"]

_LONGEST_CYCLE = 65_536
_MOST_STEPS = 2**20
_MOST_SKIPS = 32
_TABLES_KEPT = 8
_GOLDEN_FRACTION = 0.6180339887498949


class _State:
    """The turn count and the tables of one membership, by eligible indices."""

    __slots__ = ("schedules", "tables", "turns")

    def __init__(self) -> None:
        self.turns = count()
        self.tables: dict[tuple[int, ...], Sequence[int]] = {}
        self.schedules: dict[tuple[int, ...], FairSchedule] = {}


class _Plan(Plan[_State]):
    __slots__ = ("length", "schedule", "table", "turns", "weights")

    def __init__(self, nodes: NodeSet[Any], state: _State) -> None:  # only indices matter
        super().__init__(nodes, state)
        self.weights = nodes.weights
        self.turns = state.turns
        eligible = nodes.eligible
        self.schedule: FairSchedule | None = state.schedules.get(eligible)
        table = state.tables.get(eligible)
        if table is None and self.schedule is None:
            table = smooth_cycle(eligible, nodes.weights)
            if table is None:
                self.schedule = FairSchedule(eligible, nodes.weights)
                _keep(state.schedules, eligible, self.schedule)
            else:
                _keep(state.tables, eligible, table)
        self.table: Sequence[int] = () if table is None else table
        self.length = len(self.table)


@mypyc_attr(allow_interpreted_subclasses=True)
class WeightedRoundRobin(Planned[N, _State, _Plan]):
    """Every node in proportion to its weight, smoothly interleaved.

    Use it when nodes differ in size and requests cost about the same. Needs `Weighted` nodes.

    Which algorithm is used, by the weights of the nodes that may be chosen:

    - **nginx's smooth sequence**, exactly, when all are ints, W (their sum over their greatest
      common divisor) is at most 65,536, and W times the number of distinct weights at most 2^20.
      Its cycle is laid out once per snapshot, so a pick reads one table entry.
    - **A proportionate fair schedule** otherwise, that is for very uneven ints and whenever a
      weight is a float. No node is ever more than one pick from its proportional share, be it
      behind or ahead.

    An excluded node's turn passes to the next node of the sequence. New nodes or weights begin
    the sequence anew; a health change goes on in the sequence of those that are left.

    Raises:
        TypeError: At the pick, when a node has no ``weight``.

    Thread-safety: the table is read by an atomic counter; of 64 picks from the schedule one takes
    a lock.

    Cost: O(1) per pick from the table, O(log n) from the schedule, the work of 64 picks being done
    by one of them; O(W k) to lay out the table for k distinct weights, O(n) for the schedule.

    Source: nginx commit 52327e0 ("Upstream: smooth weighted round-robin balancing");
    S. Baruah et al., "Proportionate progress", Algorithmica 15, 1996.

    Example:
        >>> from loadwise import Endpoint
        >>> nodes = NodeSet([Endpoint("a", weight=5), Endpoint("b"), Endpoint("c")])
        >>> turns = WeightedRoundRobin()
        >>> "".join(nodes[turns.select(nodes)].id for _ in range(7))
        'aabacaa'
    """

    def _make_state(self, nodes: NodeSet[N]) -> _State:
        require_weights(nodes, self)
        return _State()

    def _make_plan(self, nodes: NodeSet[N], state: _State) -> _Plan:
        return _Plan(nodes, state)

    def select(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return the index whose turn it is, or ``None`` when none may be chosen."""
        source, plan = self._hot
        if source is not candidates:
            plan = self._resolve(candidates)
        elif not context.exclude:
            schedule = plan.schedule
            if schedule is None:
                return plan.table[next(plan.turns) % plan.length]
            next(plan.turns)  # also counted here, for views of the same nodes that have a table
            return schedule.pick()
        return _next_in_turn(plan, plan.schedule, plan.turns, context)

    def peek(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return what `select` would return, without taking the turn."""
        plan = self._glance(candidates)
        schedule = None if plan.schedule is None else plan.schedule.copy()
        return _next_in_turn(plan, schedule, count(upcoming(plan.turns)), context)

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
    if total > _LONGEST_CYCLE or total * len(members) > _MOST_STEPS:
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


def _keep(tables: dict[tuple[int, ...], Any], eligible: tuple[int, ...], table: object) -> None:
    if len(tables) >= _TABLES_KEPT:
        del tables[next(iter(tables))]
    tables[eligible] = table


def _next_in_turn(
    plan: _Plan, schedule: FairSchedule | None, turns: Iterator[int], context: SelectionContext
) -> int | None:
    """Take turns until one falls on an index that is not excluded."""
    exclude = context.exclude
    check_excluded(exclude, plan.size)
    if not plan.count:
        return None
    turn = 0
    for _ in range(_MOST_SKIPS):
        turn = next(turns)
        index = plan.table[turn % plan.length] if schedule is None else schedule.pick()
        if index not in exclude:
            return index
    # The excluded hold nearly all the weight. Spread over the others by a sequence that covers
    # the unit interval evenly (multiples of the golden ratio), in one pass over the nodes.
    rest = [i for i in plan.eligible if i not in exclude]
    if not rest:
        return None
    weights = plan.weights
    target = (turn * _GOLDEN_FRACTION) % 1.0 * sum(weights[i] for i in rest)
    for index in rest:
        target -= weights[index]
        if target < 0:
            return index
    return rest[-1]
