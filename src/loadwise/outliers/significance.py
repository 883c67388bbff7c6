"""Significance of a difference between one node and the rest: Fisher's exact test.

If all nodes were alike, each result would be as likely on one of them as on any other: the failures
that were seen would be spread over the nodes like marked balls drawn from an urn. How likely it is
that so many of them fell on one node is then counted, by the hypergeometric distribution. That is
exact for few results, too, and needs no guess of the true failure rate: with the two or three
failures that a healthy fleet has in an interval, a normal approximation would be off by orders of
magnitude, and a rate of 0 would make every single failure significant.

Source: R. A. Fisher, "On the interpretation of chi-squared from contingency tables, and the
calculation of P", 1922.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["chance_of_run", "chance_of_share"]

_NEGLIGIBLE: Final = 1e-12


def chance_of_share(
    bad: int, total: int, bad_of_rest: int, rest: int, enough: float = 1.0
) -> float:
    """Return the chance that so many of all bad results, or more, fall on a node like the rest.

    Args:
        bad: The node's bad results.
        total: All its results, >= ``bad``.
        bad_of_rest: The bad results of all others.
        rest: All results of the others, >= ``bad_of_rest``.
        enough: A chance from which on it need not be known exactly.

    Returns:
        The chance, or a lower bound of it that is at least ``enough``; 1 for a node that does no
        worse than the rest.

    Cost: one step for each number of bad results that adds to the chance; few where it is small, or
    soon ``enough``.

    Example:
        The lady tasting tea: all four cups that she called right, of eight.

        >>> round(chance_of_share(4, 4, 0, 4), 4)  # 1 of 70
        0.0143
        >>> chance_of_share(1, 10, 10, 100)
        1.0
    """
    marked, everything = bad + bad_of_rest, total + rest
    if bad * everything <= total * marked:
        return 1.0
    most = min(total, marked)
    term = math.exp(
        _choices(marked, bad)
        + _choices(everything - marked, total - bad)
        - _choices(everything, total)
    )
    chance = term
    while bad < most and chance < enough and term > chance * _NEGLIGIBLE:
        # From one number of bad results to the next.
        term *= (marked - bad) * (total - bad)
        bad += 1
        term /= bad * (everything - marked - total + bad)
        chance += term
    return min(1.0, chance)


def chance_of_run(length: int, bad_of_rest: int, rest: int) -> float:
    """Return the chance that a node like the rest fails so many times in a row, from now on.

    Args:
        length: Failures in a row.
        bad_of_rest: The bad results of all others.
        rest: All results of the others; of none nothing can be said, and the chance is 1.

    Cost: O(``length``).

    Example:
        >>> chance_of_run(5, 0, 0)
        1.0
        >>> round(chance_of_run(2, 1, 2), 3)  # 3 of 4 are bad: 3/4 of 2/3
        0.5
    """
    chance = 1.0
    for more in range(length):
        chance *= (bad_of_rest + length - more) / (rest + length - more)
    return chance


def _choices(among: int, number: int) -> float:
    """Return the logarithm of the number of ways to choose ``number`` things."""
    return math.lgamma(among + 1) - math.lgamma(number + 1) - math.lgamma(among - number + 1)
