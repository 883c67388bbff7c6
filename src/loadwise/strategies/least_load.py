"""Least load: the least loaded of all nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from random import Random as RandomSource
from typing import Any

from loadwise._native import mypyc_attr
from loadwise._random import check_rng, fork_of, source_of
from loadwise.context import EMPTY, SelectionContext
from loadwise.strategies._extremes import draw_lowest
from loadwise.strategies._load_plans import PLAIN, Load, LoadPlan, LoadPlanned, as_loads
from loadwise.strategies._planned import N, check_excluded
from loadwise.strategies._weight_table import WeightTable

__all__ = ["LeastLoad"]


@mypyc_attr(allow_interpreted_subclasses=True)
class LeastLoad(LoadPlanned[N]):
    """The least loaded of all nodes; ties at random.

    Use it for few nodes and one client, or where requests are so long that the best place is
    worth a scan. With many clients prefer `PowerOfTwoChoices`: clients that see the same least
    loaded node all send to it.

    Args:
        load: ``None`` for each node's own ``load_score()``, a function of a node, or a measure
            from `loadwise.load` that a Balancer feeds. Lower is better. A NaN load loses.
        rng: Source of randomness for ties; ``None`` for the shared one of the `random` module.

    Raises:
        TypeError: ``load`` or ``rng`` is of the wrong kind; at the pick, when ``load`` is
            ``None`` and a node has no ``load_score()``, or when a load is no number.

    Where weights differ, what is compared is load / weight, as in nginx's ``least_conn``, and ties
    are drawn by weight: idle nodes of weights 9 and 1 share picks 9 to 1, and so do busy ones. A
    node without a weight has weight 1.

    Thread-safety: lock-free. Cost: O(n) per pick.

    Example:
        >>> busy = {"a": 4, "b": 1, "c": 2}
        >>> nodes = ["a", "b", "c"]
        >>> nodes[LeastLoad(load=busy.get).select(nodes)]
        'b'
    """

    def __init__(self, load: Load[N] = None, rng: RandomSource | None = None) -> None:
        check_rng(rng)
        self._rng = rng
        self._random = source_of(rng)
        super().__init__(load)

    def select(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return the index of the least loaded node, or ``None`` when none may be chosen."""
        source, plan = self._hot
        if source is not candidates:
            plan = self._resolve(candidates)
        return self._lowest(candidates, plan, self._random, context)

    def peek(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return what `select` would return, without drawing."""
        return self._lowest(candidates, self._glance(candidates), fork_of(self._rng), context)

    def _lowest(
        self,
        candidates: Sequence[N],
        plan: LoadPlan,
        draw: Callable[[], float],
        context: SelectionContext,
    ) -> int | None:
        eligible, choices = plan.eligible, plan.choices
        if context.exclude:
            check_excluded(context.exclude, plan.size)
            eligible = [i for i in eligible if i not in context.exclude]
            choices = [plan.items[i] for i in eligible]
        if not plan.alike and plan.table is not None:
            return self._lowest_by_weight(candidates, plan, plan.table, draw, context.exclude)
        loads = self._read(candidates, eligible, choices, self._key)
        position = draw_lowest(loads, draw)
        ageing = self._ageing
        if ageing is not None and position is not None and ageing.has_waiting(choices[position]):
            position = self._youngest(choices, loads, position, draw)
        return None if position is None else eligible[position]

    def _read(
        self,
        candidates: Sequence[N],
        indices: Sequence[int],
        items: Sequence[Any],
        read: Callable[[Any], Any],
    ) -> list[float]:
        """Return the loads at some indices, read from the items that belong to them."""
        if self._sound:
            return list(map(read, items))
        found = [node.load_score() for node in items] if self._own else list(map(read, items))
        if PLAIN.issuperset(map(type, found)):
            return found
        return as_loads(found, [candidates[i] for i in indices])

    def _youngest(
        self, choices: Sequence[Any], ranks: list[float], position: int, draw: Callable[[], float]
    ) -> int:
        """Return the position of the least loaded with regard to the age of requests.

        Ages can but raise a load, so who has the lowest rank is looked at again, until it stays the
        lowest.
        """
        ageing = self._ageing
        seen: set[int] = set()
        while ageing is not None and position not in seen:
            seen.add(position)
            aged = ageing.aged_rank(choices[position], ranks[position])
            if aged == ranks[position]:
                break
            ranks[position] = aged
            lowest = draw_lowest(ranks, draw)
            if lowest is not None:
                position = lowest
        return position

    def _lowest_by_weight(
        self,
        candidates: Sequence[N],
        plan: LoadPlan,
        table: WeightTable,
        draw: Callable[[], float],
        exclude: AbstractSet[int],
    ) -> int | None:
        """Compare what nodes bear per weight; draw among ties by weight."""
        kept = [p for p, index in enumerate(plan.eligible) if index not in exclude]
        indices = [plan.eligible[p] for p in kept]
        found = self._read(candidates, indices, [plan.choices[p] for p in kept], self._load)
        weights = [table.parts[index] for index in indices]
        loads = [load / weight for load, weight in zip(found, weights, strict=True)]
        if table.warm_up is not None:
            paired = zip(indices, loads, strict=True)
            loads = [self._eased(plan, table, index, load) for index, load in paired]
        position = draw_lowest(loads, draw, weights)
        return None if position is None else indices[position]
