"""Ten simulated fleets, nine of them on a bad day, and four ways to send requests to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from loadwise.simulation.runs.batch import Progress, Run, run_all
from loadwise.simulation.runs.result import Result
from loadwise.simulation.scenario import (
    Add,
    Callers,
    Clients,
    Crash,
    Fail,
    Fault,
    Group,
    Hang,
    Lognormal,
    Network,
    Outliers,
    Poisson,
    Scenario,
    Servers,
    Slow,
)

__all__ = ["FLEETS", "SEEDS", "TRIES", "WAYS", "Cell", "Key", "Way", "measure"]

SECONDS = 200
SEEDS = (1, 2, 3, 4, 5)
TRIES = (1, 3)


def _fleet(
    name: str,
    *faults: Fault,
    servers: Servers | None = None,
    rate: float = 130.0,
    clients: Clients | None = None,
    network: Network | None = None,
) -> Scenario:
    """Return a fleet with 43 % of the work that it can do, unless told otherwise."""
    return Scenario(
        name=name,
        about=f"The fleet {name!r} of docs/bad-days.md.",
        servers=servers or Servers(count=10, parallelism=3, queue_limit=15),
        requests=int(rate * SECONDS),
        arrivals=Poisson(rate=rate),
        service=Lognormal(mean=0.1, sigma=0.7),
        clients=clients or Clients(),
        network=network or Network(),
        faults=faults,
    )


def _servers(*numbers: int) -> tuple[str, ...]:
    return tuple(f"server-{number}" for number in numbers)


FLEETS = (
    _fleet("healthy"),
    _fleet(
        "brownout",
        Fail(servers=("server",), at="15%", lasts="50%", probability=0.3, after=0.01),
    ),
    _fleet(
        "gray failure",
        Fail(servers=_servers(1), at="15%", lasts="75%", probability=0.2, after=0.05),
    ),
    _fleet("dead minority", Crash(servers=_servers(1, 2, 3), at="15%", lasts="50%")),
    _fleet(
        "dead majority",
        Crash(servers=_servers(*range(1, 8)), at="15%", lasts="50%"),
        servers=Servers(count=10, parallelism=8, queue_limit=40),
    ),
    _fleet("black hole", Fail(servers=_servers(1), at="15%", lasts="50%", after=0.001)),
    _fleet("slow node", Slow(servers=_servers(1), at="15%", lasts="50%", factor=10.0)),
    _fleet(
        "slow joiner",
        Add(at="15%", group=Group(name="fresh")),
        Slow(servers=("fresh",), at="15%", lasts="20%", factor=8.0),
        servers=Servers(count=4, parallelism=6, queue_limit=30),
    ),
    _fleet(
        "zone lost",
        Hang(servers=("a",), at="15%", lasts="50%"),
        servers=Servers(
            parallelism=3,
            queue_limit=15,
            groups=tuple(Group(name=zone, count=4, zone=zone) for zone in "abc"),
        ),
        clients=Clients(count=2, zones=("b", "c")),
        network=Network(delay=0.001),
    ),
    _fleet("overload", servers=Servers(count=10, parallelism=1, queue_limit=5)),
)


BY_DEFAULT = Outliers()
# Envoy takes nobody out by its share of failures, unless told otherwise.
ENVOY = Outliers(significance="none", failure_share="none", probe=False)


@dataclass(frozen=True)
class Way:
    """A way to send requests: a column of the tables.

    Attributes:
        name: Its name on the page.
        contender: The contender of the simulator.
        outliers: When it ejects outliers, if its contender does.
    """

    name: str
    contender: str
    outliers: Outliers = BY_DEFAULT


WAYS = (
    Way("plain P2C", "p2c/no-health"),
    Way("Envoy's defaults", "p2c/no-health/outliers", ENVOY),
    Way("loadwise", "p2c"),
    Way("loadwise with outliers and slow start", "p2c/outliers/slow-start"),
)


@dataclass(frozen=True)
class Cell:
    """A cell of the tables: what one way makes of one fleet, seed by seed.

    Attributes:
        losses: The share of the requests that was lost.
        p99: Seconds that 99 % of the good answers took at most.
    """

    losses: tuple[float, ...]
    p99: tuple[float, ...]


Key = tuple[str, int, str]
"""The name of a fleet, the number of tries and the name of a way."""


def measure(
    fleets: Sequence[Scenario] = FLEETS,
    seeds: Sequence[int] = SEEDS,
    tries: Sequence[int] = TRIES,
    jobs: int = 1,
    progress: Callable[[Progress], None] | None = None,
) -> dict[Key, Cell]:
    """Simulate fleets in all ways, and return what came of it.

    Args:
        fleets: The fleets.
        seeds: The seeds; runs with the same one get the same requests.
        tries: Attempts that a request has at most, one number after another.
        jobs: Runs at a time, each in a process of its own if there are several.
        progress: Called after each run.
    """
    keys = [(fleet, number, way) for fleet in fleets for number in tries for way in WAYS]
    runs = [
        Run(_scenario(fleet, number, way), way.contender, seed)
        for fleet, number, way in keys
        for seed in seeds
    ]
    results = run_all(runs, jobs, progress)
    return {
        (fleet.name, number, way.name): _cell(results[place * len(seeds) :][: len(seeds)])
        for place, (fleet, number, way) in enumerate(keys)
    }


def _scenario(fleet: Scenario, tries: int, way: Way) -> Scenario:
    callers = Callers(timeout=1.0, attempts=tries)
    return replace(fleet, callers=callers, outliers=way.outliers, strategies=(way.contender,))


def _cell(results: Sequence[Result]) -> Cell:
    return Cell(
        tuple(1.0 - run.completed / run.arrived for run in results),
        tuple(run.latency.p99 for run in results),
    )
