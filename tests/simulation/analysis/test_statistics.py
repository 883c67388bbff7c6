"""Intervals: against published tables, and against what they promise."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadwise.simulation.analysis.statistics import (
    Estimate,
    estimate,
    paired_difference,
    paired_ratio,
    t_probability,
    t_quantile,
)

PUBLISHED = {
    1: (3.078, 6.314, 12.706, 31.821, 63.657, 318.309),
    2: (1.886, 2.920, 4.303, 6.965, 9.925, 22.327),
    3: (1.638, 2.353, 3.182, 4.541, 5.841, 10.215),
    4: (1.533, 2.132, 2.776, 3.747, 4.604, 7.173),
    9: (1.383, 1.833, 2.262, 2.821, 3.250, 4.297),
    10: (1.372, 1.812, 2.228, 2.764, 3.169, 4.144),
    29: (1.311, 1.699, 2.045, 2.462, 2.756, 3.396),
    30: (1.310, 1.697, 2.042, 2.457, 2.750, 3.385),
    100: (1.290, 1.660, 1.984, 2.364, 2.626, 3.174),
}
"""NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2, "Critical values of the Student's t
distribution", by degrees of freedom."""
PROBABILITIES = (0.90, 0.95, 0.975, 0.99, 0.995, 0.999)
NORMAL = (1.282, 1.645, 1.960, 2.326, 2.576, 3.090)
"""The last line of the same table, for infinitely many degrees of freedom."""


@pytest.mark.parametrize("degrees", PUBLISHED)
def test_quantiles_are_the_published_ones(degrees: int) -> None:
    """All three decimals of the table are met."""
    found = [round(t_quantile(probability, degrees), 3) for probability in PROBABILITIES]
    assert found == list(PUBLISHED[degrees])


def test_many_degrees_come_close_to_the_normal_distribution() -> None:
    """The limit of the distribution is met to the decimals of the table."""
    found = [round(t_quantile(probability, 20_001), 3) for probability in PROBABILITIES]
    assert found == pytest.approx(NORMAL, abs=0.0011)


@settings(deadline=None)
@given(st.floats(0.5, 0.9999), st.integers(1, 200))
def test_quantile_and_probability_are_inverse(probability: float, degrees: int) -> None:
    """The chance to stay within a quantile is what the quantile was asked for."""
    within = t_probability(t_quantile(probability, degrees), degrees)
    assert (1 + within) / 2 == pytest.approx(probability, abs=1e-12)


@settings(deadline=None)
@given(st.floats(0.001, 0.999), st.integers(1, 50))
def test_quantiles_are_symmetric(probability: float, degrees: int) -> None:
    """The lower quantiles are the upper ones with the other sign."""
    below, above = t_quantile(probability, degrees), t_quantile(1 - probability, degrees)
    assert below == pytest.approx(-above, rel=1e-6, abs=1e-12)


def test_cauchy_distribution() -> None:
    """With one degree of freedom t is Cauchy's: its quantiles are tangents."""
    for probability in (0.5, 0.6, 0.75, 0.99):
        exact = math.tan(math.pi * (probability - 0.5))
        assert t_quantile(probability, 1) == pytest.approx(exact, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(
    ("probability", "degrees", "said"),
    [(0.0, 3, "probability is 0.0"), (1.0, 3, "between 0 and 1"), (0.9, 0, "degrees is 0")],
)
def test_arguments_of_a_quantile(probability: float, degrees: int, said: str) -> None:
    """What has no answer is refused."""
    with pytest.raises(ValueError, match=said):
        t_quantile(probability, degrees)


def test_interval_of_a_published_example() -> None:
    """NIST e-Handbook 1.3.5.2, ZARR13.DAT: n 195, mean 9.261460, deviation 0.022789.

    The handbook gives 9.258242 to 9.264679 for 95 %. A sample with exactly this mean and
    deviation stands for the data.
    """
    n, mean, deviation = 195, 9.261460, 0.022789
    half = (n - 1) // 2
    sample = [mean + deviation] * half + [mean - deviation] * half + [mean]
    found = estimate(sample)
    assert found.low == pytest.approx(9.258242, abs=2e-6)
    assert found.high == pytest.approx(9.264679, abs=2e-6)


def test_single_value_has_no_interval() -> None:
    """One seed gives a mean and nothing about its error."""
    found = estimate([3.5])
    assert found.mean == 3.5
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_unknown_values_make_an_unknown_mean(odd: float) -> None:
    """A seed without a value cannot be left out: it may be the worst of all."""
    found = estimate([1.0, odd, 2.0])
    assert all(math.isnan(bound) for bound in (found.mean, found.low, found.high))


def test_no_values() -> None:
    """Nothing can be estimated from nothing."""
    with pytest.raises(ValueError, match="no value"):
        estimate([])


def test_equal_values_have_an_interval_without_width() -> None:
    """What is the same for each seed has no error."""
    assert estimate([2.0, 2.0, 2.0]) == Estimate(2.0, 2.0, 2.0)


def test_intervals_cover_the_mean_as_often_as_they_promise() -> None:
    """Of 4,000 intervals from five normal values, 95 % cover the true mean.

    The number that do is binomial with a standard deviation of 13.8; five of them are allowed, so
    correct code fails with a probability below 1e-6 (and the seed is fixed).
    """
    rng = Random(11)
    covered = 0
    for _ in range(4000):
        found = estimate(rng.gauss(10.0, 3.0) for _ in range(5))
        covered += found.low <= 10.0 <= found.high
    assert abs(covered - 3800) < 5 * 13.8


def test_pairs_see_what_means_do_not() -> None:
    """What two strategies have in common by seed does not widen the interval of the difference."""
    first = [1.0, 50.0, 900.0, 20.0]
    second = [value + 1 + 0.001 * value for value in first]
    between = paired_difference(first, second)
    assert 0 < between.low < between.mean
    apart = estimate(second).low > estimate(first).high
    assert not apart


def test_ratio_of_pairs() -> None:
    """The mean ratio is the geometric one, and the interval is that of the logarithms."""
    found = paired_ratio([1.0, 10.0], [2.0, 80.0])
    assert found.mean == pytest.approx(4.0)
    half = t_quantile(0.975, 1) * (math.log(8) - math.log(2)) / 2
    assert found.high == pytest.approx(4.0 * math.exp(half))
    assert found.low == pytest.approx(4.0 / math.exp(half))


def test_ratio_that_may_be_anything() -> None:
    """An interval beyond all numbers is infinite and no error."""
    found = paired_ratio([1.0, 1.0], [1.0, 1e30], confidence=0.999)
    assert (found.low, found.high) == (0.0, math.inf)


def test_rounding_is_no_difference() -> None:
    """Sums that differ in their last bits would else be different beyond doubt."""
    first = [1.0, 2.0, 3.0]
    second = [math.nextafter(value, 9.0) for value in first]
    assert paired_difference(first, second) == Estimate(0.0, 0.0, 0.0)
    assert paired_ratio(first, second) == Estimate(1.0, 1.0, 1.0)


def test_unequal_lengths() -> None:
    """Values that have no partner are a mistake."""
    with pytest.raises(ValueError, match="shorter"):
        paired_difference([1.0, 2.0], [1.0])
