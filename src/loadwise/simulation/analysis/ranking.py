"""Ranking of contenders by one figure, as far as paired intervals can tell.

Two contenders are compared by the ratios of their values per seed, or by the differences where one
is 0 or they differ in sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from loadwise.simulation.analysis.statistics import (
    CONFIDENCE,
    estimate,
    paired_difference,
    paired_ratio,
)
from loadwise.simulation.analysis.summary import Summary
from loadwise.simulation.runs.result import Result

__all__ = ["Ranking", "confidence_for", "differ", "rank"]

Value = Callable[[Result], float]


@dataclass(frozen=True, slots=True)
class Ranking:
    """The contenders by one figure, the least first.

    Attributes:
        first: The one with the least mean over seeds.
        tied: Those that cannot be told apart from it.
        behind: Those that are higher, as the intervals show.
        unknown: Those without a value for some seed.
        means: Means over seeds, by name.
    """

    first: Summary
    tied: tuple[Summary, ...]
    behind: tuple[Summary, ...]
    unknown: tuple[Summary, ...]
    means: dict[str, float]


def rank(summaries: Sequence[Summary], figure: Value, confidence: float) -> Ranking | None:
    """Return the contenders by a figure of their runs, compared with the first seed by seed.

    Args:
        summaries: The contenders, with the same seeds in the same order.
        figure: What to look at; less is better.
        confidence: That of each interval, such as `confidence_for` gives.

    Returns:
        The ranking; ``None`` when no contender has a value for every seed.
    """
    means = {each.strategy: estimate(map(figure, each.runs)).mean for each in summaries}
    known = [each for each in summaries if math.isfinite(means[each.strategy])]
    if not known:
        return None
    first, *others = sorted(known, key=lambda each: means[each.strategy])
    behind = [each for each in others if _exceeds(first, each, figure, confidence)]
    return Ranking(
        first=first,
        tied=tuple(each for each in others if each not in behind),
        behind=tuple(behind),
        unknown=tuple(each for each in summaries if each not in known),
        means=means,
    )


def differ(one: Summary, other: Summary, figure: Value, confidence: float) -> bool:
    """Tell whether the paired runs show a difference; those of a single seed never do."""
    return _exceeds(one, other, figure, confidence) or _exceeds(other, one, figure, confidence)


def _exceeds(one: Summary, other: Summary, figure: Value, confidence: float) -> bool:
    """Tell whether the interval says that the figure of the other is the higher one."""
    first = [figure(run) for run in one.runs]
    second = [figure(run) for run in other.runs]
    # Bounds that are NaN compare as false.
    if min(*first, *second) > 0:
        return paired_ratio(first, second, confidence).low > 1
    if max(*first, *second) < 0:
        return paired_ratio(first, second, confidence).high < 1
    return paired_difference(first, second, confidence).low > 0


def confidence_for(contenders: int) -> float:
    """Return the confidence of each interval with which all pairs together have 95 %.

    All pairs, and not only those with the first: which one is first is seen from the same runs.
    Bonferroni's inequality: C. E. Bonferroni, "Teoria statistica delle classi e calcolo delle
    probabilita", 1936; O. J. Dunn, "Multiple comparisons among means", 1961.

    Example:
        >>> confidence_for(2), round(confidence_for(5), 6)
        (0.95, 0.995)
    """
    pairs = max(1, len([*combinations(range(contenders), 2)]))
    return 1 - (1 - CONFIDENCE) / pairs
