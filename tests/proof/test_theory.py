"""The formulas that the proof is measured by agree with published values, and with each other."""

from __future__ import annotations

import math

import pytest
from tests.proof import theory
from tests.proof.chain import few_servers

LIMITS = {
    0.5: (2.0, 1.2657, 1.1252),
    0.7: (3.3333, 1.6145, 1.3568),
    0.8: (5.0, 1.9474, 1.5809),
    0.9: (10.0, 2.6141, 2.0279),
    0.95: (20.0, 3.3830, 2.5351),
    0.99: (100.0, 5.4320, 3.8578),
}


@pytest.mark.parametrize("load", LIMITS)
def test_limits_of_the_supermarket_model(load: float) -> None:
    """The mean time for one, two and three choices, by the formula of Mitzenmacher, 2001."""
    found = [theory.supermarket_limit(load, choices) for choices in (1, 2, 3)]
    assert found == pytest.approx(LIMITS[load], abs=5e-5)
    assert found[0] == pytest.approx(theory.mm1(load), rel=1e-9)


@pytest.mark.parametrize(("load", "value"), [(0.5, 1.268), (0.7, 1.620), (0.8, 1.959)])
def test_a_hundred_servers(load: float, value: float) -> None:
    """The correction of Gast and Van Houdt, 2017, gives what simulation gave for 100 servers."""
    assert theory.supermarket(load, 2, 100) == pytest.approx(value, abs=6e-4)


@pytest.mark.parametrize(("choices", "longest"), [(2, 6), (3, 6)])
def test_the_correction_against_the_markov_chain(choices: int, longest: int) -> None:
    """For ten servers what is left is of order 1/n**2: less than a tenth of the correction's size.

    So for a hundred servers it is a hundredth of that, and not seen in three digits.
    """
    limit = theory.supermarket_limit(0.7, choices)
    exact = few_servers(0.7, choices, 10, longest)
    left = exact - theory.supermarket(0.7, choices, 10)
    assert 0 < left < (exact - limit) / 5
    assert left < 0.012


def test_the_markov_chain_of_one_choice() -> None:
    """Servers drawn at random are M/M/1 queues, independent of each other."""
    assert few_servers(0.5, 1, 3, 16) == pytest.approx(theory.mm1(0.5), rel=1e-3)
    assert few_servers(0.5, 1, 1, 40) == pytest.approx(theory.mm1(0.5), rel=1e-6)


@pytest.mark.parametrize(
    ("load", "choices", "servers", "longest"),
    [
        (0.7, 2, 2, 20),
        (0.7, 3, 10, 5),
        (0.8, 10, 10, 5),
        (0.8, 2, 2, 30),
        (0.7, 2, 10, 6),
        (0.8, 50, 50, 2),
    ],
)
def test_where_queues_are_cut_off(load: float, choices: int, servers: int, longest: int) -> None:
    """Room for one more in each queue changes the mean time by less than 0.03 %."""
    longer = few_servers(load, choices, servers, longest + 1)
    assert few_servers(load, choices, servers, longest) == pytest.approx(longer, rel=3e-4)


def test_an_empty_start_is_forgotten() -> None:
    """What the longest row of M/M/1 still has of it after its warm-up is less than 0.3 %."""
    rate = 0.9 * 100
    assert 0.0 < theory.mm1_start(0.9, 600.0, 240_000 / rate) < 0.003
    assert theory.mm1_start(0.9, 0.0, 600.0) > 0.1


def test_erlang_c() -> None:
    """One server is M/M/1; two have the closed form 1 / (1 - load**2); more wait less.

    Erlang, 1917; L. Kleinrock, "Queueing Systems" 1, 1975, 3.5.
    """
    for load in (0.1, 0.5, 0.9):
        assert theory.erlang_c(1, load) == pytest.approx(load)
        assert theory.mmc(1, load) == pytest.approx(theory.mm1(load))
        assert theory.mmc(2, load) == pytest.approx(1.0 / (1.0 - load**2))
    times = [theory.mmc(servers, 0.8) for servers in (1, 2, 4, 8, 16, 32)]
    assert times == sorted(times, reverse=True)


def test_pollaczek_khinchine() -> None:
    """With exponential service it is M/M/1; with deterministic service one waits half as long."""
    assert theory.mg1(0.7, 2.0) == pytest.approx(theory.mm1(0.7))
    assert theory.mg1(0.7, 1.0) - 1.0 == pytest.approx((theory.mm1(0.7) - 1.0) / 2.0)


def test_moments_of_a_bounded_pareto() -> None:
    """They are the integrals of x**power by the density, here summed up in small steps."""
    alpha, bound, steps = 2.5, 100.0, 200_000
    for power in (1, 2):
        width = math.log(bound) / steps
        points = (math.exp((step + 0.5) * width) for step in range(steps))
        summed = math.fsum(
            x**power * alpha * x ** (-alpha - 1.0) / (1.0 - bound**-alpha) * x * width
            for x in points
        )
        assert theory.bounded_pareto_moment(alpha, bound, power) == pytest.approx(summed, rel=1e-6)


def test_balls_into_bins() -> None:
    """The exact values are near those that simulations gave, and the smallest case is right.

    The fullest of two bins after two balls has 1.5 on average. Published, for n = 1024 and 4096:
    5.53 and 6.27 for one choice, 3.00 and 3.00 for two, 2.47 and 2.90 for three; these are means
    over a limited number of runs, each of which deviates by about 0.8, 0.1 and 0.5.
    """
    assert theory.fullest_of_one(2) == pytest.approx(1.5)
    assert theory.fullest_of_one(1024) == pytest.approx(5.53, abs=0.01)
    assert theory.fullest_of_one(4096) == pytest.approx(6.27, abs=0.03)
    assert theory.fullest_of_several(1024, 2) == pytest.approx(3.00, abs=0.01)
    assert theory.fullest_of_several(4096, 2) == pytest.approx(3.00, abs=0.03)
    assert theory.fullest_of_several(1024, 3) == pytest.approx(2.47, abs=0.08)
    assert theory.fullest_of_several(4096, 3) == pytest.approx(2.90, abs=0.03)


def test_ring() -> None:
    """The spread is about 1/sqrt(points); the peak of two nodes with a point each is 3/2.

    One point divides a ring with two nodes at random: the longer part has 3/4 on average.
    """
    for points in (160, 1000):
        assert theory.ring_spread(100, points) == pytest.approx(points**-0.5, rel=0.01)
    assert theory.ring_peak(2, 1) == pytest.approx(1.5, rel=1e-3)
    assert theory.ring_peak(100, 1000) == pytest.approx(1.08, abs=0.005)
