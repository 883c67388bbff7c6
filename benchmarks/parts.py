"""What the transport adds to a request, and how fast the simulator plays.

Both are programs of their own, with more to choose from: ``benchmarks/transport.py`` and
``benchmarks/simulation.py``.
"""

from __future__ import annotations

from benchmarks.model import Figure, Result, Scale, Table, show_seconds
from benchmarks.simulation import STRATEGIES, speed
from benchmarks.transport import measure, server

__all__ = ["simulator", "transport"]

_BATCHES = 200
_REQUESTS_PER_BATCH = 20
_NODES = 3
_SIMULATED = 100_000


def transport(scale: Scale) -> Result:
    """Send small requests through bare and balanced clients, by turns."""
    rows: list[tuple[str, ...]] = []
    figures: list[Figure] = []
    batches = scale.portion(_BATCHES, least=2)
    with server() as address:
        for package in ("httpx", "httpx2"):
            found = measure(package, address, _NODES, batches, _REQUESTS_PER_BATCH)
            bare, ratio = found["bare_us"] * 1e-6, found["ratio"]
            rows.append(
                (
                    package,
                    show_seconds(bare),
                    f"{ratio - 1:+.1%}",
                    f"{found['ratio_q1'] - 1:+.1%} to {found['ratio_q3'] - 1:+.1%}",
                )
            )
            figures += [
                Figure(f"transport: {package}: bare", (bare,)),
                Figure(f"transport: {package}: balanced", (bare * ratio,)),
            ]
    header = ("client", "bare request", "with the transport", "quartiles")
    note = "A small GET to a server on this machine, over a connection that is kept."
    return Result(
        (Table("transport", "The HTTP transport", header, tuple(rows), note),), tuple(figures)
    )


def simulator(scale: Scale) -> Result:
    """Play the supermarket model with each strategy."""
    requests = scale.portion(_SIMULATED, least=100)
    rows: list[tuple[str, ...]] = []
    figures: list[Figure] = []
    for name in STRATEGIES:
        speeds = [speed(requests, name, seed) for seed in (1, 2, 3)]
        rows.append((name, f"{max(speeds):,.0f}"))
        figures.append(Figure(f"simulator: {name}", tuple(1 / each for each in speeds)))
    header = ("strategy", "requests per second")
    note = f"{requests:,} requests to 100 servers at 90 % load; one core, the best of three seeds."
    return Result((Table("simulator", "The simulator", header, tuple(rows), note),), tuple(figures))
