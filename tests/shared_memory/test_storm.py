"""Counts of a host whose processes end leases in every way, and are killed amid them."""

from __future__ import annotations

from pathlib import Path

from tests.shared_memory.storm import Storm


def test_nothing_is_in_flight_after_a_storm(path: Path) -> None:
    """Of four processes two are killed and replaced; no count is negative, and the sum ends at 0.

    The long one, of two million leases: ``python -m tests.shared_memory.storm``.
    """
    storm = Storm(path, processes=4, leases=6_000)
    assert storm.run() == 4 * 6_000
    low, high = storm.worst
    assert low == 0
    assert 0 < high <= storm.most
    assert storm.readings > 8
