"""Style that all charts have in common: colours, lines, axes.

Colours are names of the page's CSS custom properties, ``--line-1`` and the like: the page's script
puts in what they stand for in light or dark. Lines differ in dash and marker, too, so that nothing
depends on colour.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from loadwise.simulation.report.text import markup, plain
from loadwise.simulation.units import duration_unit

__all__ = ["Figure", "decades", "layout", "legend", "line_over_time", "style_of", "time_axis"]

Figure = dict[str, Any]
"""A plotly figure, or a part of one, as JSON has it."""

_COLOURS = 7
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_SVG_DASHES = {"solid": "", "dash": "7 4", "dot": "2 3", "dashdot": "7 3 2 3", "longdash": "11 4"}
_MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down")
_SVG_MARKERS = {
    "circle": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "square": "M-3.5-3.5h7v7h-7z",
    "diamond": "M0-4.8 4.8 0 0 4.8-4.8 0z",
    "triangle-up": "M0-4.5 4.5 3.5h-9z",
    "cross": "M-4.2-1.4h2.8v-2.8h2.8v2.8h2.8v2.8h-2.8v2.8h-2.8v-2.8h-2.8z",
    "x": "M-4-2 -2-4 0-2 2-4 4-2 2 0 4 2 2 4 0 2-2 4-4 2-2 0z",
    "triangle-down": "M0 4.5 4.5-3.5h-9z",
}
_STEPS = ((1.0, (1, 2, 3, 4, 5, 6, 7, 8)), (2.5, (1, 2, 5)), (math.inf, (1,)))
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def style_of(index: int) -> tuple[str, str, str]:
    """Return colour, dash and marker of the line with this number; 35 lines all differ in two."""
    lap = index // _COLOURS
    return (
        f"--line-{index % _COLOURS + 1}",
        _DASHES[(index + lap) % len(_DASHES)],
        _MARKERS[(index + 3 * lap) % len(_MARKERS)],
    )


def _swatch(index: int, *, dashed: bool) -> str:
    """Return a line's look as a small drawing for the legend."""
    colour, dash, shape = style_of(index)
    return (
        f'<svg class="swatch" width="34" height="14" aria-hidden="true" style="--c:var({colour})">'
        f'<path d="M0 7h34" stroke-dasharray="{_SVG_DASHES[dash] if dashed else ""}"/>'
        f'<path class="dot" transform="translate(17 7)" d="{_SVG_MARKERS[shape]}"/></svg>'
    )


def legend(names: Iterable[str], group: str, *, dashed: bool) -> str:
    """Return a legend of buttons that show or hide a line each."""
    keys = (
        f'<button type="button" aria-pressed="true" data-group="{group}" data-index="{index}">'
        f"{_swatch(index, dashed=dashed)}<span>{markup(name)}</span></button>"
        for index, name in enumerate(names)
    )
    return f'<div class="legend" role="group" aria-label="Lines to show">{"".join(keys)}</div>'


def layout(height: int, *, left: int = 58, top: int = 12, bottom: int = 34) -> Figure:
    """Return the layout of a chart of this height and these margins, in pixels."""
    axis = {
        "gridcolor": "--grid",
        "linecolor": "--axis",
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": "--axis",
        "fixedrange": True,
    }
    return {
        "height": height,
        "margin": {"l": left, "r": 24, "t": top, "b": bottom, "pad": 0},
        "font": {"family": _FONT, "size": 13, "color": "--ink"},
        "paper_bgcolor": "--paper",
        "plot_bgcolor": "--paper",
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {
            "bgcolor": "--card",
            "bordercolor": "--axis",
            "font": {"family": _FONT, "size": 13, "color": "--ink"},
            "namelength": -1,
        },
        "xaxis": dict(axis),
        "yaxis": dict(axis),
        "shapes": [],
        "annotations": [],
    }


def line_over_time(index: int, name: str, step: float, values: list[float | None]) -> Figure:
    """Return the line with this number. It is solid: dashes would hide what is short."""
    colour, _, marker = style_of(index)
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": plain(name),
        "meta": index,
        "x0": step,
        "dx": step,
        "y": values,
        "line": {"color": colour, "width": 1.75},
        "marker": {"symbol": marker, "size": 8, "color": colour, "maxdisplayed": 12},
    }


def time_axis(figure_layout: Figure, end: float) -> None:
    """Make the horizontal axis one of seconds, which can be zoomed."""
    figure_layout["xaxis"] |= {
        "range": [0, end],
        "ticksuffix": " s",
        "tickformat": ",.6~f",
        "nticks": 7,
        "fixedrange": False,
        "showgrid": False,
    }


def decades(figure_layout: Figure, values: Iterable[float | None]) -> None:
    """Make the vertical axis one of times on a log scale, with ticks at round times."""
    positive = [value for value in values if value is not None and value > 0]
    low, high = (min(positive), max(positive)) if positive else (0.1, 1.0)
    bottom, top = math.log10(low) - 0.08, math.log10(high) + 0.08
    steps = next(steps for span, steps in _STEPS if top - bottom <= span)
    exponents = range(math.floor(bottom), math.ceil(top) + 1)
    ticks = [step * 10.0**exponent for exponent in exponents for step in steps]
    kept = [float(f"{tick:.3g}") for tick in ticks if bottom <= math.log10(tick) <= top]
    figure_layout["yaxis"] |= {
        "type": "log",
        "range": [round(bottom, 4), round(top, 4)],
        "tickvals": kept,
        "ticktext": [_round_time(tick) for tick in kept],
    }


def _round_time(tick: float) -> str:
    length, unit = duration_unit(tick)
    return f"{tick / length:,.4g} {unit}"
