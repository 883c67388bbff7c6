"""Weighted random: every node with a chance proportional to its weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from random import Random as RandomSource
from typing import Any, ClassVar, Final

from loadwise._native import mypyc_attr
from loadwise._random import check_rng, fork_of, source_of
from loadwise.context import EMPTY, SelectionContext
from loadwise.node_set import NodeSet
from loadwise.strategies._planned import N, Plan, Planned, check_excluded, none_left
from loadwise.strategies._requirements import require_weights
from loadwise.strategies._weight_table import WeightTable, table_for

__all__ = ["WeightedRandom"]

_MOST_TRIES = 16
_NOBODY: Final = b"\0"


@mypyc_attr(allow_interpreted_subclasses=True)
class _AliasTable(Plan[None]):
    """An alias table: cell c holds its own index with chance ``keep[c]``, else ``alias[c]``.

    Attributes:
        table: The weights; its positions are the cells.
        holes: Cells of those that may not be chosen.
        cells: The index of each cell.
        keep: The chance of each cell's own index.
        alias: The other index of each cell.
        width: How many cells there are.
        mask: By index, 1 where it may be chosen.
        by_sums: Whether the sums are drawn from, not the cells: then there is but one, in which
            nobody may be chosen. A slow start changes the weights too often for new cells.
    """

    __slots__ = ("alias", "by_sums", "cells", "holes", "keep", "mask", "table", "width")

    alias: list[int]
    cells: Sequence[int]
    keep: list[float]
    mask: bytes
    table: WeightTable

    def __init__(self, nodes: NodeSet[Any], before: _AliasTable | None) -> None:
        super().__init__(nodes, None)
        self._lay_out(nodes, before)

    def _lay_out(self, nodes: NodeSet[Any], before: _AliasTable | None) -> None:
        """Take over what a plan for the same nodes has, if it will do, or make it."""
        table, self.holes = table_for(nodes, None if before is None else before.table)
        self.table = table
        self.by_sums = nodes.warm_up is not None
        if self.by_sums:
            self.mask, self.cells, self.width = _NOBODY, (0,), 1
            self.keep, self.alias = [1.0], [0]
            return
        self.mask, self.cells, self.width = nodes.mask, table.indices, len(table.indices)
        if before is not None and before.table is table:
            self.keep, self.alias = before.keep, before.alias
            return
        self.keep, cells = alias_table([nodes.weights[i] for i in self.cells])
        self.alias = list(map(self.cells.__getitem__, cells))

    def patched(self, nodes: NodeSet[Any], gone: Sequence[int], back: Sequence[int]) -> _AliasTable:
        """Return the plan for the same nodes with a few others eligible; see `Planned`."""
        twin = _AliasTable.__new__(_AliasTable)
        twin.follow(self, gone, back)
        twin._lay_out(nodes, self)  # noqa: SLF001 - its own
        return twin


@mypyc_attr(allow_interpreted_subclasses=True)
class WeightedRandom(Planned[N, None, _AliasTable]):
    """Every node with a chance proportional to its weight.

    Use it when nodes differ in size and many clients share them: clients cannot fall into step
    as they can with a weighted round robin. Needs `Weighted` nodes.

    Args:
        rng: Source of randomness; ``None`` for the shared one of the `random` module.

    Raises:
        TypeError: ``rng`` cannot be drawn from; at the pick, when a node has no ``weight``.

    Thread-safety: lock-free.

    Cost: O(1) expected per pick, whatever the weights; O(n) once per membership. A few nodes that
    may not be chosen, of at most a quarter of the weight, are holes in the table, which are drawn
    again; where they are more, another table is made, O(n).

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

    def _make_plan(self, nodes: NodeSet[N], state: None) -> _AliasTable:  # noqa: ARG002 - see Planned
        if not nodes.membership.eligible:
            return _AliasTable(nodes, None)
        source, plan = self._hot
        return _AliasTable(nodes, plan if source.membership is nodes.membership else None)

    def _patch(
        self, before: _AliasTable, nodes: NodeSet[N], gone: list[int], back: list[int]
    ) -> _AliasTable:
        return before.patched(nodes, gone, back)

    def select(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return the index drawn, or ``None`` when none may be chosen."""
        source, plan = self._hot
        if source is not candidates:
            plan = self._resolve(candidates)
        elif not context.exclude:
            random = self._random  # self._random() would look it up as a method, the slow way
            point = random() * plan.width
            cell = int(point)
            index = plan.cells[cell] if point - cell < plan.keep[cell] else plan.alias[cell]
            if plan.mask[index]:
                return index
            if plan.by_sums:  # of one cell, so this is the first draw
                return _draw(plan, chain((point,), iter(random, None)).__next__, context)
        return _draw(plan, self._random, context)

    def peek(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return what `select` would return, without drawing."""
        return _draw(self._glance(candidates), fork_of(self._rng), context)

    def facts(self, nodes: NodeSet[N]) -> Mapping[str, Sequence[float]]:
        """Return the weights."""
        return {"weight": nodes.weights}


def _draw(plan: _AliasTable, draw: Callable[[], float], context: SelectionContext) -> int | None:
    exclude = context.exclude
    check_excluded(exclude, plan.size)
    if none_left(plan.eligible, exclude):
        return None
    for _ in range(0 if plan.by_sums else _MOST_TRIES):
        point = draw() * plan.width
        cell = int(point)
        index = plan.cells[cell] if point - cell < plan.keep[cell] else plan.alias[cell]
        if plan.mask[index] and index not in exclude:
            return index
    # There are no cells, or the excluded hold nearly all the weight.
    table, holes = plan.table, plan.holes
    return table.indices[table.draw(table.positions(exclude, holes), holes, draw)]


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
