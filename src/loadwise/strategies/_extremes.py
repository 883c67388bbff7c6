"""A scan for the best of all, with ties broken at random."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["draw_highest", "draw_lowest"]


def draw_lowest(
    values: Sequence[float],
    draw: Callable[[], float],
    weights: Sequence[float] | None = None,
) -> int | None:
    """Return the position of the lowest value, one at random of several: by weight, if given.

    A NaN counts as infinitely high.
    """
    if not values:
        return None
    lowest = min(values)
    if lowest != lowest:  # noqa: PLR0124 - only NaN differs from itself
        values = [inf if value != value else value for value in values]  # noqa: PLR0124
        lowest = min(values)
    if weights is not None and values.count(lowest) > 1:
        tied = [position for position, value in enumerate(values) if value == lowest]
        sums = list(accumulate([weights[position] for position in tied]))
        return tied[bisect_right(sums, draw() * sums[-1], hi=len(sums) - 1)]
    return _draw_among(values, lowest, draw)


def draw_highest(
    values: Sequence[float], draw: Callable[[], float], within: float = 0.0
) -> int | None:
    """Return the position of the highest value; one at random of those ``within`` of it.

    A NaN counts as infinitely low.
    """
    if not values:
        return None
    highest = max(values)
    if highest != highest:  # noqa: PLR0124
        values = [-inf if value != value else value for value in values]  # noqa: PLR0124
        highest = max(values)
    if not within:
        return _draw_among(values, highest, draw)
    limit = highest - within
    best = [position for position, value in enumerate(values) if value >= limit]
    return best[int(draw() * len(best))]


def _draw_among(values: Sequence[float], best: float, draw: Callable[[], float]) -> int:
    """Return the position of one of the values that equal ``best``."""
    ties = values.count(best)
    if ties == 1:
        return values.index(best)
    if ties == len(values):
        return int(draw() * ties)
    tied = [position for position, value in enumerate(values) if value == best]
    return tied[int(draw() * ties)]
