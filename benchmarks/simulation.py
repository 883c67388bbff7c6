"""How many requests per second the simulator plays, and how much memory a request takes.

The supermarket model: Poisson arrivals at 90 % load, exponential service, every strategy through
the real Balancer, health tracking on. One core.

    python benchmarks/simulation.py [--requests 200000] [--memory] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

from loadwise.simulation.runs.engine import simulate
from loadwise.simulation.scenario import Scenario, Servers

STRATEGIES = ("round-robin", "random", "p2c", "p2c-peak-ewma", "least-load")
MANY = 10_000_000


def supermarket(requests: int) -> Scenario:
    """Return the model: 100 servers, load 0.9."""
    return Scenario(
        name="supermarket", about="", servers=Servers(count=100), load=0.9, requests=requests
    )


def speed(requests: int, name: str, seed: int) -> float:
    """Return requests per second of processor time, which other programs take little of."""
    began = time.process_time()
    simulate(supermarket(requests), name, seed)
    return requests / (time.process_time() - began)


def speeds(requests: int) -> dict[str, float]:
    """Return requests per second of one core by strategy, and print them."""
    found = {}
    print("| strategy | requests per second of one core |")
    print("|---|---|")
    for name in STRATEGIES:
        best = found[name] = max(speed(requests, name, seed) for seed in (1, 2, 3))
        print(f"| {name} | {best:,.0f} |", flush=True)
    return found


def peak_megabytes() -> float:
    """Return the most memory that this process ever had, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=200_000, help="requests per run")
    parser.add_argument(
        "--memory", action="store_true", help=f"play {MANY:,} requests and print the peak memory"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    if options.requests < 1:
        parser.error(f"--requests is {options.requests}; it must be at least 1")
    figures: dict[str, float] = {}
    if options.memory:
        before = peak_megabytes()
        result = simulate(supermarket(MANY), "p2c", 1)
        figures = {"before_mb": before, "peak_mb": peak_megabytes()}
        print(
            f"{result.arrived:,} requests in {result.wall_seconds:.0f} s: "
            f"{figures['before_mb']:.0f} MB before, {figures['peak_mb']:.0f} MB at most"
        )
    else:
        figures = speeds(options.requests)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
