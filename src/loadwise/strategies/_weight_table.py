"""Weights of a membership, added up once for all its views."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from loadwise.strategies._draws import position_besides, positions_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from collections.abc import Set as AbstractSet

    from loadwise._membership import WarmUp
    from loadwise.node_set import NodeSet

__all__ = ["WeightTable", "table_for"]

_LEAST_WEIGHT = 1e-300
"""Of the largest: what a weight too small to divide by is taken as."""
_MOST_HOLES = 512
_LARGE = 256
_MOST_IN_HOLES, _MOST_IN_HOLES_OF_MANY = 1 / 32, 1 / 4
"""Of the weight: as large a part of the draws is repeated. To make a small table is no work."""
_MOST_TRIES = 8


class WeightTable:
    """Weights as parts of the largest, and their sums.

    A few that may not be chosen just now are *holes*: what is drawn there is drawn again. So a node
    that goes down or comes back costs nothing here.

    Args:
        weights: By index.
        indices: Whom the table is of, ascending.
        warm_up: Whose weights those are, where nodes are in slow start.

    Attributes:
        indices: The same.
        warm_up: The same.
        largest: The largest weight.
        parts: The weights as parts of the largest, by index; 0 for those not in the table.
        sums: Of the parts up to each position among ``indices``.

    Immutable, so thread-safe. O(n) to make.
    """

    __slots__ = ("indices", "largest", "parts", "sums", "warm_up")

    def __init__(
        self,
        weights: Sequence[int | float],
        indices: Sequence[int],
        warm_up: WarmUp | None = None,
    ) -> None:
        self.warm_up = warm_up
        mine = [weights[i] for i in indices]
        self.indices = indices
        self.largest = largest = max(mine, default=0)
        # Mostly there are few different ones.
        known = {weight: max(weight / largest, _LEAST_WEIGHT) for weight in set(mine)}
        found = list(map(known.__getitem__, mine))
        self.sums = list(accumulate(found))
        if len(found) < len(weights):
            parts = [0.0] * len(weights)
            for i, part in zip(indices, found, strict=True):
                parts[i] = part
            found = parts
        self.parts = found

    def after(self, nodes: NodeSet[Any], cut: int | None) -> WeightTable | None:
        """Return the table of all of ``nodes``, made from this one of all before one came or went.

        It must be one of full weights, without a slow start.

        Args:
            nodes: The nodes, all of which may be chosen.
            cut: The index of the one that left; ``None`` where one joined at the end.

        Returns:
            ``None`` where the parts are no longer those of the same largest, or this is not the
            table of all.
        """
        size, largest = len(nodes), self.largest
        if len(nodes.eligible) < size or len(self.indices) != len(self.parts):
            return None
        twin = WeightTable.__new__(WeightTable)
        twin.indices, twin.largest, twin.warm_up = nodes.eligible, largest, None
        if cut is None:
            weight = nodes.weights[-1]
            if weight > largest:
                return None
            part = max(weight / largest, _LEAST_WEIGHT)
            twin.parts, twin.sums = [*self.parts, part], [*self.sums, self.sums[-1] + part]
            return twin
        twin.parts = self.parts.copy()
        if twin.parts.pop(cut) == 1.0 and 1.0 not in twin.parts:
            return None
        twin.sums = _summed(self.sums, twin.parts, cut)
        return twin

    def reweighted(self, nodes: NodeSet[Any]) -> WeightTable:
        """Return the table of all the same nodes with the weights that they have in this view.

        Only those in slow start, here or there, are looked at one by one.
        """
        before, after = self.warm_up, nodes.warm_up
        if before is after:
            return self
        changed: set[int] = set()
        for each in (before, after):
            changed.update(() if each is None else each.factors)
        weights, largest = nodes.weights, self.largest
        new = [weights[index] for index in changed]
        if not changed or max(new) > largest or len(self.indices) < len(self.parts):
            return WeightTable(weights, self.indices, after)
        twin = WeightTable.__new__(WeightTable)
        twin.indices, twin.largest, twin.warm_up = self.indices, largest, after
        twin.parts = parts = self.parts.copy()
        for index, weight in zip(changed, new, strict=True):
            parts[index] = max(weight / largest, _LEAST_WEIGHT)
        twin.sums = _summed(self.sums, parts, min(changed))
        return twin

    def holes(self, barred: AbstractSet[int]) -> frozenset[int]:
        """Return the positions of those that may not be chosen. O(barred), times log n at most."""
        if len(self.indices) == len(self.parts):
            return frozenset(barred)
        return frozenset([bisect_left(self.indices, i) for i in barred])

    def positions(self, indices: AbstractSet[int], holes: frozenset[int]) -> list[int]:
        """Return the positions of indices that are no holes, ascending."""
        return [p for p in positions_of(indices, self.indices) if p not in holes]

    def draw(self, out: Sequence[int], holes: frozenset[int], draw: Callable[[], float]) -> int:
        """Draw a position with a chance proportional to its weight, no hole and none of ``out``.

        Args:
            out: Positions to leave out, ascending, beside the holes not all there are.
            holes: Positions to draw again for.
            draw: Draws a float in [0, 1).

        Cost: O(log n), and O(1) for each one to leave out and, rarely, for each hole.
        """
        sums = self.sums
        for _ in range(_MOST_TRIES):
            position = position_besides(sums, out, draw())
            if position not in holes:
                return position
        # Beside the holes there is hardly any weight left.
        return position_besides(sums, sorted(holes.union(out)), draw())


def _summed(sums: list[float], parts: list[float], since: int) -> list[float]:
    """Return the sums of parts that differ from those summed up before from an index on."""
    found = sums[:since]
    rest = parts[since:]
    found += list(accumulate(rest, initial=found.pop())) if since else accumulate(rest)
    return found


def table_for(nodes: NodeSet[Any], known: WeightTable | None) -> tuple[WeightTable, frozenset[int]]:
    """Return a table to draw ``nodes`` from, and the holes in it.

    Which one that is depends on the nodes alone, so that a choice can be foretold.

    Args:
        nodes: What to draw from.
        known: A table of nodes with the same membership, if there is one.

    Cost: O(different weights, and nodes that may not be chosen) where ``known`` will do, else O(n).
    """
    everybody, barred = nodes.membership.eligible, nodes.barred
    if barred is None or not _is_little(barred, nodes):
        return WeightTable(nodes.weights, nodes.eligible, nodes.warm_up), frozenset()
    if known is None or len(known.indices) < len(everybody):
        known = WeightTable(nodes.weights, everybody, nodes.warm_up)
    else:
        known = known.reweighted(nodes)
    return known, known.holes(barred)


def _is_little(barred: AbstractSet[int], nodes: NodeSet[Any]) -> bool:
    """Tell whether those that may not be chosen are few and hold little of the weight."""
    if not barred:
        return True
    if len(barred) > _MOST_HOLES:
        return False
    share = _MOST_IN_HOLES if len(nodes) < _LARGE else _MOST_IN_HOLES_OF_MANY
    total = sum([weight * number for weight, number in nodes.tally.items()])
    return sum([nodes.weights[i] for i in barred]) <= share * total
