"""The summary as an HTML table: a row per strategy, a mean and its interval in each cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from loadwise.simulation.analysis.comparison import Comparison, Estimate, Summary
from loadwise.simulation.analysis.ranking import confidence_for, rank
from loadwise.simulation.analysis.verdict import lossy_of
from loadwise.simulation.figures import ERRORS, FIGURES, FIRST_TOKENS, LATENCIES, Figure
from loadwise.simulation.report.text import markup
from loadwise.simulation.units import duration_unit, percentage, rounded

__all__ = ["table"]

_BEST = '<span class="best" title="best">★<span class="unseen"> best: </span></span>'


@dataclass(frozen=True, slots=True)
class _Column:
    """A figure of all strategies.

    Attributes:
        figure: The figure.
        unit: Unit of the column.
        values: Estimates of it, by row.
        written: Writes a value; given the mean, for its spread.
    """

    figure: Figure
    unit: str
    values: Sequence[Estimate | None]
    written: Callable[[float, float], str]

    @property
    def head(self) -> str:
        """The heading of the column."""
        return f'<th scope="col">{self.figure.title}<small>{self.unit}</small></th>'


def table(comparison: Comparison) -> str:
    """Return the table, without its caption."""
    summaries = comparison.summaries
    columns = _columns(summaries)
    heads = "".join(column.head for column in columns)
    best = [_best(column, summaries) for column in columns]
    rows: list[str] = []
    for row, summary in enumerate(summaries):
        cells = (
            _cell(column, column.values[row], best=summary in marked)
            for column, marked in zip(columns, best, strict=True)
        )
        name = markup(summary.strategy)
        rows.append(f'<tr><th scope="row">{name}</th>{"".join(cells)}</tr>')
    head = f'<thead><tr><th scope="col">strategy</th>{heads}</tr></thead>'
    return f"{head}<tbody>{''.join(rows)}</tbody>"


def _columns(summaries: Sequence[Summary]) -> list[_Column]:
    columns: list[_Column] = []
    others = sorted(FIGURES, key=lambda figure: (figure.rare, figure.part))
    for figure in (*FIRST_TOKENS, *LATENCIES, *others):
        values = [summary.of(figure) for summary in summaries]
        if any(each is not None and (each.mean or not figure.rare) for each in values):
            columns.append(
                _time(figure, values)
                if figure.is_time
                else _Column(figure, figure.unit, values, partial(_written, figure))
            )
    return columns


def _time(figure: Figure, values: Sequence[Estimate | None]) -> _Column:
    known = [value.mean for value in values if value is not None and value.mean > 0]
    # One unit for a column: that of the middle, on a log scale.
    length, unit = duration_unit(math.sqrt(min(known) * max(known)) if known else 1.0)

    def written(value: float, mean: float) -> str:
        return rounded(value / length, mean / length)

    return _Column(figure, unit, values, written)


def _written(figure: Figure, value: float, mean: float) -> str:
    # The spread of a share has digits of its own: there is room for them.
    return figure.written(value, None if figure.written is percentage else mean)


def _best(column: _Column, summaries: Sequence[Summary]) -> Sequence[Summary]:
    """Return the best and those that cannot be told from it; nobody if those are all.

    As in the verdict, the latencies of those that lose more requests do not count.
    """
    figure = column.figure
    if figure.better is None or len(summaries[0].runs) == 1:
        return ()
    confidence = confidence_for(len(summaries))
    by_errors = rank(summaries, ERRORS.less, confidence)
    of_all = not figure.is_time
    lossy = [] if of_all or by_errors is None else lossy_of(by_errors)
    reliable = [summary for summary in summaries if summary not in lossy]
    ranking = rank(reliable, figure.less, confidence)
    if ranking is None or 1 + len(ranking.tied) == len(summaries):
        return ()
    return (ranking.first, *ranking.tied)


def _cell(column: _Column, value: Estimate | None, *, best: bool) -> str:
    if value is None:
        return f"<td>{rounded(math.nan)}</td>"
    mean = column.written(value.mean, value.mean)
    half = value.high - value.mean
    # Half of nearly nothing is at most what the smallest share is shown as.
    spread = column.written(half, value.mean).removeprefix("< ")
    interval = f"<small>±{spread}</small>" if half > 0 else ""
    return f"<td>{_BEST}<b>{mean}</b>{interval}</td>" if best else f"<td>{mean}{interval}</td>"
