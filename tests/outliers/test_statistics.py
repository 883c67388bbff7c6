"""How soon an outlier is found, and how seldom equal nodes are taken for one.

Seeds are fixed; each docstring says with what probability the test would fail by chance with
another.
"""

from __future__ import annotations

from bisect import bisect
from itertools import accumulate
from math import comb
from random import Random

from tests.outliers.fleet import OutlierFleet

from loadwise import FailureShare, SuccessRate
from loadwise.outliers.rules import Sample

SWEEPS = 10_000
NODES = 10
REQUESTS = 100
SIGNIFICANCE = 0.001


class Failing:
    """Draws how many of 100 requests fail."""

    def __init__(self, share: float, seed: int) -> None:
        chances = [
            comb(REQUESTS, bad) * share**bad * (1 - share) ** (REQUESTS - bad)
            for bad in range(REQUESTS + 1)
        ]
        self._sums = list(accumulate(chances))
        self._draw = Random(seed).random

    def sample(self) -> Sample:
        """Return the results of a node in an interval."""
        bad = min(bisect(self._sums, self._draw()), REQUESTS)
        return Sample(REQUESTS - bad, bad)


def alarms(significance: float | None, seed: int) -> int:
    """In how many sweeps of ten nodes that each fail 20 % some node is taken for an outlier."""
    failing, rules = Failing(0.2, seed), (SuccessRate(), FailureShare())
    return sum(
        any(rule.find(samples, significance) for rule in rules)
        for samples in ([failing.sample() for _ in range(NODES)] for _ in range(SWEEPS))
    )


def test_equal_nodes_are_left_alone() -> None:
    """In 10,000 sweeps of ten nodes at 20 %, at most 20 false alarms.

    At most 10 are expected, by Bonferroni; with that many a Poisson count exceeds 20 with
    probability 0.0016. Envoy's rule alone is wrong in about a quarter of the sweeps.
    """
    assert alarms(SIGNIFICANCE, seed=1) <= 20
    assert 0.15 < alarms(None, seed=1) / SWEEPS < 0.5


def test_below_the_fewest_nodes_the_test_alone_is_as_careful() -> None:
    """In 10,000 sweeps of three nodes at 20 %, at most 20 false alarms; as above."""
    failing, rule = Failing(0.2, seed=2), SuccessRate()
    found = sum(
        bool(rule.find([failing.sample() for _ in range(3)], SIGNIFICANCE)) for _ in range(SWEEPS)
    )
    assert 0 < found <= 20


def test_a_gray_failure_is_found_in_the_first_sweep_with_100_requests() -> None:
    """One of ten nodes fails 20 %, the others 0.1 %: it is out after 1,000 requests.

    With one failure at the others, 5 of 100 are enough, with two 6: a sweep misses it with a
    probability of 1e-5, and so more than one of 1,000 with 5e-5. At most one of 1,000 is expected
    to find somebody else: more than 5 with a probability of 0.0006.
    """
    bad, good, rule = Failing(0.2, seed=3), Failing(0.001, seed=4), SuccessRate()
    missed = wrong = 0
    for _ in range(1000):
        samples = [good.sample() for _ in range(NODES - 1)] + [bad.sample()]
        found = [each.which for each in rule.find(samples, SIGNIFICANCE)]
        missed += NODES - 1 not in found
        wrong += any(which != NODES - 1 for which in found)
    assert missed <= 1
    assert wrong <= 5


def test_runs_of_equal_nodes_are_left_alone() -> None:
    """30 sweeps of ten nodes at 20 %, 100 requests each, by a real balancer: no false alarm.

    All rules together are wrong in a sweep with a probability of at most 0.003: more than 2 of 30
    with one of 0.0001. As Envoy, it ejects nodes all the time.
    """
    counts = list[int]()
    for significance in (SIGNIFICANCE, None):
        fleet = OutlierFleet(
            "abcdefghij",
            significance=significance,
            max_ejected=0.0,
            base_ejection=1.0,
            max_ejection=1.0,
            probe=False,
        )
        draw, times = Random(5).random, 0
        for sweep in range(1, 31):
            for _ in range(REQUESTS):
                for node in "abcdefghij":
                    fleet.load(node, bad=1) if draw() < 0.2 else fleet.load(node, good=1)
            fleet.at(10.0 * sweep)
            times += bool(fleet.out)
            fleet.at(10.0 * sweep + 5.0)
        counts.append(times)
    assert counts[0] <= 2
    assert counts[1] > 5


def test_a_dead_node_is_out_after_five_failures() -> None:
    """A node that is dead while the others are well is out at its fifth failure in a row.

    Once the others have answered 20 requests: five of five bad, none of twenty, has a chance of 1
    in 53,130, and with 25 places for the run to begin, 0.0005.
    """
    fleet = OutlierFleet("abc", success_rate=None, failure_share=None)
    fleet.load("a", good=10)
    fleet.load("b", good=10)
    fleet.load("c", bad=4)
    assert fleet.out == ""
    fleet.load("c", bad=1)
    assert fleet.out == "c"


def test_a_run_needs_a_rest_that_does_better() -> None:
    """It is judged at each failure, by what is known of the others by then.

    Of 10 others none has failed: a run of 6 has a chance of 1 in 8,008, times 16 places; one of 7
    has 1 in 19,448, times 17. Others that fail half their requests do no better for long.
    """
    fleet = OutlierFleet("ab", success_rate=None, failure_share=None)
    fleet.load("a", good=10)
    fleet.load("b", bad=6)
    assert fleet.out == ""
    fleet.load("b", bad=1)
    assert fleet.out == "b"
    fleet = OutlierFleet("ab", success_rate=None, failure_share=None)
    for _ in range(100):
        fleet.load("a", good=1, bad=1)
    fleet.load("b", bad=9)
    assert fleet.out == ""
    fleet = OutlierFleet("ab", success_rate=None, failure_share=None)
    fleet.load("b", bad=1000)
    assert fleet.out == ""
