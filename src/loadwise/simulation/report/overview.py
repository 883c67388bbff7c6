"""The charts in which all strategies stand side by side."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from loadwise.simulation.analysis.comparison import Comparison
from loadwise.simulation.analysis.statistics import Estimate
from loadwise.simulation.report.chart_style import (
    Figure,
    decades,
    layout,
    line_over_time,
    style_of,
    time_axis,
)
from loadwise.simulation.report.faults import mark_all
from loadwise.simulation.report.text import for_chart, plain, rank
from loadwise.simulation.report.views import FirstRun
from loadwise.simulation.runs.result import QUANTILES
from loadwise.simulation.units import duration

__all__ = ["Ranked", "failures", "latency_over_time", "quantiles", "ranked_times"]

Ranked = tuple[str, Sequence[Sequence[float]], Mapping[str, Estimate]]
"""A strategy, of each of its runs the times at the ranks `QUANTILES`, and their percentiles."""

_RANKS = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999)
_NOUGHT = "0\N{NO-BREAK SPACE}\N{NO-BREAK SPACE}\N{NO-BREAK SPACE}\N{NO-BREAK SPACE}"
"""Off centre to the left, so that it does not touch "50 %" on a phone."""
_MARKED = 13
"""So many points of a quantile line have a marker."""
_FASTEST = QUANTILES.index(0.1)
"""First of the ranks that the vertical axis has room for."""


def quantiles(comparison: Comparison) -> tuple[Figure, str]:
    """Return the quantile plot of latencies, and what it says."""
    found: list[Ranked] = [
        (summary.strategy, [run.quantiles for run in summary.runs], summary.latency)
        for summary in comparison.summaries
    ]
    return ranked_times(found)


def ranked_times(strategies: Sequence[Ranked]) -> tuple[Figure, str]:
    """Return a quantile plot, and what it says.

    Line: the median over seeds at each rank. Band: from the least to the greatest.
    """
    traces: list[Figure] = []
    ranks = [round(-math.log10(1 - share), 4) for share in QUANTILES]
    names = [rank(share) for share in QUANTILES]
    for index, (strategy, runs, _) in enumerate(strategies):
        at_rank = [_over_seeds(values) for values in zip(*runs, strict=True)]
        if len(runs) > 1:
            traces.append(_band(index, ranks, at_rank))
        colour, dash, marker = style_of(index)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plain(strategy),
                "meta": index,
                "x": ranks,
                "y": for_chart(middle for _, middle, _ in at_rank),
                "customdata": names,
                "hovertemplate": "%{fullData.name}<br>%{customdata} of the requests "
                "within %{y:.3s}s<extra></extra>",
                "line": {"color": colour, "dash": dash, "width": 2.5},
                "marker": {"symbol": marker, "size": 9, "color": colour, "maxdisplayed": _MARKED},
            }
        )
    look = layout(420)
    look["xaxis"] |= {
        "range": [-0.06, 4.06],
        "tickvals": [round(-math.log10(1 - share), 4) for share in _RANKS],
        "ticktext": [_NOUGHT, *map(rank, _RANKS[1:])],
        "tickangle": 0,
    }
    # The fastest few may be faster by decades, and nobody asks about them.
    decades(look, (value for trace in traces for value in trace["y"][_FASTEST : len(ranks)]))
    return {"data": traces, "layout": look}, _in_words(strategies)


def latency_over_time(views: Sequence[FirstRun]) -> tuple[Figure, str]:
    """Return the mean latency over time, and what it says."""
    figure = _over_time(
        views, [for_chart(view.timeline.latency) for view in views], "%{y:.3s}s at %{x:.4~g} s"
    )
    decades(figure["layout"], (value for trace in figure["data"] for value in trace["y"]))
    slowest = max(
        (
            (value, time, view.strategy)
            for view in views
            for time, value in zip(view.timeline.times, view.timeline.latency, strict=True)
            if math.isfinite(value)
        ),
        default=None,
    )
    if slowest is None:
        return figure, "No request was completed."
    value, time, strategy = slowest
    return figure, f"The peak is {duration(value)}, with {strategy}, at {duration(time)}."


def failures(views: Sequence[FirstRun]) -> tuple[Figure | None, str]:
    """Return failures per second over time, and what that says; no chart without failures."""
    totals = [(sum(view.timeline.failures) + view.late, view.strategy) for view in views]
    (least, best), (most, worst) = min(totals), max(totals)
    if not most:
        return None, "No request failed or was dropped in these runs."
    words = f"From {least:,} with {best} to {most:,} with {worst} in the whole run."
    if len(views) == 1:
        words = f"{most:,} in the whole run."
    late = sum(view.late for view in views)
    drawn = any(any(view.timeline.failures) for view in views)
    if late:
        where = "chart" if drawn else "charts over time"
        words += f" In all, {late:,} came after the end of the {where}."
    if not drawn:
        return None, words
    figure = _over_time(
        views,
        [for_chart(count / view.step for count in view.timeline.failures) for view in views],
        "%{y:.3~g} failures/s at %{x:.4~g} s",
    )
    figure["layout"]["yaxis"]["rangemode"] = "tozero"
    return figure, words


def _over_time(
    views: Sequence[FirstRun], series: Sequence[list[float | None]], shown_as: str
) -> Figure:
    traces: list[Figure] = []
    for index, (view, values) in enumerate(zip(views, series, strict=True)):
        trace = line_over_time(index, view.strategy, view.step, values)
        trace["hovertemplate"] = f"%{{fullData.name}}<br>{shown_as}<extra></extra>"
        traces.append(trace)
    look = layout(300)
    time_axis(look, views[0].end)
    mark_all(look, views[0].faults, views[0].end)
    return {"data": traces, "layout": look}


def _over_seeds(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the least, the median and the greatest value; NaN where there is nothing above 0."""
    known = [value for value in values if value > 0 and math.isfinite(value)]
    if not known:
        return math.nan, math.nan, math.nan
    return min(known), statistics.median(known), max(known)


def _band(
    index: int, ranks: Sequence[float], at_rank: Sequence[tuple[float, float, float]]
) -> Figure:
    """Return the area between the seeds: one way along the top, back along the bottom."""
    known = [(x, low, high) for x, (low, _, high) in zip(ranks, at_rank, strict=True) if low > 0]
    there, back = known, known[::-1]
    return {
        "type": "scatter",
        "mode": "lines",
        "meta": index,
        "x": [x for x, _, _ in there] + [x for x, _, _ in back],
        "y": for_chart([high for _, _, high in there] + [low for _, low, _ in back]),
        "fill": "toself",
        "fillcolor": style_of(index)[0],
        "opacity": 0.22,
        "line": {"width": 0},
        "hoverinfo": "skip",
    }


def _in_words(strategies: Sequence[Ranked]) -> str:
    parts: list[str] = []
    for name, label in (("p50", "At the median"), ("p99", "at 99 %"), ("p999", "at 99.9 %")):
        found = [
            (percentiles[name].mean, strategy)
            for strategy, _, percentiles in strategies
            if math.isfinite(percentiles[name].mean)
        ]
        if found:
            (least, best), (most, worst) = min(found), max(found)
            spread = f"from {duration(least)} ({best}) to {duration(most)} ({worst})"
            parts.append(f"{label} {spread if len(found) > 1 else duration(least)}")
    return "; ".join(parts) + "." if parts else "No request was completed."
