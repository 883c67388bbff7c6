"""The simulator against another one, given the same requests: every latency is the same.

The other one (`oracle`) is written on top of simpy, an established library for discrete-event
simulation, from what the scenario's documentation says. Both read the same arrival and service
times, and choose by rules without chance, so there is nothing statistical in the comparison:
times agree to a nanosecond, and counts are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from tests.simulation.oracle import Fleet, Job, Oracle, Rule, fewest, in_turn

from loadwise import LeastLoad, Outcome, RoundRobin, Strategy
from loadwise.clock import Clock
from loadwise.load import Cell
from loadwise.simulation.runs.engine import simulate
from loadwise.simulation.runs.result import QUANTILES, Result
from loadwise.simulation.scenario import (
    Callers,
    Crash,
    Fault,
    Group,
    Health,
    Scenario,
    Servers,
    Slow,
    Trace,
)

NANOSECOND = 1e-9


class RankedCell(Cell):
    """Requests in flight at a server whose place in the order is known."""

    __slots__ = ("rank",)

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank


class Ranked:
    """Load as the requests in flight, of equals the first; notes each attempt that ends."""

    def __init__(self) -> None:
        self.log: list[tuple[float, float, bool]] = []
        self._cells: dict[Hashable, RankedCell] = {}

    def cell(self, node_id: Hashable) -> RankedCell:
        return self._cells.setdefault(node_id, RankedCell(len(self._cells)))

    def load(self, cell: Cell) -> float:
        assert isinstance(cell, RankedCell)
        return len(cell) + cell.rank / 1000

    def observe(self, cell: Cell, latency: float, outcome: Outcome, now: float) -> None:
        self.log.append((now - latency, now, outcome is Outcome.SUCCESS))

    def use_clock(self, clock: Clock) -> None:
        """It is told the time."""


class Watched:
    """A strategy with a measure beside it."""

    def __init__(self, strategy: Strategy[Any], measure: Ranked) -> None:
        self.measures = (measure,)
        self.select = strategy.select


def jobs_of(seed: int, count: int, rate: float, *, deterministic: bool = False) -> list[Job]:
    """Return requests that arrive independently, with exponential or with equal service times."""
    rng = Random(seed)
    gaps = (rng.expovariate(rate) for _ in range(count - 1))
    return [
        (arrival, 1.0 if deterministic else rng.expovariate(1.0))
        for arrival in accumulate(gaps, initial=0.0)
    ]


def scenario_of(fleet: Fleet, jobs: Sequence[Job], folder: Path) -> Scenario:
    """Write the requests to a file, and return the scenario that says what the fleet is."""
    file = folder / "requests.csv"
    lines = (f"{arrival!r},{work!r}\n" for arrival, work in jobs)
    file.write_text("at,work\n" + "".join(lines), encoding="utf-8")
    faults: list[Fault] = []
    if fleet.down is not None:
        begin, end = fleet.down
        faults.append(Crash(at=begin, lasts=end - begin, servers=("s0",)))
    if fleet.slow is not None:
        begin, end = fleet.slow
        faults.append(Slow(at=begin, lasts=end - begin, factor=3.0, servers=("s1",)))
    return Scenario(
        name="oracle",
        about="The same requests for two simulators.",
        servers=Servers(
            groups=tuple(
                Group(name=f"s{index}", speed=speed) for index, speed in enumerate(fleet.speeds)
            ),
            parallelism=fleet.parallelism,
            queue_limit=fleet.queue_limit,
        ),
        requests=len(jobs),
        warmup=0.0,
        arrivals=Trace(file=str(file), time="at", cost=("work",)),
        callers=Callers(timeout=fleet.timeout, attempts=fleet.attempts, budget=1.0),
        health=Health(enabled=False),
        faults=tuple(faults),
    )


def least(measure: Ranked) -> Strategy[Any]:
    """Return the library's least load, over a load without ties."""
    return LeastLoad(measure)


def turns(measure: Ranked) -> Strategy[Any]:
    """Return the library's round robin, with a measure that looks on."""
    return Watched(RoundRobin(), measure)


FLEETS = {
    "M/M/1": (Fleet(speeds=(1.0,)), 0.9, False),
    "M/M/4": (Fleet(speeds=(1.0,), parallelism=4), 3.6, False),
    "three servers": (Fleet(), 2.7, False),
    "deterministic service": (Fleet(), 2.7, True),
    "speeds": (Fleet(speeds=(0.5, 1.0, 2.0, 0.1)), 2.9, False),
    "parallelism and speeds": (Fleet(speeds=(0.5, 1.0), parallelism=3), 3.5, False),
    "no queue": (Fleet(parallelism=2, queue_limit=0), 5.0, False),
    "a short queue": (Fleet(speeds=(1.0, 2.0), queue_limit=3), 4.0, True),
    "timeout": (Fleet(timeout=2.5), 2.8, False),
    "timeout and a short queue": (Fleet(parallelism=2, queue_limit=4, timeout=2.0), 6.5, False),
    "crash": (Fleet(parallelism=2, down=(100.3, 180.9)), 4.5, False),
    "slow": (Fleet(slow=(50.1, 120.7)), 2.0, False),
    "everything": (
        Fleet((0.8, 1.0, 1.5), 2, 5, 3.0, 1, (70.3, 150.1), (100.9, 260.3)),
        6.0,
        False,
    ),
}
RETRIES = {
    "a full queue": (Fleet(parallelism=2, queue_limit=2, attempts=2), 6.5, False),
    "timeouts": (Fleet(timeout=1.5, attempts=3), 1.2, False),
    "a crash": (Fleet(attempts=2, down=(100.3, 180.9)), 2.0, False),
    "everything": (Fleet((0.8, 1.0, 1.5), 1, 5, 3.0, 3, (70.3, 150.1), (100.9, 260.3)), 2.0, False),
}


@pytest.mark.parametrize("name", FLEETS)
@pytest.mark.parametrize(("rule", "make"), [(in_turn, turns), (fewest, least)])
def test_the_same_as_another_simulator(
    name: str, rule: Rule, make: Callable[[Ranked], Strategy[Any]], tmp_path: Path
) -> None:
    """All attempts begin and end at the same times, and the results say the same of them.

    Source: the independent model, on simpy 4.1; 3,000 requests, without warm-up.
    """
    compare(*FLEETS[name], rule, make, tmp_path)


@pytest.mark.parametrize("name", RETRIES)
def test_retries_the_same_as_another_simulator(name: str, tmp_path: Path) -> None:
    """Requests that fail go on to another server, at the same times in both simulators."""
    found = compare(*RETRIES[name], fewest, least, tmp_path)
    assert found.repeated > 50


def test_the_warm_up_is_left_out(tmp_path: Path) -> None:
    """Statistics are of the requests after the first 30 %, whenever those complete."""
    jobs = jobs_of(2, 1000, 2.7)
    scenario = replace(scenario_of(Fleet(), jobs, tmp_path), warmup=0.3)
    result = simulate(scenario, lambda: least(Ranked()))
    oracle = Oracle(Fleet(), fewest, jobs)
    assert result.completed == 1000
    check_latencies(result, [oracle.latencies[number] for number in range(300, 1000)])


def check_latencies(result: Result, expected: Sequence[float]) -> None:
    """Compare the statistics of a result with the latencies that they should be of."""
    assert result.latency.mean == pytest.approx(np.mean(expected), abs=NANOSECOND)
    assert result.quantiles == pytest.approx(np.quantile(expected, QUANTILES), abs=NANOSECOND)


def compare(
    fleet: Fleet,
    rate: float,
    deterministic: bool,  # noqa: FBT001 - part of a table of cases
    rule: Rule,
    make: Callable[[Ranked], Strategy[Any]],
    folder: Path,
) -> Oracle:
    """Run both simulators and compare all that both know; return the other one."""
    jobs = jobs_of(1, 3000, rate, deterministic=deterministic)
    measure = Ranked()
    result = simulate(scenario_of(fleet, jobs, folder), lambda: make(measure))
    oracle = Oracle(fleet, rule, jobs)
    # Attempts that begin at the same time, after a crash, may be noted in either order.
    assert np.array(sorted(measure.log)) == pytest.approx(
        np.array(sorted(oracle.log)), abs=NANOSECOND
    )
    assert oracle.ends == {
        "completed": result.completed,
        "failed": result.failed,
        "dropped": result.dropped,
    }
    assert (result.in_flight, result.retries, result.timeouts) == (
        0,
        oracle.repeated,
        oracle.timeouts,
    )
    check_latencies(result, [*oracle.latencies.values()])
    return oracle
