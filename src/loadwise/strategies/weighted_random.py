"""Weighted random: every node with a chance proportional to its weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random as RandomSource
from typing import Any, ClassVar

from loadwise._native import mypyc_attr
from loadwise.context import EMPTY, SelectionContext
from loadwise.node_set import NodeSet
from loadwise.strategies._draws import check_rng, fork_of, source_of
from loadwise.strategies._planned import N, Plan, Planned, check_excluded, none_left
from loadwise.strategies._requirements import require_weights

__all__ = ["WeightedRandom"]

_MOST_TRIES = 16


class _Plan(Plan[None]):
    """An alias table: cell c holds its own index with chance ``keep[c]``, else ``alias[c]``."""

    __slots__ = ("alias", "keep", "weights")

    def __init__(self, nodes: NodeSet[Any]) -> None:  # only weights and indices matter
        super().__init__(nodes, None)
        self.weights = nodes.weights
        self.keep, cells = alias_table([nodes.weights[i] for i in self.eligible])
        self.alias = [self.eligible[cell] for cell in cells]


@mypyc_attr(allow_interpreted_subclasses=True)
class WeightedRandom(Planned[N, None, _Plan]):
    """Every node with a chance proportional to its weight.

    Use it when nodes differ in size and many clients share them: clients cannot fall into step
    as they can with a weighted round robin. Needs `Weighted` nodes.

    Args:
        rng: Source of randomness; ``None`` for the shared one of the `random` module.

    Raises:
        TypeError: ``rng`` cannot be drawn from; at the pick, when a node has no ``weight``.

    Thread-safety: lock-free.

    Cost: O(1) per pick, whatever the weights; O(n) once per snapshot.

    Source: M. Vose, "A linear algorithm for generating random numbers with a given distribution",
    IEEE Transactions on Software Engineering 17(9), 1991.

    Example:
        >>> import random
        >>> from loadwise import Endpoint
        >>> nodes = NodeSet([Endpoint("big", weight=3), Endpoint("small", weight=1)])
        >>> draws = WeightedRandom(rng=random.Random(1))
        >>> picks = [nodes[draws.select(nodes)].id for _ in range(1000)]
        >>> 700 < picks.count("big") < 800
        True
    """

    takes_any: ClassVar[bool] = True

    def __init__(self, rng: RandomSource | None = None) -> None:
        check_rng(rng)
        self._rng = rng
        self._random = source_of(rng)
        super().__init__()

    def _make_state(self, nodes: NodeSet[N]) -> None:
        require_weights(nodes, self)

    def _make_plan(self, nodes: NodeSet[N], state: None) -> _Plan:  # noqa: ARG002 - see Planned
        return _Plan(nodes)

    def select(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return the index drawn, or ``None`` when none may be chosen."""
        source, plan = self._hot
        if source is not candidates:
            plan = self._resolve(candidates)
        elif not context.exclude:
            random = self._random  # self._random() would look it up as a method, the slow way
            point = random() * plan.count
            cell = int(point)
            return plan.eligible[cell] if point - cell < plan.keep[cell] else plan.alias[cell]
        return _draw(plan, self._random, context)

    def peek(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return what `select` would return, without drawing."""
        return _draw(self._glance(candidates), fork_of(self._rng), context)

    def facts(self, nodes: NodeSet[N]) -> Mapping[str, Sequence[float]]:
        """Return the weights."""
        return {"weight": nodes.weights}


def _draw(plan: _Plan, draw: Callable[[], float], context: SelectionContext) -> int | None:
    exclude = context.exclude
    check_excluded(exclude, plan.size)
    if none_left(plan.eligible, exclude):
        return None
    for _ in range(_MOST_TRIES):
        point = draw() * plan.count
        cell = int(point)
        index = plan.eligible[cell] if point - cell < plan.keep[cell] else plan.alias[cell]
        if index not in exclude:
            return index
    # The excluded hold nearly all the weight: draw among the others in one pass.
    rest = [i for i in plan.eligible if i not in exclude]
    target = draw() * sum(plan.weights[i] for i in rest)
    for index in rest:
        target -= plan.weights[index]
        if target < 0:
            return index
    return rest[-1]


def alias_table(weights: Sequence[int | float]) -> tuple[list[float], list[int]]:
    """Return Vose's alias table: the chance to keep each cell, and the cell to take otherwise."""
    count = len(weights)
    keep = [1.0] * count
    alias = list(range(count))
    if not count:
        return keep, alias
    largest = max(weights)
    shares = [weight / largest for weight in weights]  # so that the sum cannot overflow
    mean = sum(shares) / count
    scaled = [share / mean for share in shares]
    small = [cell for cell, share in enumerate(scaled) if share < 1.0]
    large = [cell for cell, share in enumerate(scaled) if share >= 1.0]
    while small and large:
        cell, donor = small.pop(), large[-1]
        keep[cell] = scaled[cell]
        alias[cell] = donor
        scaled[donor] -= 1.0 - scaled[cell]
        if scaled[donor] < 1.0:
            small.append(large.pop())
    return keep, alias
