"""How long requests take. All seeds are fixed; bounds are five standard errors: 1 in 10**6."""

from __future__ import annotations

from itertools import islice
from math import sqrt
from random import Random

import pytest

from loadwise.simulation.scenario import (
    Deterministic,
    Exponential,
    Lognormal,
    Pareto,
    Tokens,
)
from loadwise.simulation.world.service_times import Timed, service_times, token_counts

MANY = 100_000


def drawn(kind: Timed) -> list[float]:
    """Return many service times."""
    return list(islice(service_times(kind, Random(7)), MANY))


def moments(values: list[float]) -> tuple[float, float]:
    """Return mean and standard deviation."""
    mean = sum(values) / len(values)
    return mean, sqrt(sum((value - mean) ** 2 for value in values) / len(values))


@pytest.mark.parametrize(
    "kind",
    [
        Deterministic(mean=0.3),
        Exponential(mean=0.3),
        Lognormal(mean=0.3, sigma=1.0),
        Pareto(mean=0.3, alpha=1.5, bound=1000.0),
        Pareto(mean=0.3, alpha=1.0, bound=100.0),
        Pareto(mean=0.3, alpha=3.0, bound=50.0),
    ],
    ids=repr,
)
def test_the_mean_is_the_one_asked_for(kind: Timed) -> None:
    """Whatever the distribution."""
    mean, spread = moments(drawn(kind))
    assert mean == pytest.approx(0.3, abs=5 * spread / sqrt(MANY) + 1e-12)


def test_spreads() -> None:
    """The standard deviations are those of the distributions, by their textbook formulas."""
    assert moments(drawn(Deterministic(mean=2.0)))[1] == 0.0
    assert moments(drawn(Exponential(mean=2.0)))[1] == pytest.approx(2.0, rel=0.03)
    # exp(sigma**2) - 1 is the squared coefficient of variation of a lognormal.
    assert moments(drawn(Lognormal(mean=2.0, sigma=0.5)))[1] == pytest.approx(
        2.0 * sqrt(2.718281828459045**0.25 - 1), rel=0.03
    )


def test_a_bounded_pareto_keeps_its_bounds() -> None:
    """The longest is at most ``bound`` times the shortest, and the tail falls by the power law."""
    values = drawn(Pareto(mean=1.0, alpha=1.5, bound=100.0))
    low = min(values)
    assert max(values) <= 100.0 * low * 1.001
    beyond = sum(value > 10 * low for value in values) / MANY
    # P(X > 10 L) = (10**-1.5 - 100**-1.5) / (1 - 100**-1.5)
    expected = (10**-1.5 - 100**-1.5) / (1 - 100**-1.5)
    assert beyond == pytest.approx(expected, abs=5 * sqrt(expected / MANY))


def test_tokens() -> None:
    """Service is tokens over rates; a request has at least one of each."""
    kind = Tokens(prefill=1000.0, decode=10.0, prompt=500.0, output=20.0, sigma=0.8)
    pairs = list(islice(token_counts(kind, Random(7)), MANY))
    assert drawn(kind) == [read / 1000.0 + written / 10.0 for read, written in pairs]
    for side, wanted in ((0, 500.0), (1, 20.0)):
        mean, spread = moments([float(pair[side]) for pair in pairs])
        assert mean == pytest.approx(wanted, abs=5 * spread / sqrt(MANY) + 0.01)
        assert min(pair[side] for pair in pairs) >= 1
