"""Random draws of an index, uniform or by weight, past those that are excluded."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Any

from loadwise.strategies._planned import none_left

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from loadwise.node_set import NodeSet

__all__ = ["draw_one", "position_besides", "positions_of", "share_of_full"]

_MOST_TRIES = 8


def draw_one(
    eligible: Sequence[int], draw: Callable[[], float], exclude: AbstractSet[int]
) -> int | None:
    """Draw one index uniformly among those not excluded."""
    count = len(eligible)
    # Ahead of any draw, because what declines after one cannot be foretold.
    if none_left(eligible, exclude):
        return None
    for _ in range(_MOST_TRIES):
        index = eligible[int(draw() * count)]
        if index not in exclude:
            return index
    rest = [i for i in eligible if i not in exclude]
    return rest[int(draw() * len(rest))]


def positions_of(indices: Iterable[int], eligible: Sequence[int]) -> list[int]:
    """Return at which positions of ``eligible``, which is ascending, the indices stand, ascending.

    O(log n) for each.
    """
    found: list[int] = []
    for index in sorted(indices):
        position = bisect_left(eligible, index)
        if position < len(eligible) and eligible[position] == index:
            found.append(position)
    return found


def position_besides(sums: Sequence[float], out: Sequence[int], unit: float) -> int:
    """Return a position with a chance proportional to its weight, none of ``out``.

    Args:
        sums: Of the weights up to each position, the position's own included.
        out: Positions to leave out, ascending, and not all there are.
        unit: A float drawn from [0, 1).

    Cost: O(log n), and O(1) for each one to leave out.
    """
    parts = [sums[p] - sums[p - 1] if p else sums[p] for p in out]
    target = unit * max(0.0, sums[-1] - sum(parts))
    for position, part in zip(out, parts, strict=True):
        if sums[position] - part <= target:
            target += part
    found = min(bisect_right(sums, target), len(sums) - 1)
    # Rounding may leave it on one of those.
    while found in out:
        found = (found + 1) % len(sums)
    return found


def share_of_full(nodes: NodeSet[Any]) -> dict[int, float]:
    """Return what part of its full weight each node in slow start has, by index.

    Those that may not be chosen are left out, and where all others are in slow start, too, parts
    are of the largest of theirs. O(nodes in slow start), and O(n) once per view.
    """
    if nodes.warm_up is None:
        return {}
    mask = nodes.mask
    parts = {i: part for i, part in nodes.warm_up.factors.items() if mask[i]}
    if parts and len(parts) == mask.count(1):
        largest = max(parts.values())
        parts = {i: part / largest for i, part in parts.items()}
    return {i: part for i, part in parts.items() if part < 1.0}
