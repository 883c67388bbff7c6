"""The share of good answers, and which runs of failures it explains."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadwise.health.standing import SPOTLESS, Standing


@pytest.mark.parametrize(
    ("share", "longest"), [(1.0, 1), (0.89, 3), (0.7, 5), (0.5, 9), (0.2, 30), (0.05, 134)]
)
def test_the_longest_run_that_a_share_explains(share: float, longest: int) -> None:
    """(1 - s) ** c >= 0.001, with 1 - s at least 0.01 (design of fleets, section 2)."""
    standing = Standing(share, 0.0)
    assert standing.explains(longest)
    assert not standing.explains(longest + 1)


def test_a_node_that_was_well_is_dead_after_two_failures_and_one_of_five_good_is_not() -> None:
    """So three failures in a row tell the dead from one that fails four requests of five."""
    assert not SPOTLESS.explains(3)
    assert Standing(0.2, 0.0).explains(3)


@given(results=st.lists(st.booleans(), max_size=60))
def test_the_share_is_an_average_of_all_results(results: list[bool]) -> None:
    """A twentieth for each result, as of the last success, whatever the order."""
    standing, failures, average = SPOTLESS, 0, 1.0
    for now, good in enumerate(results):
        average += (good - average) / 20
        if good:
            standing, failures = standing.after_success(failures, float(now)), 0
            assert math.isclose(standing.share, average)
            assert standing.last_success == now
        else:
            failures += 1


@given(last=st.floats(-1e6, 1e9), window=st.floats(0.01, 1e4))
def test_a_success_counts_for_a_window_and_at_most_a_tenth_more(last: float, window: float) -> None:
    """Lapses fall on tenths of a window, so that those of many nodes fall together."""
    until = Standing(0.5, last).counts_until(window)
    slack = 1e-9 * max(abs(last), window)
    assert last + window - slack <= until <= last + 1.1 * window + slack
    assert SPOTLESS.counts_until(window) == -math.inf
