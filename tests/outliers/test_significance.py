"""Fisher's exact test, against published values and against counting by hand."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadwise.outliers.significance import chance_of_run, chance_of_share

COUNTS = st.integers(0, 40)


def exactly(bad: int, total: int, bad_of_rest: int, rest: int) -> Fraction:
    """The same chance in whole numbers: all ways to choose the bad results, counted."""
    marked, everything = bad + bad_of_rest, total + rest
    ways = sum(
        math.comb(total, here) * math.comb(rest, marked - here)
        for here in range(bad, min(marked, total) + 1)
    )
    return Fraction(ways, math.comb(everything, marked))


@pytest.mark.parametrize(
    ("table", "chance"),
    [
        ((4, 4, 0, 4), 0.014286),
        ((3, 4, 1, 4), 0.242857),
        ((10, 13, 2, 17), 0.000465),
    ],
)
def test_published_values(table: tuple[int, int, int, int], chance: float) -> None:
    """The lady tasting tea, and the convictions of like-sex twins of criminals.

    R. A. Fisher, The Design of Experiments (1935), and "The logic of inductive inference", Journal
    of the Royal Statistical Society 98 (1935): of 13 monozygotic twins 10 were convicted, of 17
    dizygotic ones 2.
    """
    assert chance_of_share(*table) == pytest.approx(chance, rel=1e-3)


@given(bad=COUNTS, good=COUNTS, bad_of_rest=COUNTS, good_of_rest=COUNTS)
def test_it_is_exact(bad: int, good: int, bad_of_rest: int, good_of_rest: int) -> None:
    """Whatever the counts, where the node does worse than the rest; else the chance is 1."""
    table = bad, bad + good, bad_of_rest, bad_of_rest + good_of_rest
    if bad * (bad_of_rest + good_of_rest) > bad_of_rest * (bad + good):
        assert chance_of_share(*table) == pytest.approx(float(exactly(*table)), rel=1e-9)
    else:
        assert chance_of_share(*table) == 1.0


@given(
    bad=COUNTS, good=COUNTS, bad_of_rest=COUNTS, good_of_rest=COUNTS, enough=st.floats(1e-9, 1.0)
)
def test_it_stops_when_it_is_enough(
    bad: int, good: int, bad_of_rest: int, good_of_rest: int, enough: float
) -> None:
    """It tells on which side of the bound the chance lies, and never too much."""
    table = bad, bad + good, bad_of_rest, bad_of_rest + good_of_rest
    whole = chance_of_share(*table)
    found = chance_of_share(*table, enough)
    assert found <= whole * (1 + 1e-9)
    assert (found < enough) == (whole < enough) or whole == pytest.approx(enough)


def test_large_counts() -> None:
    """A million requests are no trouble, for what is likely is not counted to its end."""
    assert chance_of_share(510_000, 1_000_000, 4_500_000, 9_000_000) < 1e-50
    assert chance_of_share(100_100, 1_000_000, 900_000, 9_000_000, 1e-4) >= 1e-4


@given(length=st.integers(1, 6), bad=st.integers(0, 4), good=st.integers(0, 4))
def test_a_run_is_the_first_of_all_orders(length: int, bad: int, good: int) -> None:
    """Of all ways to put the bad results among all, so many begin with the run."""
    everything, marked = length + bad + good, length + bad
    ways = list(combinations(range(everything), marked))
    begin = sum(set(range(length)) <= set(way) for way in ways)
    assert chance_of_run(length, bad, bad + good) == pytest.approx(begin / len(ways))


def test_of_an_empty_rest_nothing_can_be_said() -> None:
    """A node alone, or among nodes without requests, does no worse than the rest."""
    assert chance_of_run(1000, 0, 0) == 1.0
    assert chance_of_share(100, 100, 0, 0) == 1.0
