"""Comparisons: the same whatever the number of processes, and paired by seed."""

from __future__ import annotations

import math
import multiprocessing
from dataclasses import replace
from typing import Any

import pytest
from tests.simulation.contestants import Broken, First, Killed, Stubborn, first

from loadwise import RoundRobin
from loadwise.simulation.analysis.comparison import Comparison, Progress, compare
from loadwise.simulation.analysis.statistics import estimate
from loadwise.simulation.errors import ScenarioError
from loadwise.simulation.runs.engine import simulate
from loadwise.simulation.runs.processes import WorkerLost
from loadwise.simulation.runs.result import Result
from loadwise.simulation.scenario import Crash, Scenario, Servers

SMALL = Scenario(name="small", about="", servers=Servers(count=5), requests=400)


def plain(run: Result) -> str:
    """Return a result without what depends on the machine; as text, for NaN is not equal to NaN."""
    return repr(replace(run, wall_seconds=0.0))


def outcome(comparison: Comparison) -> list[str]:
    """Return all results."""
    return [plain(run) for each in comparison.summaries for run in each.runs]


def test_runs_are_those_of_simulate() -> None:
    """One run per strategy and seed, in the order asked for, and no other than `simulate` gives."""
    comparison = compare(SMALL, ["p2c", "random"], seeds=[7, 3])
    runs = [(run.strategy, run.seed) for each in comparison.summaries for run in each.runs]
    assert runs == [("p2c", 7), ("p2c", 3), ("random", 7), ("random", 3)]
    assert outcome(comparison)[2] == plain(simulate(SMALL, "random", 7))
    assert comparison.scenario == SMALL


def test_summary_is_over_seeds() -> None:
    """Each estimate is that of the values of the runs."""
    (found,) = compare(SMALL, ["p2c"], seeds=3).summaries
    assert found.latency["p99"] == estimate(run.latency.p99 for run in found.runs)
    assert found.throughput == estimate(run.throughput for run in found.runs)
    assert found.errors.mean == 0.0
    assert found.keys_moved is None
    assert found.cache_hits is None


def test_shares_of_attempts_leave_out_the_warm_up_on_both_sides() -> None:
    """A server that is down from the beginning gets its fifth of random picks, counted alike.

    Of 36,000 picks the share has a standard deviation of 0.0021; five of them are allowed. To count
    the warm-up on one side would be off by 0.02.
    """
    scenario = Scenario(
        name="down",
        about="",
        servers=Servers(count=5),
        requests=20_000,
        faults=(Crash(at=0.0, servers=("server-1",)),),
    )
    (found,) = compare(scenario, ["random/no-health"], seeds=2).summaries
    assert found.unhealthy_picks.mean == pytest.approx(0.2, abs=0.0105)
    assert found.errors.mean == pytest.approx(0.2, abs=0.0105)


def test_number_of_jobs_changes_nothing() -> None:
    """Other processes, other orders of completion: the same comparison."""
    alone = compare(SMALL, ["p2c", "random", First], seeds=3, jobs=1)
    together = compare(SMALL, ["p2c", "random", First], seeds=3, jobs=4)
    assert outcome(together) == outcome(alone)
    assert together.verdict == alone.verdict


def test_strategies_default_to_those_of_the_scenario() -> None:
    """And seeds to five."""
    scenario = Scenario(
        name="own", about="", servers=Servers(count=2), requests=50, strategies=("random", "p2c")
    )
    found = compare(scenario)
    assert [each.strategy for each in found.summaries] == ["random", "p2c"]
    assert [run.seed for run in found.summaries[0].runs] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("jobs", [1, 2])
def test_progress_counts_every_run(jobs: int) -> None:
    """Each run is told of once, and the last one completes the number."""
    seen: list[Progress] = []
    compare(SMALL, ["p2c", "random"], seeds=2, jobs=jobs, progress=seen.append)
    assert [each.done for each in seen] == [1, 2, 3, 4]
    assert {each.total for each in seen} == {4}
    assert {(each.strategy, each.seed) for each in seen} == {
        (name, seed) for name in ("p2c", "random") for seed in (1, 2)
    }


def test_strategies_of_a_users_own() -> None:
    """Classes and functions take part, in other processes too, by their names."""
    found = compare(SMALL, [First, first, "p2c"], seeds=2, jobs=2)
    assert [each.strategy for each in found.summaries] == ["First", "first", "p2c"]
    assert found.summaries[0].imbalance.mean == pytest.approx(5.0)


def test_strategy_that_cannot_travel() -> None:
    """A class in a function is unknown to other processes; in this one it works."""

    class Local(RoundRobin[Any]):
        """Round robin under another name."""

    with pytest.raises(TypeError, match=r"'Local' cannot be sent.*jobs=1 works with any"):
        compare(SMALL, [Local], seeds=2, jobs=2)
    assert compare(SMALL, [Local], seeds=2).summaries[0].strategy == "Local"


@pytest.mark.parametrize("jobs", [1, 2])
def test_errors_of_a_strategy_reach_the_caller(jobs: int) -> None:
    """As they are, whichever process they come from; and no process is left."""
    with pytest.raises(ZeroDivisionError, match="broken on purpose"):
        compare(SMALL, ["p2c", Broken], seeds=3, jobs=jobs)
    assert multiprocessing.active_children() == []


def test_errors_that_cannot_be_sent_are_told() -> None:
    """An exception that does not survive the way is replaced by one with its text."""
    with pytest.raises(RuntimeError, match="an odd error in select"):
        compare(SMALL, [Stubborn], seeds=2, jobs=2)


def test_process_that_is_killed() -> None:
    """It is said what may have happened and what works; and no process is left."""
    with pytest.raises(WorkerLost, match=r"was it killed.*jobs=1 takes no processes"):
        compare(SMALL, [Killed], seeds=2, jobs=2)
    assert multiprocessing.active_children() == []


class _EnoughError(Exception):
    pass


@pytest.mark.parametrize("kind", [_EnoughError, KeyboardInterrupt])
def test_giving_up_leaves_no_process(kind: type[BaseException]) -> None:
    """What is raised while runs are under way, Ctrl-C too, ends them all."""

    def stop(_: Progress) -> None:
        raise kind

    slow = Scenario(name="slow", about="", servers=Servers(count=5), requests=20_000)
    with pytest.raises(kind):
        compare(slow, ["p2c"], seeds=6, jobs=2, progress=stop)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        ({"seeds": 0}, ValueError, "seeds is 0"),
        ({"seeds": []}, ValueError, "seeds is empty"),
        ({"seeds": [1, 1]}, ValueError, "seed 1 is given twice"),
        ({"seeds": "3"}, TypeError, "seeds is '3'"),
        ({"seeds": True}, TypeError, "seeds is True"),
        ({"seeds": [1.5]}, TypeError, "seed is 1.5"),
        ({"jobs": 0}, ValueError, "jobs is 0"),
        ({"jobs": 2.0}, TypeError, "jobs is 2.0"),
        ({"strategies": []}, ValueError, "no strategy"),
        ({"strategies": "p2c"}, TypeError, r"such as \['p2c'\]"),
        ({"strategies": ["p2c", "PowerOfTwoChoices"]}, ValueError, "'p2c' is given twice"),
        ({"strategies": ["p3c"]}, ValueError, "did you mean 'p2c'"),
        ({"strategies": ["consistent-hash"]}, ScenarioError, "set clients.keys"),
    ],
)
def test_arguments_are_checked_before_any_run(
    settings: dict[str, Any], kind: type[Exception], said: str
) -> None:
    """Each error names the value."""
    with pytest.raises(kind, match=said):
        compare(SMALL, **settings, progress=lambda _: pytest.fail("it ran"))


def test_name_is_no_scenario() -> None:
    """A name has to be loaded first, and the message says by what."""
    with pytest.raises(TypeError, match=r"'slow-node'; it must be a Scenario, as load_scenario"):
        compare("slow-node")  # type: ignore[arg-type]


def test_nothing_completed_is_unknown() -> None:
    """Latencies of no request are NaN, in the summary too, and the verdict does not trip."""
    scenario = Scenario(
        name="dead",
        about="",
        servers=Servers(count=2),
        requests=50,
        faults=(Crash(at=0.0, servers=("server",)),),
    )
    found = compare(scenario, ["p2c", "random"], seeds=2)
    assert math.isnan(found.summaries[0].latency["mean"].mean)
    assert found.summaries[0].errors.mean == 1.0
    assert any("no request was completed" in sentence for sentence in found.verdict)
