"""When requests arrive. All seeds are fixed; bounds are five standard errors: 1 in 10**6."""

from __future__ import annotations

from itertools import islice
from math import sqrt
from random import Random

import pytest

from loadwise.simulation.scenario import Bursty, Constant, Poisson, Ramp
from loadwise.simulation.world.arrivals import arrival_times

MANY = 100_000


def times_of(kind: Poisson | Constant | Bursty | Ramp, rate: float = 10.0) -> list[float]:
    """Return many arrival times."""
    return list(islice(arrival_times(kind, rate, MANY, Random(1)), MANY))


def test_constant_gaps() -> None:
    """Even gaps, the first request after one of them."""
    assert list(islice(arrival_times(Constant(), 4.0, 3, Random(1)), 3)) == [0.25, 0.5, 0.75]


def test_poisson() -> None:
    """Gaps have the mean and the standard deviation of an exponential distribution."""
    times = times_of(Poisson())
    gaps = [after - before for before, after in zip([0.0, *times], times, strict=False)]
    mean = sum(gaps) / MANY
    spread = sqrt(sum((gap - mean) ** 2 for gap in gaps) / MANY)
    assert mean == pytest.approx(0.1, rel=5 / sqrt(MANY))
    # The standard error of the standard deviation of an exponential is sqrt(2 / n) of it.
    assert spread == pytest.approx(0.1, rel=5 * sqrt(2 / MANY))


def counts(times: list[float], step: float) -> list[int]:
    """Return how many arrivals fall into each step."""
    found = [0] * (int(times[-1] / step) + 1)
    for time in times:
        found[int(time / step)] += 1
    return found[:-1]


def test_bursts() -> None:
    """The mean rate is kept; steps of a second vary far more than those of a Poisson process."""
    times = times_of(Bursty(burst=20.0, burst_seconds=1.0, calm_seconds=9.0))
    # Some 1000 bursts of exponential length: the rate is known to about 5 %, here times five.
    assert MANY / times[-1] == pytest.approx(10.0, rel=0.25)
    found = counts(times, 1.0)
    mean = sum(found) / len(found)
    variance = sum((count - mean) ** 2 for count in found) / len(found)
    assert variance / mean > 10


def test_a_burst_of_one_is_no_burst() -> None:
    """With the same rate in both states it is a Poisson process."""
    times = times_of(Bursty(burst=1.0))
    found = counts(times, 1.0)
    mean = sum(found) / len(found)
    variance = sum((count - mean) ** 2 for count in found) / len(found)
    assert mean == pytest.approx(10.0, rel=5 / sqrt(MANY))
    assert variance / mean == pytest.approx(1.0, abs=5 * sqrt(2 / len(found)))


@pytest.mark.parametrize("begin", [0.0, 0.2, 1.0, 1.8, 1.9])
def test_ramp(begin: float) -> None:
    """Each tenth of the run has the share of arrivals that a straight ramp gives it."""
    times = times_of(Ramp(begin=begin))
    assert times == sorted(times)
    length = MANY / 10.0
    for tenth in range(10):
        middle = (tenth + 0.5) / 10
        expected = MANY / 10 * (begin + 2 * (1 - begin) * middle)
        found = sum(tenth <= time / length * 10 < tenth + 1 for time in times)
        # Besides chance, the last arrivals may fall just beyond the end of the run.
        assert found == pytest.approx(expected, abs=5 * sqrt(expected) + 5 * sqrt(MANY) * 0.2)
