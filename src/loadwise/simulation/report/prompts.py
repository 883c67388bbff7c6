"""The charts of prompts: how soon answers begin, and how much of the prompts was cached."""

from __future__ import annotations

from loadwise.simulation.analysis.comparison import Comparison
from loadwise.simulation.report.chart_style import Figure, layout, style_of
from loadwise.simulation.report.overview import Ranked, ranked_times
from loadwise.simulation.report.servers import room_for_names, row_labels
from loadwise.simulation.report.text import for_chart, plain

__all__ = ["cached", "first_tokens"]

_ROW = 34
"""Pixels of a strategy's row."""


def first_tokens(comparison: Comparison) -> tuple[Figure, str] | None:
    """Return the quantile plot of times to first token, and what it says; none without prompts."""
    found: list[Ranked] = [
        (summary.strategy, [run.ttft_quantiles for run in summary.runs], summary.ttft)
        for summary in comparison.summaries
        if summary.ttft is not None
    ]
    return ranked_times(found) if found else None


def cached(comparison: Comparison) -> tuple[Figure, str] | None:
    """Return the share of the prompts that was cached, and what it says; none without prompts.

    Mark: the mean over seeds. Line: from the least to the greatest.
    """
    traces: list[Figure] = []
    means: list[tuple[float, str]] = []
    for index, summary in enumerate(comparison.summaries):
        hit, name = summary.cache_hit, plain(summary.strategy)
        if hit is None:
            continue
        means.append((hit.mean, summary.strategy))
        seen = [run.cache_hit for run in summary.runs if run.cache_hit is not None]
        ends = (hit.mean - min(seen), max(seen) - hit.mean)
        colour, _, marker = style_of(index)
        [value], [below], [above] = (for_chart([100.0 * part]) for part in (hit.mean, *ends))
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "meta": index,
                "x": [value],
                "y": [name],
                "hovertemplate": "%{fullData.name}<br>%{x:.3~g} % cached<extra></extra>",
                "marker": {"symbol": marker, "size": 12, "color": colour},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [above],
                    "arrayminus": [below],
                    "visible": len(seen) > 1,
                    "color": colour,
                },
            }
        )
    if not means:
        return None
    names = [strategy for _, strategy in means]
    look = layout(46 + _ROW * len(names), left=room_for_names(names))
    look["xaxis"] |= {"ticksuffix": " %", "rangemode": "tozero", "nticks": 5, "tickangle": 0}
    look["yaxis"] |= row_labels(names)
    (least, worst), (most, best) = min(means), max(means)
    words = f"From {100 * least:.3g} % ({worst}) to {100 * most:.3g} % ({best})."
    if len(means) == 1:
        words = f"{100 * most:.3g} % on average."
    return {"data": traces, "layout": look}, words
