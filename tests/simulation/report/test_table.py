"""The table: who gets a star, and how values and spreads look."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from tests.simulation.report.made import few_servers, many_servers

from loadwise.simulation.analysis.comparison import Comparison
from loadwise.simulation.analysis.summary import summarise
from loadwise.simulation.report.footnotes import notes
from loadwise.simulation.report.table import table
from loadwise.simulation.runs.result import Result

WIDTH = 12
"""Columns: the strategy, five latencies, six others."""


def made(**runs: list[tuple[float, int]]) -> Comparison:
    """Return a comparison of strategies by their runs: mean latency, requests lost of 1,000."""
    plain = many_servers()
    model = plain.summaries[0].runs[0]

    def run(seed: int, mean: float, lost: int) -> Result:
        latency = replace(model.latency, mean=mean)
        completed = 1000 - lost
        return replace(
            model,
            seed=seed,
            latency=latency,
            arrived=1000,
            completed=completed,
            failed=lost,
            dropped=0,
        )

    summaries = [
        summarise(name, [run(seed, *each) for seed, each in enumerate(given)])
        for name, given in runs.items()
    ]
    return Comparison(plain.scenario, tuple(summaries), ())


def cells(comparison: Comparison, column: int) -> list[str]:
    """Return a column's cells, as text."""
    rows = re.findall(r"<tr>(.*?)</tr>", table(comparison))
    found = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
    assert {len(row) for row in found} == {WIDTH}
    return [re.sub(r"<[^>]+>", "", row[column]) for row in found[1:]]


def test_the_best_has_a_star() -> None:
    """A difference that the seeds bear out makes a star, with a word for who does not see it."""
    means = cells(made(slow=[(0.2, 0), (0.21, 0)], fast=[(0.1, 0), (0.11, 0)]), 1)
    assert means == ["205±64", "★ best: 105±64"]


def test_what_cannot_be_told_apart_has_one_too() -> None:
    """Seed by seed these two win in turn, and the third loses."""
    comparison = made(
        a=[(0.10, 0), (0.11, 0), (0.10, 0)],
        b=[(0.11, 0), (0.10, 0), (0.11, 0)],
        c=[(0.90, 0), (0.91, 0), (0.90, 0)],
    )
    assert ["best" in cell for cell in cells(comparison, 1)] == [True, True, False]


def test_no_stars_when_all_are_alike() -> None:
    """A star that everybody has says nothing."""
    comparison = made(a=[(0.1, 0), (0.2, 0)], b=[(0.2, 0), (0.1, 0)])
    assert not any("best" in cell for cell in cells(comparison, 1))


def test_who_loses_requests_is_not_the_fastest() -> None:
    """Quick answers to some do not make up for none to others."""
    comparison = made(quick=[(0.1, 500), (0.1, 501)], steady=[(0.2, 0), (0.2, 0)])
    assert ["best" in cell for cell in cells(comparison, 1)] == [False, True]
    assert cells(comparison, 7) == ["50 %±0.64 %", "★ best: 0 %"]


def test_one_seed_has_no_spread() -> None:
    """Nothing but the values."""
    assert cells(made(a=[(0.25, 0)], b=[(0.5, 0)]), 1) == ["250", "500"]


def test_nothing_completed() -> None:
    """A mean that is not known is a dash."""
    nan = float("nan")
    assert cells(made(a=[(nan, 1000), (nan, 1000)]), 1) == ["-"]


@pytest.mark.parametrize("title", ["mean", "p99.9", "lost", "on unhealthy", "Jain's"])
def test_columns_are_headed(title: str) -> None:
    """Headings have a scope and a unit."""
    assert f'<th scope="col">{title}<small>' in table(few_servers())
    assert "keys moved" not in table(few_servers()), "there are no keys"


def test_panic_has_a_column_where_there_was_some() -> None:
    """Without a star: it is neither good nor bad."""
    comparison = few_servers()
    assert "in panic" not in table(comparison)
    assert not any("panic" in note for note in notes(comparison))
    calm, *others = comparison.summaries
    runs = [replace(run, panic=share) for run, share in zip(calm.runs, (0.2, 0.4), strict=False)]
    panicked = summarise(calm.strategy, runs)
    comparison = replace(comparison, summaries=(panicked, *others))
    assert '<th scope="col">in panic<small>of the time</small></th>' in table(comparison)
    assert "<td>30 %" in table(comparison)
    assert any("In panic: the share of the time" in note for note in notes(comparison))
