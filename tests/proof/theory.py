"""What queueing theory and probability say, as plain as can be; nothing here uses the library.

Times are in units of the mean service time, unless said otherwise.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def mm1(load: float) -> float:
    """Return the mean time in an M/M/1 queue (Kleinrock, "Queueing Systems" 1, 1975, 3.2)."""
    return 1.0 / (1.0 - load)


def mm1_quantile(load: float, rank: float) -> float:
    """Return a quantile of the time in an M/M/1 queue served first come, first served.

    It is exponentially distributed (Kleinrock, "Queueing Systems" 1, 1975, 5.7).
    """
    return -math.log(1.0 - rank) / (1.0 - load)


def mm1_start(load: float, begin: float, end: float) -> float:
    """Return by how much an M/M/1 system that begins empty falls short of its mean size.

    As a share of that, on average between two times. The Markov chain is followed as one that
    jumps at the times of a Poisson process (uniformisation), with room for 600 requests.
    """
    size = np.arange(601.0)
    chance = np.zeros(len(size))
    chance[0] = 1.0
    step = 1.0 / (1.0 + load)
    sizes: list[float] = []
    for number in range(int(end / step)):
        flow = step * (load * chance[:-1] - chance[1:])
        chance[:-1] -= flow
        chance[1:] += flow
        if number * step >= begin:
            sizes.append(float(chance @ size))
    return 1.0 - math.fsum(sizes) / len(sizes) * (1.0 - load) / load


def mg1(load: float, second_moment: float) -> float:
    """Return the mean time in an M/G/1 queue, by Pollaczek (1930) and Khinchine (1932).

    Args:
        load: Load; the mean service time is 1.
        second_moment: The mean of the square of the service time.
    """
    return 1.0 + load * second_moment / (2.0 * (1.0 - load))


def bounded_pareto_moment(alpha: float, bound: float, power: int) -> float:
    """Return the mean of a power of a bounded Pareto variable on [1, bound].

    The density is alpha * x**(-alpha - 1) / (1 - bound**-alpha); alpha is not ``power``.
    """
    share = alpha / (1.0 - math.pow(bound, -alpha))
    return share * (1.0 - math.pow(bound, power - alpha)) / (alpha - power)


def erlang_c(servers: int, load: float) -> float:
    """Return the chance to wait in M/M/c (A. K. Erlang, 1917), by the recursion of Erlang B."""
    offered = servers * load
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = offered * blocked / (number + offered * blocked)
    return blocked / (1.0 - load * (1.0 - blocked))


def mmc(servers: int, load: float) -> float:
    """Return the mean time in M/M/c."""
    return 1.0 + erlang_c(servers, load) / (servers * (1.0 - load))


def supermarket_limit(load: float, choices: int) -> float:
    """Return the mean time in the supermarket model as the servers become infinitely many.

    M. Mitzenmacher, "The power of two choices in randomized load balancing", IEEE TPDS 12(10),
    2001; N. Vvedenskaya, R. Dobrushin, F. Karpelevich, 1996.
    """
    return sum(_tail(load, choices)[1:]) / load


def _tail(load: float, choices: int) -> list[float]:
    """Return the shares of servers with at least 0, 1, 2, ... requests, in the limit."""
    tail = [1.0]
    while tail[-1] > 1e-15:  # far below what is printed
        tail.append(load * tail[-1] ** choices)
    return tail


def supermarket(load: float, choices: int, servers: int) -> float:
    """Return the mean time in the supermarket model of many servers, up to O(1 / servers**2).

    The servers sampled are distinct, as in the library. The correction of order 1/n to the limit
    is that of N. Gast and B. Van Houdt, "A refined mean field approximation", Proc. ACM Meas.
    Anal. Comput. Syst. 1(2), 2017: with the drift f + g/n of the shares x of servers with at least
    i requests, its Jacobian A at the fixed point, the rates Q of the squared jumps, and W from
    A W + W A' + Q = 0, the mean of x is the fixed point + V/n with A V + g + (f'' : W) / 2 = 0.
    """
    x = np.array([*_tail(load, choices), 0.0])
    size = len(x) - 2
    before, here, after = x[:size], x[1 : size + 1], x[2:]
    jacobian = _jacobian(load, choices, x)
    jumps = load * (before**choices - here**choices) + here - after
    unit = np.eye(size)
    spread = np.linalg.solve(
        np.kron(jacobian, unit) + np.kron(unit, jacobian), -np.diag(jumps).ravel()
    ).reshape(size, size)
    variance = np.array([0.0, *np.diag(spread)])
    # C(nx, d) / C(n, d) = x**d - C(d, 2) * x**(d - 1) * (1 - x) / n + O(1 / n**2); and half the
    # second derivative of x**d is C(d, 2) * x**(d - 2).
    pairs = math.comb(choices, 2)
    chance = x[:-1] ** (choices - 2) * variance - x[:-1] ** (choices - 1) * (1.0 - x[:-1])
    drift = load * pairs * (chance[:-1] - chance[1:])
    correction = np.linalg.solve(jacobian, -drift)
    return float(here.sum() + correction.sum() / servers) / load


def _jacobian(load: float, choices: int, x: Floats) -> Floats:
    """Return the derivative of the drift load * (x[i-1]**d - x[i]**d) - (x[i] - x[i+1])."""
    inflow = load * choices * x[1:-1] ** (choices - 1)
    return np.diag(-1.0 - inflow) + np.diag(inflow[:-1], -1) + np.diag(np.ones(len(inflow) - 1), 1)


def relaxation(load: float, choices: int) -> float:
    """Return the seconds in which what is left of the start falls by the factor e.

    For one choice it is that of M/M/1, 1 / (1 - sqrt(load))**2 (P. Morse, 1955); for more, by the
    eigenvalue of the supermarket model's drift that is nearest to zero.
    """
    if choices == 1:
        return 1.0 / (1.0 - math.sqrt(load)) ** 2
    x = np.array([*_tail(load, choices), 0.0])
    return float(-1.0 / np.linalg.eigvals(_jacobian(load, choices, x)).real.max())


def ring_peak(nodes: int, points: int) -> float:
    """Return the mean of the largest share over the mean share, for points placed at random.

    The shares are distributed as gamma variables of shape ``points`` over their sum, and are
    independent of that sum (L. Devroye, "Non-Uniform Random Variate Generation", 1986, 5.2), so
    it is the mean of the largest of the gamma variables, over their mean.
    """
    end = points + 12.0 * math.sqrt(points) + 20.0
    x, step = np.linspace(0.0, end, 400_001, retstep=True)
    density = np.exp((points - 1.0) * np.log(x[1:]) - x[1:] - math.lgamma(points))
    below = np.cumsum(density)
    below /= below[-1]
    return float((1.0 - below**nodes).sum() * step) / points


def ring_spread(nodes: int, points: int) -> float:
    """Return the standard deviation of the shares over their mean: about 1 / sqrt(points).

    That of a Dirichlet distribution with ``points`` for each node.
    """
    return math.sqrt((nodes - 1.0) / (nodes * points + 1.0))


def fullest_of_one(bins: int) -> float:
    """Return the mean of the fullest of n bins after n balls thrown at random.

    Balls in bins are independent Poisson variables, given their sum (G. Gonnet, "Expected length
    of the longest probe sequence in hash code searching", JACM 28(2), 1981).
    """
    # The chance that n Poisson variables of mean 1 have the sum n.
    sum_is_right = bins * math.log(bins) - bins - math.lgamma(bins + 1)
    fullest = 0.0
    for most in range(15):
        poisson = np.array([math.exp(-1.0) / math.factorial(balls) for balls in range(most + 1)])
        below = poisson.sum()
        size = bins * (most + 1) + 1
        sums = np.fft.irfft(np.fft.rfft(poisson / below, size) ** bins, size)
        chance = sums[bins] if most else 0.0
        fullest += 1.0 - float(chance) * math.exp(bins * math.log(below) - sum_is_right)
    return fullest


def fullest_of_several(bins: int, choices: int) -> float:
    """Return the same for balls that go to the emptiest of some distinct bins.

    Until a bin has three balls, the number of balls and that of bins in use tell everything: the
    chance that none gets there is exact. Bins with four are so few that their mean number, by the
    differential equations of M. Mitzenmacher (2001), is as good as the chance that there is one.
    """
    used = np.arange(bins + 1)
    # The chance that all bins sampled are among so many.
    among = np.array([math.comb(number, choices) for number in used], dtype=float)
    among /= math.comb(bins, choices)
    chance = np.zeros(bins + 1)
    chance[0] = 1.0
    for balls in range(bins):
        doubled = balls - used
        possible = (doubled >= 0) & (doubled <= used)
        chance = np.where(possible, chance, 0.0)
        full = among[np.where(possible, doubled, 0)]
        opened = chance * (1.0 - among)
        chance = chance * (among - full)
        chance[1:] += opened[:-1]
    return 3.0 - float(chance.sum()) + bins * _share_of_fours(choices)


def _share_of_fours(choices: int) -> float:
    """Return the share of bins with four balls in the limit: dx[i]/dt = x[i-1]**d - x[i]**d."""
    x = np.array([1.0, 0.0, 0.0, 0.0, 0.0])
    steps = 2000
    for _ in range(steps):
        x[1:] += (x[:-1] ** choices - x[1:] ** choices) / steps
    return float(x[4])
