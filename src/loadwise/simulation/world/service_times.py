"""Service times: endless streams of seconds at speed 1, from a random source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat
from math import exp, log
from random import Random

from loadwise.simulation.scenario import Deterministic, Exponential, Lognormal, Pareto, Tokens

__all__ = ["Timed", "service_times", "token_counts"]

Timed = Deterministic | Exponential | Lognormal | Pareto | Tokens
"""Service whose time is known before it begins."""


def service_times(kind: Timed, rng: Random) -> Iterator[float]:
    """Return service times in seconds at speed 1.

    Args:
        kind: Their distribution; that of tokens is not one of times: see `token_counts`.
        rng: The source of chance.
    """
    if isinstance(kind, Deterministic):
        return repeat(kind.mean)
    if isinstance(kind, Lognormal):
        return _lognormal(kind.mean, kind.sigma, rng)
    if isinstance(kind, Pareto):
        return _pareto(kind, rng.random)
    if isinstance(kind, Tokens):
        return (
            read / kind.prefill + written / kind.decode for read, written in token_counts(kind, rng)
        )
    return _exponential(kind.mean, rng.random)


def token_counts(kind: Tokens, rng: Random) -> Iterator[tuple[int, int]]:
    """Return how many tokens requests have a model read and write."""
    prompts = _lognormal(kind.prompt, kind.sigma, rng)
    outputs = _lognormal(kind.output, kind.sigma, rng)
    while True:
        yield max(1, round(next(prompts))), max(1, round(next(outputs)))


def _exponential(mean: float, random: Callable[[], float]) -> Iterator[float]:
    while True:
        yield -mean * log(1.0 - random())


def _lognormal(mean: float, sigma: float, rng: Random) -> Iterator[float]:
    # The mean of exp(N(mu, sigma**2)) is exp(mu + sigma**2 / 2).
    mu = log(mean) - sigma * sigma / 2.0
    gauss = rng.gauss
    while True:
        yield exp(gauss(mu, sigma))


def _pareto(kind: Pareto, random: Callable[[], float]) -> Iterator[float]:
    """Yield from a bounded Pareto distribution, by inversion."""
    alpha, bound = kind.alpha, kind.bound
    lowest = kind.mean / _bounded_pareto_mean(alpha, bound)
    span = 1.0 - bound**-alpha
    exponent = -1.0 / alpha
    while True:
        yield lowest * pow(1.0 - span * random(), exponent)


def _bounded_pareto_mean(alpha: float, bound: float) -> float:
    """Return the mean for a shortest time of 1 and a longest of ``bound``."""
    if alpha == 1.0:
        return log(bound) / (1.0 - 1.0 / bound)
    kept = float((1.0 - bound ** (1.0 - alpha)) / (1.0 - bound**-alpha))
    return alpha / (alpha - 1.0) * kept
