"""A clock that goes when told."""

from __future__ import annotations

import math

import pytest

from loadwise import Clock
from loadwise.testing import ManualClock


def test_time_passes_only_when_told() -> None:
    """It reads its start until it is advanced, then that much more, always as a float."""
    clock = ManualClock(100)
    reading: Clock = clock
    assert [reading(), reading()] == [100.0, 100.0]
    clock.advance(0.5)
    clock.advance(0)
    assert reading() == clock.now == 100.5
    assert type(ManualClock(1)()) is float
    assert ManualClock()() == 0.0


@pytest.mark.parametrize("seconds", [-0.001, math.nan, math.inf])
def test_time_does_not_go_back(seconds: float) -> None:
    """Steps that are negative, NaN or infinite are refused by value, and no time passes."""
    clock = ManualClock(7.0)
    with pytest.raises(ValueError, match=f"seconds is {seconds}; it must be finite"):
        clock.advance(seconds)
    assert clock() == 7.0
