"""Least load: the least loaded of all nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random as RandomSource
from typing import Any

from loadwise._native import mypyc_attr
from loadwise.context import EMPTY, SelectionContext
from loadwise.strategies._best import draw_lowest
from loadwise.strategies._draws import check_rng, fork_of, source_of
from loadwise.strategies._loads import Load, LoadPlan, LoadPlanned, as_loads
from loadwise.strategies._planned import N, check_excluded

__all__ = ["LeastLoad"]


@mypyc_attr(allow_interpreted_subclasses=True)
class LeastLoad(LoadPlanned[N]):
    """The least loaded of all nodes; ties uniformly at random.

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
            eligible = tuple(i for i in eligible if i not in context.exclude)
            choices = [plan.items[i] for i in eligible]
        loads: list[float]
        if self._sound:
            loads = list(map(self._key, choices))
        else:
            found: list[Any] = (
                [node.load_score() for node in choices]
                if self._own
                else list(map(self._ask, choices))
            )
            loads = as_loads(found, [candidates[i] for i in eligible])
        position = draw_lowest(loads, draw)
        return None if position is None else eligible[position]
