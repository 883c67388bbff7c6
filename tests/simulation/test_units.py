"""Figures as people read them."""

from __future__ import annotations

import math

import pytest

from loadwise.simulation.units import duration, percentage, rounded


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 s"),
        (3e-9, "0.00 us"),
        (0.00045, "450 us"),
        (0.0009994, "999 us"),
        (0.0009996, "1.00 ms"),
        (0.0123, "12.3 ms"),
        (0.9996, "1.00 s"),
        (9.996, "10.0 s"),
        (99.96, "100 s"),
        (1913.0, "1,913 s"),
        (math.nan, "-"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    """The unit suits the size, at its borders too."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"),
        (1e-9, "< 0.01 %"),
        (0.00012, "0.01 %"),
        (0.00996, "1.0 %"),
        (0.0996, "10 %"),
        (0.614, "61 %"),
        (0.99996, "> 99.99 %"),
        (0.995, "99.50 %"),
        (1.0, "100 %"),
        (math.nan, "-"),
    ],
)
def test_percentages(share: float, text: str) -> None:
    """Little is not nothing, and nearly all is not all."""
    assert percentage(share) == text


def test_spread_has_the_decimals_of_its_mean() -> None:
    """2.60 with 0.01, and not with 0.0131."""
    assert rounded(0.0131, like=2.6041) == "0.01"
    assert percentage(0.0004, like=0.0412) == "0.0 %"
