"""Statistics of a handful of runs: means with confidence intervals, and paired differences.

Runs with different seeds are independent, so Student's t holds for the mean over them; runs of two
strategies with the same seed see the same requests, so what differs between the two is judged by
the differences per seed, which vary far less than the values do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev

__all__ = [
    "CONFIDENCE",
    "Estimate",
    "estimate",
    "paired_difference",
    "paired_ratio",
    "t_probability",
    "t_quantile",
]

CONFIDENCE = 0.95
"""The chance that an interval covers the true mean, unless another one is asked for."""

_NOISE = 1e-9
"""Differences smaller than this share of the values come from the rounding of sums."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds with its 95 % confidence interval; the bounds are NaN with one seed.

    Attributes:
        mean: The mean; NaN when there is no value for some seed.
        low: Lower bound of the interval.
        high: Upper bound of the interval.
    """

    mean: float
    low: float
    high: float


def estimate(values: Iterable[float], confidence: float = CONFIDENCE) -> Estimate:
    """Return the mean of independent values and its confidence interval by Student's t.

    Args:
        values: One value per seed. Where one of them is NaN, nothing is known of their mean.
        confidence: The chance that the interval covers the true mean, between 0 and 1.

    Raises:
        ValueError: There is no value.

    Example:
        >>> e = estimate([2.0, 3.0, 4.0])
        >>> f"{e.mean:.3f} from {e.low:.3f} to {e.high:.3f}"
        '3.000 from 0.516 to 5.484'
    """
    sample = [*values]
    if not sample:
        raise ValueError("there is no value to estimate a mean from")
    if not all(map(math.isfinite, sample)):
        return Estimate(math.nan, math.nan, math.nan)
    mean = fmean(sample)
    if len(sample) == 1:
        return Estimate(mean, math.nan, math.nan)
    degrees = len(sample) - 1
    half = t_quantile((1 + confidence) / 2, degrees) * stdev(sample) / math.sqrt(len(sample))
    return Estimate(mean, mean - half, mean + half)


def paired_difference(
    first: Sequence[float], second: Sequence[float], confidence: float = CONFIDENCE
) -> Estimate:
    """Return by how much the second exceeds the first, seed by seed, with its interval.

    What two runs with the same seed have in common, such as a burst of requests, is in both
    values and not in their difference, so fewer seeds are needed to see what differs.

    Args:
        first: One value per seed.
        second: One value for each of the same seeds.
        confidence: The chance that the interval covers the true difference, between 0 and 1.

    Raises:
        ValueError: They are not equally many, or there is none.

    Example:
        >>> e = paired_difference([1.0, 5.0, 9.0], [1.9, 6.0, 10.1])
        >>> f"{e.mean:.2f} from {e.low:.2f} to {e.high:.2f}"
        '1.00 from 0.75 to 1.25'
    """
    pairs = zip(first, second, strict=True)
    return estimate((0.0 if _alike(a, b) else b - a for a, b in pairs), confidence)


def paired_ratio(
    first: Sequence[float], second: Sequence[float], confidence: float = CONFIDENCE
) -> Estimate:
    """Return how many times the first the second is, seed by seed, with its interval.

    The geometric mean of the ratios: what makes one seed twice as slow as another mostly does so
    with both, and ratios spread less than differences.

    Args:
        first: One value per seed, none of them 0.
        second: One value for each of the same seeds, of the same sign.
        confidence: The chance that the interval covers the true ratio, between 0 and 1.

    Raises:
        ValueError: They are not equally many, there is none, or a ratio is not above 0.

    Example:
        >>> e = paired_ratio([1.0, 5.0, 9.0], [2.1, 9.5, 18.0])
        >>> f"{e.mean:.2f} from {e.low:.2f} to {e.high:.2f}"
        '2.00 from 1.76 to 2.26'
    """
    pairs = zip(first, second, strict=True)
    logs = estimate((0.0 if _alike(a, b) else math.log(b / a) for a, b in pairs), confidence)
    return Estimate(_exp(logs.mean), _exp(logs.low), _exp(logs.high))


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _alike(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=_NOISE)


def t_probability(t: float, degrees: int) -> float:
    """Return the chance that Student's t stays between ``-t`` and ``t``.

    Args:
        t: The bound, 0 or greater.
        degrees: Degrees of freedom, a whole number of 1 or more. The cost grows with it.

    The closed forms for whole degrees of freedom: M. Abramowitz and I. Stegun, "Handbook of
    Mathematical Functions", 26.7.3 and 26.7.4.

    Example:
        >>> round(t_probability(1.0, 1), 12), round(t_probability(2.7764451052, 4), 10)
        (0.5, 0.95)
    """
    return _within(math.atan(t / math.sqrt(degrees)), degrees)


def _within(angle: float, degrees: int) -> float:
    """The same for a bound given as the angle whose tangent is ``t / sqrt(degrees)``."""
    odd = degrees % 2
    cosine = math.cos(angle)
    term = cosine if odd else 1.0
    series = term if degrees > 1 else 0.0
    for k in range(2 + odd, degrees - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        series += term
    partial = math.sin(angle) * series
    return (angle + partial) * 2 / math.pi if odd else partial


@cache
def t_quantile(probability: float, degrees: int) -> float:
    """Return the value that Student's t stays below with this probability.

    Args:
        probability: Between 0 and 1, both excluded.
        degrees: Degrees of freedom, a whole number of 1 or more.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> round(t_quantile(0.975, 4), 3), round(t_quantile(0.05, 9), 3)
        (2.776, -1.833)
    """
    if not 0 < probability < 1:
        raise ValueError(f"probability is {probability!r}; it must be between 0 and 1")
    if degrees < 1:
        raise ValueError(f"degrees is {degrees!r}; it must be 1 or more")
    if probability < 0.5:  # noqa: PLR2004 - one half: the distribution is symmetric
        return -t_quantile(1 - probability, degrees)
    # The angle has bounds where t has none, and the chance grows with it.
    wanted = 2 * probability - 1
    low, high = 0.0, math.pi / 2
    while low < (middle := (low + high) / 2) < high:
        if _within(middle, degrees) < wanted:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan(low)
