"""How many requests per second the simulator plays.

The supermarket model: Poisson arrivals at 90 % load, exponential service, every strategy through
the real Balancer, health tracking on. One core.
"""

from __future__ import annotations

import time

from benchmarks.model import Figure, Result, Scale, Table

from loadwise.simulation import Scenario, simulate
from loadwise.simulation.scenario import Servers

__all__ = ["simulator"]

_STRATEGIES = ("round-robin", "random", "p2c", "p2c-peak-ewma", "least-load")
_REQUESTS = 100_000


def simulator(scale: Scale) -> Result:
    """Play the supermarket model with each strategy."""
    requests = scale.portion(_REQUESTS, least=100)
    rows: list[tuple[str, ...]] = []
    figures: list[Figure] = []
    for name in _STRATEGIES:
        speeds = [_speed(requests, name, seed) for seed in (1, 2, 3)]
        rows.append((name, f"{max(speeds):,.0f}"))
        figures.append(Figure(f"simulator: {name}", tuple(1 / each for each in speeds)))
    header = ("strategy", "requests per second")
    note = f"{requests:,} requests to 100 servers at 90 % load; one core, the best of three seeds."
    return Result((Table("simulator", "The simulator", header, tuple(rows), note),), tuple(figures))


def _speed(requests: int, name: str, seed: int) -> float:
    """Return requests per second of processor time, which other programs take little of."""
    scenario = Scenario(
        name="supermarket", about="", servers=Servers(count=100), load=0.9, requests=requests
    )
    began = time.process_time()
    simulate(scenario, name, seed)
    return requests / (time.process_time() - began)
