"""The supermarket model of few servers, solved exactly: its Markov chain, state by state."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import combinations_with_replacement, groupby
from math import comb

import numpy as np

State = tuple[int, ...]
"""Requests at each server, the longest queue first."""


@cache
def few_servers(load: float, choices: int, servers: int, longest: int) -> float:
    """Return the mean time in the system, in mean service times.

    Each arrival joins the shortest of ``choices`` distinct servers; with as many choices as servers
    it is the model of joining the shortest queue (F. Haight, 1958; J. Kingman, 1961).

    Args:
        load: Arrivals per server and mean service time.
        choices: Servers that an arrival looks at.
        servers: How many there are.
        longest: Where queues are cut off. Arrivals beyond are lost, which must be rare.
    """
    states = list(combinations_with_replacement(range(longest, -1, -1), servers))
    index = {state: number for number, state in enumerate(states)}
    jumps = [
        (number, index[after], rate)
        for state, number in index.items()
        for after, rate in _jumps(state, load, choices)
        if after[0] <= longest
    ]
    sources = np.array([jump[0] for jump in jumps])
    targets = np.array([jump[1] for jump in jumps])
    rates = np.array([jump[2] for jump in jumps])
    leaving = np.bincount(sources, rates, len(states))
    # One step of the chain that jumps at the times of a Poisson process (uniformisation).
    step = 1.0 / leaving.max()
    present = np.array([sum(state) for state in states], dtype=float)
    chance = np.zeros(len(states))
    chance[index[(1,) * servers]] = 1.0
    mean, before = float(servers), 0.0
    while abs(mean - before) > 1e-9 * mean:
        for _ in range(100):
            arriving = np.bincount(targets, chance[sources] * rates, len(states))
            chance += step * (arriving - chance * leaving)
        mean, before = float(chance @ present), mean
    return mean / (load * servers)


def _jumps(state: State, load: float, choices: int) -> Iterator[tuple[State, float]]:
    """Yield the states that may follow, each with its rate."""
    servers = len(state)
    begin = 0
    for queue, group in groupby(state):
        end = begin + len(list(group))
        # The shortest sampled is one of these: none is shorter, and not all are longer.
        sampled = (comb(end, choices) - comb(begin, choices)) / comb(servers, choices)
        if sampled:
            yield (*state[:begin], queue + 1, *state[begin + 1 :]), load * servers * sampled
        if queue:
            yield (*state[: end - 1], queue - 1, *state[end:]), float(end - begin)
        begin = end
