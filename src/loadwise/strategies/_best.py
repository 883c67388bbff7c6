"""A scan for the best of all, with ties broken at random."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["draw_lowest"]


def draw_lowest(
    values: Sequence[float], draw: Callable[[], float], within: float = 0.0
) -> int | None:
    """Return the position of the lowest value; one at random of those ``within`` of it.

    A NaN counts as infinitely high.
    """
    if not values:
        return None
    lowest = min(values)
    if lowest != lowest:  # noqa: PLR0124 - only NaN differs from itself
        values = [inf if value != value else value for value in values]  # noqa: PLR0124
        lowest = min(values)
    if not within:
        ties = values.count(lowest)
        if ties == 1:
            return values.index(lowest)
        if ties == len(values):
            return int(draw() * ties)
    limit = lowest + within
    best = [position for position, value in enumerate(values) if value <= limit]
    return best[int(draw() * len(best))]
