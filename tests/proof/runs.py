"""Runs of the simulator: one kind of server, Poisson arrivals, several seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Any

from tests.proof.row import Measured, of_runs

from loadwise import InFlight, SelectionContext, Strategy
from loadwise.load import Cell
from loadwise.simulation.runs.engine import simulate
from loadwise.simulation.runs.result import Latency
from loadwise.simulation.scenario import Exponential, Scenario, Servers, Service

__all__ = ["BestOfThree", "Case", "latencies", "mean", "three_choices"]

EVERYBODY = SelectionContext()
EXPONENTIAL = Exponential()


class BestOfThree:
    """Of three distinct nodes drawn at random, the one with the fewest requests in flight.

    The strategy of a user, by the documented protocol: the library itself has two choices.
    """

    def __init__(self, in_flight: InFlight, rng: Random) -> None:
        self.measures = (in_flight,)
        self._random = rng.random
        self._known: Sequence[Any] = ()
        self._cells: list[Cell] = []

    def select(
        self, candidates: Sequence[Any], context: SelectionContext = EVERYBODY
    ) -> int | None:
        if candidates is not self._known:
            self._known = candidates
            self._cells = [self.measures[0].cell(getattr(each, "id", each)) for each in candidates]
        cells, random = self._cells, self._random
        count = len(cells)
        one, two, three = (int(random() * count) for _ in range(3))
        while two == one:
            two = int(random() * count)
        while three in (one, two):
            three = int(random() * count)
        best = two if len(cells[two]) < len(cells[one]) else one
        return three if len(cells[three]) < len(cells[best]) else best


def three_choices(seed: int) -> Callable[[], Strategy[Any]]:
    """Return a recipe for `simulate`."""
    return lambda: BestOfThree(InFlight(), Random(seed))


@dataclass(frozen=True, slots=True)
class Case:
    """A fleet of servers that are alike, and how long to look at it.

    Attributes:
        load: Work that arrives, as a share of what the fleet can do.
        servers: How many there are.
        strategy: A contender's name, or ``"three choices"``.
        seeds: How many runs there are; their seeds are 1, 2, 3 and so on.
        requests: How many arrive in a run.
        warm: Seconds, or mean service times, before statistics begin.
        parallelism: Requests that a server works on at a time.
        service: How long requests take; the mean is 1 s.
    """

    load: float
    servers: int = 1
    strategy: str = "random"
    seeds: int = 20
    requests: int = 20_000
    warm: float = 100.0
    parallelism: int = 1
    service: Service = EXPONENTIAL

    def by(self, strategy: str) -> Case:
        """Return the same case for another strategy."""
        return replace(self, strategy=strategy)


@cache
def latencies(case: Case) -> tuple[Latency, ...]:
    """Simulate a case, once; return the latencies of each run."""
    rate = case.load * case.servers * case.parallelism
    scenario = Scenario(
        name="proof",
        about="A row of the proof.",
        servers=Servers(count=case.servers, parallelism=case.parallelism),
        load=case.load,
        requests=case.requests,
        warmup=case.warm * rate / case.requests,
        service=case.service,
    )
    return tuple(
        simulate(
            scenario,
            three_choices(seed) if case.strategy == "three choices" else case.strategy,
            seed,
        ).latency
        for seed in range(1, case.seeds + 1)
    )


def mean(case: Case) -> Measured:
    """Return the mean latency."""
    return of_runs([each.mean for each in latencies(case)])
