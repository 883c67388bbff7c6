"""Arrival times: endless streams of seconds, from a random source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from math import log, sqrt
from random import Random

from loadwise.simulation.scenario import Bursty, Constant, Poisson, Ramp

__all__ = ["arrival_times"]


def arrival_times(
    kind: Poisson | Constant | Bursty | Ramp, rate: float, requests: int, rng: Random
) -> Iterator[float]:
    """Return the times at which requests arrive, in seconds, rising.

    Args:
        kind: What kind of process.
        rate: Mean requests per second.
        requests: How many there will be, for processes that change over the run.
        rng: The source of chance.
    """
    if isinstance(kind, Constant):
        return (number / rate for number in count(1))
    if isinstance(kind, Bursty):
        return _bursty(kind, rate, rng.random)
    if isinstance(kind, Ramp):
        return _ramp(kind.begin, rate, requests / rate, rng.random)
    return _poisson(1.0 / rate, rng.random)


def _poisson(gap: float, random: Callable[[], float]) -> Iterator[float]:
    now = 0.0
    while True:
        now -= gap * log(1.0 - random())
        yield now


def _bursty(kind: Bursty, rate: float, random: Callable[[], float]) -> Iterator[float]:
    both = kind.calm_seconds + kind.burst_seconds
    calm = rate * both / (kind.calm_seconds + kind.burst * kind.burst_seconds)
    states = ((1.0 / calm, kind.calm_seconds), (1.0 / (calm * kind.burst), kind.burst_seconds))
    # Either state with the chance it has in the long run, so that the mean holds from the start.
    state = int(random() * both >= kind.calm_seconds)
    now = 0.0
    while True:
        gap, length = states[state]
        until = now - length * log(1.0 - random())
        while (following := now - gap * log(1.0 - random())) <= until:
            now = following
            yield now
        # Exponential gaps have no memory: what was left of one is drawn again at the other rate.
        now = until
        state = 1 - state


def _ramp(begin: float, rate: float, length: float, random: Callable[[], float]) -> Iterator[float]:
    """Yield a Poisson process of rate 1, stretched so that its rate is the one wanted.

    By time t = x * length there have been s = rate * length * (begin * x + (1 - begin) * x**2)
    arrivals on average; that is solved for x.
    """
    bend = 1.0 - begin
    for s in _poisson(1.0, random):
        done = s / (rate * length)
        if done >= 1.0:
            # Past the end of the run it goes on at the last rate.
            yield length * (1.0 + (done - 1.0) / (2.0 - begin))
        elif bend:
            yield length * (sqrt(begin * begin + 4.0 * bend * done) - begin) / (2.0 * bend)
        else:
            yield length * done
