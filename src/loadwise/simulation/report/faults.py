"""The faults of a run: named by letters, and marked in charts over time."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadwise.simulation.report.chart_style import Figure
from loadwise.simulation.report.text import listed, markup, plain
from loadwise.simulation.units import duration
from loadwise.simulation.world.timeline import Mark

__all__ = ["ChartedFault", "Span", "faults_of", "key", "mark_all", "mark_rows"]

Span = tuple[float, float]

_LANE = 18
"""Height of a row of labels above a chart, in pixels."""
_FEW = 3
"""So many faults have their kind beside their letter; of more, there is no room for it."""
_WORD, _LETTER = 0.3, 0.06
"""Width of a label, as a share of the chart on a phone: with the kind, and without."""


@dataclass(frozen=True, slots=True)
class ChartedFault:
    """Fault of the same servers, once or again and again.

    Attributes:
        letter: What it is called in charts.
        kind: What it is.
        servers: Whom it hit; none means everyone.
        spans: From when to when.
    """

    letter: str
    kind: str
    servers: tuple[str, ...]
    spans: tuple[Span, ...]


def faults_of(marks: Sequence[Mark], end: float) -> tuple[ChartedFault, ...]:
    """Return the faults behind the marks, in order of their begin; none lasts beyond the end."""
    spans: dict[tuple[str, tuple[str, ...]], list[Span]] = {}
    for mark in sorted(marks, key=lambda mark: mark.begin):
        if mark.begin <= end:
            span = (mark.begin, min(mark.end, end))
            spans.setdefault((mark.kind, mark.servers), []).append(span)
    return tuple(
        ChartedFault(_letter(index), kind, servers, tuple(found))
        for index, ((kind, servers), found) in enumerate(spans.items())
    )


def key(faults: Sequence[ChartedFault]) -> str:
    """Return the list of the faults by letter, as HTML; empty without faults."""
    if not faults:
        return ""
    items = (
        f"<li><b>{fault.letter}</b> <span><strong>{markup(fault.kind)}</strong> "
        f"{markup(_whom_and_when(fault))}</span></li>"
        for fault in faults
    )
    return f'<ul class="faults" aria-label="Faults">{"".join(items)}</ul>'


def _whom_and_when(fault: ChartedFault) -> str:
    whom = f"{listed(fault.servers)}, " if fault.servers else ""
    begin, end = fault.spans[0]
    when = f"at {duration(begin)}" if begin == end else f"{duration(begin)} to {duration(end)}"
    more = len(fault.spans) - 1
    again = f", and {'once more' if more == 1 else f'{more} times more'}" if more else ""
    return whom + when + again


def mark_all(layout: Figure, faults: Sequence[ChartedFault], end: float) -> None:
    """Shade the faults over the whole height of a chart, and name them above it."""
    for fault in faults:
        layout["shapes"] += [_frame(span, "y domain", (0, 1)) for span in fault.spans]
    _name(layout, faults, end)


def mark_rows(
    layout: Figure, faults: Sequence[ChartedFault], end: float, rows: Mapping[str, int]
) -> None:
    """Frame the faults in the rows of the servers that they hit, and name them above."""
    for fault in faults:
        hit = [rows[server] for server in fault.servers if server in rows]
        for span in fault.spans:
            if fault.servers:
                frames = [_frame(span, "y", (row - 0.5, row + 0.5)) for row in hit]
            else:
                frames = [_frame(span, "y domain", (0, 1))]
            layout["shapes"] += frames
    _name(layout, faults, end)


def _frame(span: Span, reference: str, height: tuple[float, float]) -> Figure:
    begin, end = span
    in_row = reference == "y"
    return {
        "type": "rect" if end > begin else "line",
        "x0": begin,
        "x1": end,
        "yref": reference,
        "y0": height[0],
        "y1": height[1],
        # A shade over a row would change the colours that mean something there.
        "fillcolor": "rgba(0,0,0,0)" if in_row else "--shade",
        "line": {"color": "--fault", "width": 1.5 if in_row else 1, "dash": "dot"},
        "layer": "above" if in_row else "below",
    }


def _name(layout: Figure, faults: Sequence[ChartedFault], end: float) -> None:
    """Put the letters above the chart, in as many lanes as keep them apart."""
    spelt = len(faults) <= _FEW
    width = end * (_WORD if spelt else _LETTER)
    lanes: list[float] = []  # where the last label of each ends
    for fault in faults:
        begin = fault.spans[0][0]
        left = min(begin, end - width)
        lane = next((lane for lane, taken in enumerate(lanes) if taken <= left), len(lanes))
        lanes[lane : lane + 1] = [left + width]
        word = f" {plain(fault.kind)}" if spelt else ""
        layout["annotations"].append(
            {
                "text": f"<b>{fault.letter}</b>{word}",
                "x": begin,
                "xanchor": "left" if left == begin else "right",
                "y": 1,
                "yref": "y domain",
                "yanchor": "bottom",
                "yshift": 2 + lane * _LANE,
                "borderpad": 0,
                "showarrow": False,
                "font": {"size": 13, "color": "--fault"},
            }
        )
    layout["margin"]["t"] += len(lanes) * _LANE
    layout["height"] += len(lanes) * _LANE


def _letter(index: int) -> str:
    return string.ascii_uppercase[index] if index < len(string.ascii_uppercase) else str(index + 1)
