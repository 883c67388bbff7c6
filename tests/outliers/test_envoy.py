"""Outlier ejection as Envoy has it: the cases of its ``outlier_detection_impl_test.cc``."""

from __future__ import annotations

from typing import Any

import pytest
from tests.outliers.fleet import OutlierFleet

from loadwise import FailureShare, SuccessRate

AS_ENVOY: dict[str, Any] = {"significance": None, "probe": False}
RUNS_ONLY: dict[str, Any] = {**AS_ENVOY, "success_rate": None, "failure_share": None}
SHARES_ONLY: dict[str, Any] = {**AS_ENVOY, "consecutive_failures": None}


@pytest.mark.parametrize("significance", [None, 0.001])
def test_success_rate(significance: float | None) -> None:
    """BasicFlowSuccessRateExternalOrigin: rates 100 x 4 and 50, mean 90, threshold 52.

    It is back at the first sweep 30 s later. Then 50 requests, half of them bad, are too few.
    """
    fleet = OutlierFleet("abcde", **{**SHARES_ONLY, "significance": significance})
    for node in "abcde":
        fleet.load(node, good=200)
    fleet.load("e", bad=200)
    assert fleet.out == ""
    fleet.at(10.0)
    assert fleet.out == fleet.down == "e"
    assert fleet.reason("e") == "ejected: success rate 50 % is below 52 % (mean 90 %, 5 nodes)"
    fleet.at(19.999)
    assert fleet.out == "e"
    fleet.at(50.001)
    assert fleet.out == fleet.down == ""
    for node in "abcde":
        fleet.load(node, good=25)
    fleet.load("e", bad=25)
    fleet.at(60.001)
    assert fleet.out == ""


@pytest.mark.parametrize("significance", [None, 0.001])
def test_failure_percentage(significance: float | None) -> None:
    """BasicFlowFailurePercentageExternalOrigin: 300 of 350 is out, 250 of 300 is not."""
    options = {**SHARES_ONLY, "success_rate": None, "significance": significance}
    fleet = OutlierFleet("abcde", **options)
    for node in "abcde":
        fleet.load(node, good=50)
    fleet.load("d", bad=250)
    fleet.load("e", bad=300)
    fleet.at(10.0)
    assert fleet.out == fleet.down == "e"
    assert fleet.reason("e") == "ejected: 85.71 % of 350 requests failed, at least 85 %"
    fleet.at(19.999)
    assert fleet.out == "e"
    fleet.at(50.001)
    assert fleet.out == ""
    for node in "abcde":
        fleet.load(node, good=25)
    fleet.load("e", bad=25)
    fleet.at(60.001)
    assert fleet.out == ""


def test_failure_percentage_of_another_threshold() -> None:
    """BasicFlowFailurePercentageLocalOrigin: with a threshold of 40 %, half is too much."""
    options = {**SHARES_ONLY, "success_rate": None, "failure_share": FailureShare(0.4)}
    fleet = OutlierFleet("abcde", **options)
    for node in "abcde":
        fleet.load(node, good=200)
    fleet.load("e", bad=200)
    fleet.at(10.0)
    assert fleet.out == "e"


def test_consecutive_failures() -> None:
    """BasicFlow5xx: 1 bad, 1 good, 4 bad: in; the 5th: out. Then 30 s, and 60 s the next time."""
    fleet = OutlierFleet("ab", **RUNS_ONLY)
    fleet.load("a", bad=1)
    fleet.load("a", good=1)
    fleet.load("a", bad=4)
    assert fleet.out == ""
    fleet.load("a", bad=1)
    assert fleet.out == fleet.down == "a"
    assert fleet.reason("a") == "ejected: 5 failures in a row"
    fleet.at(9.999)
    assert fleet.out == "a"
    fleet.at(30.001)
    assert fleet.out == fleet.down == ""
    fleet.load("a", bad=5)
    assert fleet.detection.ejections["a"].count == 2
    fleet.at(90.0)
    assert fleet.out == "a"
    fleet.at(100.0)
    assert fleet.out == ""


def test_the_second_time_it_is_back_at_90_002_ms() -> None:
    """BasicFlow5xx, with nobody there in between: a late sweep ends what is over by then."""
    fleet = OutlierFleet("ab", **RUNS_ONLY)
    fleet.load("a", bad=5)
    fleet.at(30.001)
    fleet.load("a", bad=5)
    fleet.at(90.002)
    assert fleet.out == fleet.down == ""


def test_good_results_in_between_end_a_run() -> None:
    """ExternalOriginEventsNonSplit: 100 times bad and good: in; then 5 bad: out."""
    fleet = OutlierFleet("a", **RUNS_ONLY)
    for _ in range(100):
        fleet.load("a", bad=1)
        fleet.load("a", good=1)
    assert fleet.out == ""
    fleet.load("a", bad=5)
    assert fleet.out == "a"


def test_a_node_that_leaves_is_not_ejected() -> None:
    """RemoveWhileEjected: nobody is out then, and the next may be ejected."""
    fleet = OutlierFleet("abc", **RUNS_ONLY)
    fleet.load("a", bad=5)
    fleet.load("b", bad=5)
    assert fleet.out == "a"
    fleet.balancer.remove("a")
    assert fleet.out == ""
    fleet.load("b", bad=5)
    assert fleet.out == "b"
    fleet.balancer.add("a")
    fleet.at(10.0)
    assert fleet.out == fleet.down == "b"


def test_no_more_than_the_maximum() -> None:
    """Overflow: of two, one is always allowed; a second is not while half are out."""
    fleet = OutlierFleet("ab", **RUNS_ONLY, max_ejected=0.01)
    fleet.load("a", bad=5)
    fleet.load("b", bad=5)
    assert fleet.out == "a"


def test_the_share_before_an_ejection_counts() -> None:
    """More are ejected while the share that is out is below the maximum."""
    fleet = OutlierFleet("abcdefghij", **RUNS_ONLY, max_ejected=0.2)
    for node in "abcd":
        fleet.load(node, bad=5)
    assert fleet.out == "ab"


def test_a_run_that_may_not_be_ejected_begins_again() -> None:
    """Overflow: the counter is reset all the same, so five more failures are needed."""
    fleet = OutlierFleet("abcd", **RUNS_ONLY)
    fleet.load("a", bad=5)
    fleet.load("b", bad=5)
    assert fleet.out == "a"
    fleet.at(30.0)
    fleet.load("b", bad=4)
    assert fleet.out == ""
    fleet.load("b", bad=1)
    assert fleet.out == "b"


def test_failures_of_an_ejected_node_change_nothing() -> None:
    """Consecutive_5xxAlreadyEjected: it is back as if there had been none."""
    fleet = OutlierFleet("ab", **RUNS_ONLY)
    fleet.load("a", bad=5)
    before = fleet.detection.ejections["a"]
    fleet.load("a", good=1)
    fleet.load("a", bad=5)
    fleet.at(20.0)
    fleet.load("a", bad=5)
    assert fleet.detection.ejections == {"a": before}
    fleet.at(30.0)
    assert fleet.out == fleet.down == ""


@pytest.mark.parametrize("step", [10.0, 500.0])
def test_ejections_in_a_row_last_longer(step: float) -> None:
    """EjectTimeBackoff: 10, 20, 30 s; two good intervals later 20 s; a long time later 10 s.

    However late the sweep is that notices it.
    """
    fleet = OutlierFleet("a", **RUNS_ONLY, base_ejection=10.0)
    now = 0.0
    for seconds in (10.0, 20.0, 30.0):
        fleet.load("a", bad=5)
        now += seconds
        fleet.at(now - 10.0)
        assert fleet.out == "a"
        fleet.at(now)
        assert fleet.out == ""
    for _ in range(2):
        now += 10.0
        fleet.at(now)
        assert fleet.out == ""
    fleet.load("a", bad=5)
    fleet.at(now + 10.0)
    assert fleet.out == "a"
    fleet.at(now + 20.0)
    assert fleet.out == ""
    while now < 610.0:
        now += step
        fleet.at(now)
        assert fleet.out == ""
    fleet.load("a", bad=5)
    fleet.at(now + 10.0)
    assert fleet.out == ""


@pytest.mark.parametrize(("most", "longest"), [(300.0, 300.0), (305.0, 310.0)])
def test_no_ejection_lasts_longer_than_the_maximum(most: float, longest: float) -> None:
    """MaxEjectTime and MaxEjectTimeNotAlligned: 300 s, and 305 s, which the sweeps make 310."""
    fleet = OutlierFleet("a", **RUNS_ONLY, base_ejection=10.0, max_ejection=most)
    now = 0.0
    for number in range(1, 40):
        fleet.load("a", bad=5)
        seconds = min(10.0 * number, longest)
        fleet.at(now + seconds - 10.0)
        assert fleet.out == "a"
        now += seconds
        fleet.at(now)
        assert fleet.out == ""


def test_nothing_to_sweep() -> None:
    """EmptySuccessRate: a sweep without nodes or results does nothing."""
    fleet = OutlierFleet("", **AS_ENVOY, success_rate=SuccessRate(min_nodes=1))
    fleet.at(10.0)
    assert fleet.out == ""
    fleet.balancer.add("a")
    fleet.at(20.0)
    assert fleet.out == ""


def test_ten_equal_nodes_are_not_left_alone() -> None:
    """Without a test of significance a node is ejected for what is chance.

    By Envoy's rule a rate is an outlier if it lies 1.9 standard deviations below the mean; with
    rates of 80 % and one of 75 %, one does.
    """
    fleet = OutlierFleet("abcdefghij", **SHARES_ONLY)
    careful = OutlierFleet("abcdefghij", **{**SHARES_ONLY, "significance": 0.001})
    for each in (fleet, careful):
        for number, node in enumerate("abcdefghij"):
            bad = 25 if node == "j" else 20 + number % 2
            each.load(node, good=100 - bad, bad=bad)
        each.at(10.0)
    assert fleet.out == "j"
    assert careful.out == ""
