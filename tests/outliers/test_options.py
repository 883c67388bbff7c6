"""Options of outlier detection: what is out of range is refused, with the value and the remedy."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from tests.compiled import wrong_type

from loadwise import (
    Balancer,
    FailureShare,
    HealthTracker,
    OutlierDetection,
    QuotaTracker,
    SlowShare,
    SuccessRate,
)
from loadwise.testing import ManualClock


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval": 0}, "interval is 0; it must be a finite number of seconds above 0"),
        ({"interval": math.inf}, "interval is inf; it must be"),
        ({"base_ejection": -1.0}, r"base_ejection is -1\.0; it must be a finite number"),
        ({"max_ejection": 29.0}, r"max_ejection is 29\.0; .* at least base_ejection, .* 30\.0"),
        ({"max_ejection": math.inf}, "max_ejection is inf; it must be a finite number"),
        ({"jitter": -0.5}, r"jitter is -0\.5; it must be a finite number of seconds, at least 0"),
        ({"max_ejected": 10}, "max_ejected is 10; it must be a share of the members, from 0 to 1"),
        ({"max_ejected": math.nan}, "max_ejected is nan; it must be"),
        ({"consecutive_failures": 0}, "consecutive_failures is 0; it must be at least 1"),
        ({"significance": 0.0}, r"significance is 0\.0; it must be a chance above 0 and below 1"),
        ({"significance": 5}, "significance is 5; .* or None for no test of it"),
    ],
)
def test_out_of_range(options: dict[str, Any], message: str) -> None:
    """Each number outside of its range is refused at construction."""
    with pytest.raises(ValueError, match=message):
        OutlierDetection(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval": "10"}, "interval is '10'; it must be a number"),
        ({"consecutive_failures": 2.5}, r"consecutive_failures is 2\.5; it must be an int"),
        ({"success_rate": SuccessRate}, "success_rate is the class SuccessRate; give an instance"),
        ({"success_rate": FailureShare()}, "success_rate is .*; it must be a SuccessRate, or None"),
        ({"failure_share": 0.85}, r"failure_share is 0\.85; it must be a FailureShare, or None"),
        ({"slow_share": True}, "slow_share is True; it must be a SlowShare, or None"),
        ({"probe": None}, "probe is None; it must be True or False"),
        ({"rng": 1}, r"rng is 1; it must be a random\.Random"),
        ({"max_ejection_time": 5}, "max_ejection_time"),
    ],
)
def test_wrong_kinds(options: dict[str, Any], message: str) -> None:
    """Each value of a wrong kind is refused at construction."""
    with pytest.raises(TypeError, match=message):
        OutlierDetection(**options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SuccessRate(stdev_factor=-1.0), r"stdev_factor is -1\.0; it must be a finite"),
        (lambda: SuccessRate(min_nodes=0), "min_nodes is 0; it must be at least 1"),
        (lambda: SuccessRate(min_requests=0), "min_requests is 0; it must be at least 1"),
        (lambda: FailureShare(threshold=85), "threshold is 85; it must be a share of the requests"),
        (lambda: FailureShare(threshold=0), "threshold is 0; it must be a share of the requests"),
        (lambda: FailureShare(min_nodes=-1), "min_nodes is -1; it must be at least 1"),
        (lambda: SlowShare(factor=1.0), r"factor is 1\.0; it must be a finite number above 1"),
        (lambda: SlowShare(threshold=1.5), r"threshold is 1\.5; it must be a share"),
        (lambda: SlowShare(min_requests=0), "min_requests is 0; it must be at least 1"),
    ],
)
def test_rules_out_of_range(make: Any, message: str) -> None:
    """So are the numbers of the rules."""
    with pytest.raises(ValueError, match=message):
        make()


def test_numbers_are_taken_as_plain_ones() -> None:
    """An int does for a number of seconds; a bool does not."""
    detection = OutlierDetection(interval=5, base_ejection=10, max_ejection=10, jitter=1)
    assert (detection.interval, detection.max_ejection, detection.jitter) == (5, 10, 1)
    with pytest.raises(TypeError, match="interval is True; it must be a number"):
        OutlierDetection(interval=True)


@pytest.mark.parametrize("value", [OutlierDetection, True, 5])
def test_what_is_no_detection(value: Any) -> None:
    """A balancer takes an instance, or nothing."""
    with pytest.raises(TypeError, match=wrong_type("outliers is .*; it must be an OutlierDetect")):
        Balancer(["a"], outliers=value)


def test_it_belongs_to_one_balancer() -> None:
    """A second balancer is refused: its nodes would be counted with those of the first."""
    detection = OutlierDetection()
    assert detection.ejections == {}
    first = Balancer(["a"], outliers=detection)
    with pytest.raises(ValueError, match="belongs to another balancer"):
        Balancer(["a"], outliers=detection)
    assert first.pick() == "a"


def test_a_balancer_that_is_refused_has_not_used_it_up() -> None:
    """What is wrong with the rest can be mended, and the same detection given again."""
    detection = OutlierDetection(rng=random.Random(1))
    with pytest.raises(ValueError, match="id 'a'"):
        Balancer(["a", "a"], outliers=detection)
    with pytest.raises(ValueError, match="clock"):
        Balancer(["a"], outliers=detection, quota=QuotaTracker(ManualClock()), clock=ManualClock())
    assert Balancer(["a"], outliers=detection).pick() == "a"


def test_a_private_tracker_is_nobody_elses() -> None:
    """Without health, the balancer has none to offer, and yet it ejects."""
    assert Balancer(["a"], health=False, outliers=OutlierDetection()).health is None
    assert Balancer(["a"], health=None, outliers=OutlierDetection()).health is None
    tracker = HealthTracker()
    assert Balancer(["a"], health=tracker, outliers=OutlierDetection()).health is tracker
