"""Runs of a comparison, one after another or several at a time."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from loadwise._tables.contenders import Recipe, contender
from loadwise.simulation.runs.engine import simulate
from loadwise.simulation.runs.processes import work_through
from loadwise.simulation.runs.result import Result
from loadwise.simulation.scenario import Scenario

__all__ = ["Progress", "Run", "run_all"]


@dataclass(frozen=True, slots=True)
class Run:
    """Run to simulate: the scenario, the contender and the seed."""

    scenario: Scenario
    recipe: Recipe
    seed: int

    def play(self) -> Result:
        """Simulate it."""
        return simulate(self.scenario, self.recipe, self.seed)


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a comparison, after a run has ended.

    Attributes:
        done: Runs that have ended.
        total: Runs that there are.
        strategy: Name of the contender of the run that ended.
        seed: Its seed.
    """

    done: int
    total: int
    strategy: str
    seed: int


def run_all(
    runs: Sequence[Run], jobs: int = 1, progress: Callable[[Progress], None] | None = None
) -> list[Result]:
    """Return what comes of the runs, in their order.

    Args:
        runs: What to simulate.
        jobs: Runs at a time; with more than 1, each has a process.
        progress: Called after each run, in this process.

    Raises:
        TypeError: A strategy cannot be sent to another process.
        WorkerLost: A process ended before its time.
    """
    jobs = min(jobs, len(runs))
    results: dict[int, Result] = {}
    ended = _one_by_one(runs) if jobs <= 1 else _in_processes(runs, jobs)
    # Closed at once when it is left early, and not when it is collected.
    try:
        for place, result in ended:
            results[place] = result
            if progress is not None:
                progress(Progress(len(results), len(runs), result.strategy, result.seed))
    finally:
        ended.close()
    return [results[place] for place in range(len(runs))]


def _one_by_one(runs: Sequence[Run]) -> Generator[tuple[int, Result], None, None]:
    for place, run in enumerate(runs):
        yield place, run.play()


def _in_processes(runs: Sequence[Run], jobs: int) -> Generator[tuple[int, Result], None, None]:
    return work_through([_packed(run) for run in runs], _unpack_and_play, jobs)


def _packed(run: Run) -> bytes:
    # Packed and unpacked here, so that what fails, fails with a word about it.
    try:
        return pickle.dumps(run)
    except Exception as error:
        raise TypeError(_cannot_travel(repr(contender(run.recipe).name))) from error


def _unpack_and_play(parcel: bytes) -> Result:
    try:
        run: Run = pickle.loads(parcel)  # noqa: S301 - packed by our parent
    except Exception as error:
        raise TypeError(_cannot_travel(f"({error})")) from error
    return run.play()


def _cannot_travel(which: str) -> str:
    return (
        f"strategy {which} cannot be sent to another process: it must be a class or function at "
        f"the top level of a module that can be imported; jobs=1 works with any"
    )
