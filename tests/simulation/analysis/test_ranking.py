"""Who is best by one measure: only what paired intervals tell."""

from __future__ import annotations

import math
from random import Random

import pytest
from tests.simulation.results import summary

from loadwise.simulation.analysis.ranking import confidence_for, differ, rank
from loadwise.simulation.analysis.summary import Summary
from loadwise.simulation.figures import ERRORS
from loadwise.simulation.runs.result import Result


def mean_latency(run: Result) -> float:
    """Return the figure that these tests rank by."""
    return run.latency.mean


def names(summaries: tuple[Summary, ...]) -> list[str]:
    """Return what they are called."""
    return [each.strategy for each in summaries]


def test_clear_order() -> None:
    """Each strategy that is slower with every seed, by far, is behind."""
    found = rank(
        [
            summary("slow", [4.0, 4.1, 4.2]),
            summary("quick", [1.0, 1.1, 1.05]),
            summary("middle", [2.0, 2.1, 2.2]),
        ],
        mean_latency,
        0.95,
    )
    assert found is not None
    assert found.first.strategy == "quick"
    assert names(found.behind) == ["middle", "slow"]
    assert names(found.tied) == []


def test_seeds_that_disagree_make_a_tie() -> None:
    """A mean that is lower by chance is no difference."""
    found = rank(
        [summary("a", [1.0, 2.0, 3.0, 1.5]), summary("b", [2.0, 1.0, 3.1, 1.6])],
        mean_latency,
        0.95,
    )
    assert found is not None
    assert names(found.tied) == ["b"]
    assert names(found.behind) == []


def test_common_ups_and_downs_do_not_hide_a_difference() -> None:
    """Seeds differ by a factor of 100, strategies by 10 %: seed by seed that is plain."""
    seeds = [1.0, 100.0, 7.0, 30.0]
    found = rank(
        [
            summary("a", seeds),
            summary("b", [value * (1.1 + 0.001 * i) for i, value in enumerate(seeds)]),
        ],
        mean_latency,
        0.95,
    )
    assert found is not None
    assert names(found.behind) == ["b"]


def test_unknown_values_are_not_ranked() -> None:
    """A strategy without a completed request in some run is neither quick nor slow."""
    found = rank([summary("none", [math.nan, 1.0]), summary("a", [2.0, 2.0])], mean_latency, 0.95)
    assert found is not None
    assert found.first.strategy == "a"
    assert names(found.unknown) == ["none"]
    assert rank([summary("none", [math.nan, 1.0])], mean_latency, 0.95) is None


def test_figures_where_more_is_better() -> None:
    """The negative of a figure ranks the highest first."""
    found = rank(
        [summary("a", [1.0, 1.1, 1.2]), summary("b", [5.0, 5.2, 5.1])],
        lambda run: -run.latency.mean,
        0.95,
    )
    assert found is not None
    assert found.first.strategy == "b"
    assert names(found.behind) == ["a"]


def test_zeros_are_compared_by_difference() -> None:
    """There is no ratio to nothing; shares of errors are often that."""
    good = summary("good", [1.0] * 4)
    bad = summary("bad", [1.0] * 4, failed=[50, 52, 51, 50])
    assert differ(good, bad, ERRORS.less, 0.95)
    assert differ(bad, good, ERRORS.less, 0.95)
    rare = summary("rare", [1.0] * 4, failed=[1, 0, 0, 0])
    assert not differ(good, rare, ERRORS.less, 0.95)


def test_one_seed_shows_no_difference() -> None:
    """However far apart two single runs are."""
    assert not differ(summary("a", [1.0]), summary("b", [1e6]), mean_latency, 0.95)


@pytest.mark.parametrize(("contenders", "confidence"), [(1, 0.95), (2, 0.95), (5, 0.995)])
def test_all_pairs_share_the_error(contenders: int, confidence: float) -> None:
    """Bonferroni: 5 % in all, divided by the number of pairs."""
    assert confidence_for(contenders) == pytest.approx(confidence)


def test_equal_strategies_are_rarely_told_apart() -> None:
    """Of 400 comparisons of five equal strategies, at most 5 % show a difference.

    Noise is lognormal and common ups and downs are large. The number of false claims is binomial
    with a mean of at most 20 and a deviation of 4.4; 45 are allowed, so correct code fails with
    a probability below 1e-6 (and the seed is fixed).
    """
    rng = Random(5)
    confidence = confidence_for(5)
    claims = 0
    for _ in range(400):
        seeds = [rng.lognormvariate(0.0, 1.0) for _ in range(4)]
        contenders = [
            summary(name, [value * rng.lognormvariate(0.0, 0.2) for value in seeds])
            for name in "abcde"
        ]
        found = rank(contenders, mean_latency, confidence)
        assert found is not None
        claims += bool(found.behind)
    assert 0 < claims <= 45
