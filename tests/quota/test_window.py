"""Sliding windows, where no tracker stands between them and a clock."""

from __future__ import annotations

from loadwise import QuotaDimension
from loadwise.quota.window import SlidingWindow


def test_a_clock_that_goes_back_forgets_nothing_early() -> None:
    """A bucket is forgotten a window after the latest use of it, in whatever order they came."""
    window = SlidingWindow(QuotaDimension("rpm", 10, 60.0))
    window.charge(1, 102.0)
    window.charge(1, 101.0)
    window.slide(161.5)
    assert window.used == 2
    window.slide(162.0)
    assert window.used == 0
