"""Comparison of strategies on the same scenario over several seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadwise._callables import refuse_async
from loadwise._numbers import whole
from loadwise._tables.contenders import Recipe, contender
from loadwise.simulation.analysis.statistics import Estimate
from loadwise.simulation.analysis.summary import Summary, summarise
from loadwise.simulation.analysis.verdict import verdict
from loadwise.simulation.runs.batch import Progress, Run, run_all
from loadwise.simulation.scenario import Scenario
from loadwise.simulation.scenario.consistency import check_strategy, validated

__all__ = ["Comparison", "Estimate", "Progress", "Summary", "compare"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Strategies side by side.

    Attributes:
        scenario: What was simulated.
        summaries: One per strategy, in the order asked for.
        verdict: Sentences that the intervals support.
    """

    scenario: Scenario
    summaries: tuple[Summary, ...]
    verdict: tuple[str, ...]


def compare(
    scenario: Scenario,
    strategies: Sequence[Recipe] | None = None,
    *,
    seeds: int | Sequence[int] = 5,
    jobs: int = 1,
    progress: Callable[[Progress], None] | None = None,
) -> Comparison:
    """Run a scenario with several strategies and several seeds, and say what differs.

    Runs with the same seed are given the same requests, so strategies are compared seed by seed.
    What comes out depends neither on ``jobs`` nor on which run ends first.

    Args:
        scenario: What to simulate.
        strategies: Whom to compare, as `simulate` takes them; by default the scenario's own list.
        seeds: How many seeds, 1 or more, from 1 on; or the seeds themselves. Two or more are
            needed for intervals, and so for a verdict.
        jobs: Runs at a time. More than 1 takes processes, started by ``spawn``: a strategy
            class must then be one that these can import, and a script needs its
            ``if __name__ == "__main__":``.
        progress: Called after each run, in this process.

    Raises:
        ScenarioError: The scenario contradicts itself, or its trace cannot be read.
        ValueError: There is no such strategy, one is given twice, or there is no seed.
        TypeError: An argument is of the wrong kind, or cannot be sent to another process.
        RuntimeError: A process ended before its time.

    Thread-safety: calls share nothing. Ctrl-C ends all processes before ``KeyboardInterrupt``
    reaches the caller.

    Cost: that of ``simulate`` for each strategy and seed; all results are kept.

    Example:
        >>> from loadwise.simulation.scenario import Scenario, Servers
        >>> scenario = Scenario(name="four", about="", servers=Servers(count=4), requests=3000)
        >>> comparison = compare(scenario, ["random", "p2c"], seeds=3)
        >>> [(s.strategy, len(s.runs)) for s in comparison.summaries]
        [('random', 3), ('p2c', 3)]
    """
    if progress is not None and not callable(progress):
        raise TypeError(f"progress is {progress!r}; it must be a function of a Progress")
    refuse_async("progress", progress, "nobody would await it: give a plain function")
    if isinstance(strategies, str):
        raise TypeError(
            f"strategies is {strategies!r}; it must be a list, such as [{strategies!r}]"
        )
    scenario = validated(scenario)
    recipes = scenario.strategies if strategies is None else tuple(strategies)
    names = _names(recipes)
    for recipe in recipes:
        if isinstance(recipe, str):
            check_strategy(scenario, recipe)
    numbers = _numbers(seeds)
    jobs = whole("jobs", jobs, 1)
    # Seed by seed, so that the time left can be told from the time gone.
    runs = [Run(scenario, recipe, seed) for seed in numbers for recipe in recipes]
    results = run_all(runs, jobs, progress)
    summaries = tuple(
        summarise(name, results[place :: len(names)]) for place, name in enumerate(names)
    )
    return Comparison(scenario, summaries, verdict(scenario, summaries))


def _names(recipes: Sequence[Recipe]) -> list[str]:
    """Return what the contenders are called, each by a name of its own."""
    names = [contender(recipe).name for recipe in recipes]
    if not names:
        raise ValueError("there is no strategy to simulate; name one, or leave strategies out")
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"strategy {name!r} is given twice; results are told apart by name, which is that "
                f"of the class or function"
            )
    return names


def _numbers(seeds: int | Sequence[int]) -> list[int]:
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        if seeds < 1:
            raise ValueError(f"seeds is {seeds}; it must be 1 or more")
        return [*range(1, seeds + 1)]
    if isinstance(seeds, (bool, str)) or not isinstance(seeds, Sequence):
        raise TypeError(f"seeds is {seeds!r}; it must be a number of seeds, or a list of them")
    numbers = [whole("seed", seed) for seed in seeds]
    if not numbers:
        raise ValueError("seeds is empty; one seed is the least, and two the least for a verdict")
    for seed in numbers:
        if numbers.count(seed) > 1:
            raise ValueError(f"seed {seed} is given twice; it would count as two, and tells of one")
    return numbers
