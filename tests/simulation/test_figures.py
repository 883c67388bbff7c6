"""Figures: each declared once, and shown by all that show figures."""

from __future__ import annotations

import io
import math
from dataclasses import fields

import pytest
from rich.console import Console
from tests.simulation.results import latency, result, summary

from loadwise.cli.compare.table import show_tables
from loadwise.simulation.analysis.comparison import Comparison
from loadwise.simulation.analysis.summary import Summary
from loadwise.simulation.analysis.verdict import verdict
from loadwise.simulation.export import to_json
from loadwise.simulation.figures import FIGURES, FIRST_TOKENS, LATENCIES, Figure
from loadwise.simulation.report.table import table
from loadwise.simulation.runs.result import COUNTS, RANKS, Latency, Result
from loadwise.simulation.scenario import Scenario, Servers

TIMES = {"latency": LATENCIES, "ttft": FIRST_TOKENS}
ALL = (*LATENCIES, *FIRST_TOKENS, *FIGURES)


def comparison() -> Comparison:
    """Return one in which every figure applies and none is 0."""
    scenario = Scenario(name="test", about="", servers=Servers(count=2))
    summaries = tuple(
        summary(
            name,
            [mean, 1.1 * mean],
            failed=10,
            retries=20,
            unhealthy_picks=30,
            keys_moved=0.1 * mean,
            cache_hits=0.2 * mean,
            panic=0.3,
            ejections=40,
            ttft=latency(0.1 * mean),
            tpot=0.01 * mean,
            cache_hit=0.3 * mean,
        )
        for name, mean in (("quick", 1.0), ("slow", 2.0))
    )
    return Comparison(scenario, summaries, verdict(scenario, summaries))


def test_names_are_unique() -> None:
    """Each is the key of one figure; those of times to first token are those of latencies."""
    names = {figure.name for figure in (*LATENCIES, *FIGURES)}
    assert len(names) == len(LATENCIES) + len(FIGURES)
    assert [figure.name for figure in FIRST_TOKENS] == [figure.name for figure in LATENCIES]


def test_latencies_are_those_of_the_record() -> None:
    """All that a run keeps of its latencies is declared, in this order."""
    names = [field.name for field in fields(Latency)]
    assert [figure.name for figure in LATENCIES] == names
    run = result(latency=latency(2.0))
    assert [figure.of(run) for figure in LATENCIES] == [
        getattr(run.latency, name) for name in names
    ]


def test_percentiles_are_at_the_ranks_in_their_names() -> None:
    """A field p999 is the quantile at 0.999, and p99.9 to people."""
    headings = {figure.name: figure.heading for figure in LATENCIES}
    for name, rank, heading in (
        ("p50", 0.5, "p50"),
        ("p99", 0.99, "p99"),
        ("p999", 0.999, "p99.9"),
    ):
        assert RANKS[name] == rank
        assert headings[name] == heading


@pytest.mark.parametrize("figure", ALL, ids=lambda figure: figure.title)
def test_every_figure_is_everywhere(figure: Figure) -> None:
    """In summaries, in the JSON, in both tables, and in the verdict where it has a name there."""
    made = comparison()
    data = to_json(made)
    group = next((name for name, figures in TIMES.items() if figure in figures), None)
    for summed, exported in zip(made.summaries, data["summaries"], strict=True):
        estimate = summed.of(figure)
        assert estimate is not None
        keys = exported[group] if group else exported
        assert keys[figure.name]["mean"] == estimate.mean
    for exported in data["results"]:
        keys = exported[group] if group else exported
        assert (figure.name in keys) == (not figure.counted or figure.name in COUNTS)
    assert f">{figure.title}<small>" in table(made)
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as capture:
        show_tables(console, made)
    for word in figure.heading.split("\n"):
        assert word in capture.get()
    assert any(line.startswith(f"{figure.spoken}: ") for line in made.verdict) or not figure.spoken


NAMED = sorted(name for name, value in vars(Summary).items() if hasattr(value, "__set_name__"))


@pytest.mark.parametrize("name", NAMED)
def test_attributes_of_a_summary_are_its_figures(name: str) -> None:
    """An attribute is the estimate of the figure of its name, as it always was for these."""
    (summed, _) = comparison().summaries
    assert len(NAMED) >= 9
    assert getattr(summed, name) is summed.figures[name]


def test_more_is_better_by_its_negative() -> None:
    """What `less` turns round, `shown` turns back."""
    for figure in FIGURES:
        run = result(
            failed=7,
            retries=3,
            unhealthy_picks=5,
            keys_moved=0.5,
            cache_hits=0.25,
            cache_hit=0.75,
            tpot=0.03,
        )
        value = figure.of(run)
        assert value is not None
        sign = -1.0 if figure.better == "higher" else 1.0
        assert figure.less(run) == sign * value
        assert figure.shown(figure.less(run)) == figure.written(value, None)


def test_nothing_known_of_no_requests() -> None:
    """A share of none is unknown, and not 0."""
    nothing = result(arrived=0, completed=0, attempts=0)
    unknown = {figure.name for figure in FIGURES if math.isnan(figure.less(nothing))}
    assert unknown == {"errors", "retries", "unhealthy_picks"}


def test_counts_are_fields_of_a_result() -> None:
    """Exports name them all, and they are whole numbers of a run."""
    run = result()
    assert set(COUNTS) < {field.name for field in fields(Result)}
    assert all(isinstance(getattr(run, name), int) for name in COUNTS)
