"""The summary as an HTML table: a row per strategy, a mean and its interval in each cell."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadwise.simulation.analysis.comparison import Comparison, Estimate, Summary
from loadwise.simulation.analysis.ranking import Figure, confidence_for, rank
from loadwise.simulation.analysis.summary import LATENCIES, error_share, unhealthy_share
from loadwise.simulation.analysis.verdict import lossy_of
from loadwise.simulation.runs.result import Result
from loadwise.simulation.units import duration_unit, percentage, rounded

__all__ = ["table"]

_BEST = '<span class="best" title="best">★<span class="unseen"> best: </span></span>'
_TITLES = {"p999": "p99.9"}


@dataclass(frozen=True, slots=True)
class _Column:
    """A figure of all strategies.

    Attributes:
        title: What it is.
        unit: What it is measured in.
        values: It, by row.
        written: Writes a value, given the mean.
        figure: The same of one run, less being better; ``None`` where nothing is better.
        of_all: Whether it can be compared whatever share of the requests was lost.
    """

    title: str
    unit: str
    values: Sequence[Estimate | None]
    written: Callable[[float, float], str]
    figure: Figure | None = None
    of_all: bool = True


def table(comparison: Comparison) -> str:
    """Return the table, without its caption."""
    summaries = comparison.summaries
    columns = _columns(summaries)
    heads = "".join(
        f'<th scope="col">{column.title}<small>{column.unit}</small></th>' for column in columns
    )
    best = [_best(column, summaries) for column in columns]
    rows: list[str] = []
    for row, summary in enumerate(summaries):
        cells = (
            _cell(column, column.values[row], best=summary in marked)
            for column, marked in zip(columns, best, strict=True)
        )
        name = html.escape(summary.strategy)
        rows.append(f'<tr><th scope="row">{name}</th>{"".join(cells)}</tr>')
    head = f'<thead><tr><th scope="col">strategy</th>{heads}</tr></thead>'
    return f"{head}<tbody>{''.join(rows)}</tbody>"


def _columns(summaries: Sequence[Summary]) -> list[_Column]:
    def of(figure: Callable[[Summary], Estimate | None]) -> list[Estimate | None]:
        return [figure(summary) for summary in summaries]

    latencies = [_latency(name, summaries) for name in LATENCIES]
    service = [
        _Column(
            "completed",
            "per second",
            of(lambda each: each.throughput),
            rounded,
            lambda run: -run.throughput,
        ),
        _Column("lost", "of requests", of(lambda each: each.errors), _share, error_share),
        _Column(
            "retries",
            "per request",
            of(lambda each: each.retries),
            _share,
            lambda run: run.retries / run.arrived,
        ),
        _Column(
            "on unhealthy",
            "of attempts",
            of(lambda each: each.unhealthy_picks),
            _share,
            unhealthy_share,
        ),
        _Column("max/mean", "load", of(lambda each: each.imbalance), rounded),
        _Column("Jain's", "index", of(lambda each: each.jain), _index),
    ]
    special = [
        _Column(
            "keys moved",
            "of requests",
            of(lambda each: each.keys_moved),
            _share,
            lambda run: run.keys_moved or 0.0,
        ),
        _Column(
            "cache hits",
            "of requests",
            of(lambda each: each.cache_hits),
            _share,
            lambda run: -(run.cache_hits or 0.0),
        ),
    ]
    if any(each.panic.mean for each in summaries):
        special.insert(0, _Column("in panic", "of the time", of(lambda each: each.panic), _share))
    return latencies + service + [column for column in special if any(column.values)]


def _latency(name: str, summaries: Sequence[Summary]) -> _Column:
    values = [summary.latency[name] for summary in summaries]
    known = [value.mean for value in values if value.mean > 0]
    # One unit for a column: that of the middle, on a log scale.
    length, unit = duration_unit(math.sqrt(min(known) * max(known)) if known else 1.0)

    def written(value: float, mean: float) -> str:
        return rounded(value / length, mean / length)

    def of_run(run: Result) -> float:
        return float(getattr(run.latency, name))

    return _Column(_TITLES.get(name, name), unit, values, written, of_run, of_all=False)


def _share(value: float, _: float) -> str:
    return percentage(value)


def _index(value: float, _: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else rounded(value)


def _best(column: _Column, summaries: Sequence[Summary]) -> Sequence[Summary]:
    """Return the best and those that cannot be told from it; nobody if those are all.

    As in the verdict, the latencies of those that lose more requests do not count.
    """
    if column.figure is None or len(summaries[0].runs) == 1:
        return ()
    confidence = confidence_for(len(summaries))
    by_errors = rank(summaries, error_share, confidence)
    lossy = [] if column.of_all or by_errors is None else lossy_of(by_errors)
    reliable = [summary for summary in summaries if summary not in lossy]
    ranking = rank(reliable, column.figure, confidence)
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
