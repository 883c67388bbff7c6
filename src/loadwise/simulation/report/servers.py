"""The charts of one strategy's servers over time: load and queue length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized

from loadwise.simulation.report.chart_style import Figure, layout, line_over_time, time_axis
from loadwise.simulation.report.faults import mark_all, mark_rows
from loadwise.simulation.report.text import for_chart, plain
from loadwise.simulation.report.views import FirstRun
from loadwise.simulation.units import duration, rounded

__all__ = ["FEW", "ROWS", "load", "queue", "room_for_names", "row_labels"]

FEW = 6
"""So many servers, at most, have a line each. Of more, each is a row of a heat map."""
ROWS = 100
"""So many rows, at most, a heat map has."""

_LONGEST_NAME = 15


def load(view: FirstRun) -> tuple[Figure, str]:
    """Return the requests that each server was sent per second, and what that says."""
    loads = view.timeline.loads
    steps = max(1, len(view.timeline.times))
    means = [(sum(values) / steps, server) for server, values in loads.items()]
    (least, calm), (most, busy) = min(means), max(means)
    words = f"On average from {rounded(least)} ({calm}) to {rounded(most)} per second ({busy})."
    return _chart(view, loads, "requests/s", even=True), words + _left_out(loads)


def queue(view: FirstRun) -> tuple[Figure, str]:
    """Return the requests waiting or in work at each server, and what that says."""
    queues = view.timeline.queues
    peaks = [(max(values, default=0), server) for server, values in queues.items()]
    longest, server = max(peaks, key=lambda peak: peak[0])
    at = view.timeline.times[queues[server].index(longest)] if longest else 0.0
    words = (
        f"The longest is {longest:,}, at {server}, {duration(at)} into the run."
        if longest
        else "No request was at a server at these times."
    )
    return _chart(view, queues, "requests", even=False), words + _left_out(queues)


def room_for_names(servers: Sequence[str]) -> int:
    """Return the left margin, in pixels, that names of rows need."""
    return 20 + 8 * max(4, *(min(len(name), _LONGEST_NAME) for name in servers))


def row_labels(servers: Sequence[str]) -> Figure:
    """Return an axis of rows, one per server, the first at the top."""
    short = [
        name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in servers
    ]
    every = -(-len(servers) // 26)  # of more rows, some go without a name
    shown = range(0, len(servers), every)
    return {
        "type": "category",
        "categoryarray": [plain(name) for name in servers],
        "range": [len(servers) - 0.5, -0.5],
        "tickvals": [plain(servers[row]) for row in shown],
        "ticktext": [plain(short[row]) for row in shown],
        "showgrid": False,
        "ticks": "",
    }


def _chart(
    view: FirstRun, series: Mapping[str, Sequence[float]], unit: str, *, even: bool
) -> Figure:
    return _lines(view, series, unit) if len(series) <= FEW else _map(view, series, unit, even=even)


def _lines(view: FirstRun, series: Mapping[str, Sequence[float]], unit: str) -> Figure:
    hit = {server for fault in view.faults for server in fault.servers}
    traces: list[Figure] = []
    for index, (server, values) in enumerate(series.items()):
        trace = line_over_time(index, server, view.step, for_chart(values))
        trace["hovertemplate"] = (
            f"%{{fullData.name}}<br>%{{y:,.3~r}} {unit} at %{{x:.4~g}} s<extra></extra>"
        )
        # Those that something happens to are what one looks for: bold, and on top.
        trace["line"]["width"] = 3 if server in hit else 1.25
        trace["zorder"] = int(server in hit)
        traces.append(trace)
    look = layout(300)
    look["yaxis"]["rangemode"] = "tozero"
    time_axis(look, view.end)
    mark_all(look, view.faults, view.end)
    return {"data": traces, "layout": look}


def _map(view: FirstRun, series: Mapping[str, Sequence[float]], unit: str, *, even: bool) -> Figure:
    servers = _selection(list(series), view)
    most = max((max(series[server], default=0) for server in servers), default=0) or 1
    # Most queues are short and a few are long: finer shades for the short ones.
    places = [step / 4 if even else (step / 4) ** 2 for step in range(5)]
    look = layout(94 + max(220, min(560, 18 * len(servers))), left=room_for_names(servers))
    look["margin"]["b"] = 76
    look["yaxis"] |= row_labels(servers)
    time_axis(look, view.end)
    mark_rows(look, view.faults, view.end, {server: row for row, server in enumerate(servers)})
    trace = {
        "type": "heatmap",
        "x0": view.step,
        "dx": view.step,
        "z": [for_chart(series[server]) for server in servers],
        "y": [plain(server) for server in servers],
        "zmin": 0,
        "zmax": most,
        "colorscale": [[place, f"--heat-{step}"] for step, place in enumerate(places, start=1)],
        "hovertemplate": f"%{{y}}<br>%{{z:,.3~r}} {unit} at %{{x:.4~g}} s<extra></extra>",
        "colorbar": {
            "orientation": "h",
            "thickness": 12,
            "len": 1,
            "y": 0,
            "yref": "container",
            "yanchor": "bottom",
            "outlinewidth": 0,
            "ticks": "outside",
            "ticklen": 3,
            "tickcolor": "--axis",
            "nticks": 6,
        },
    }
    return {"data": [trace], "layout": look}


def _left_out(servers: Sized) -> str:
    count = len(servers)
    return f" There are {count:,} servers; {ROWS} of them are shown." if count > ROWS else ""


def _selection(servers: list[str], view: FirstRun) -> list[str]:
    """Return those to show: all, or of too many those that were hit and an even choice."""
    if len(servers) <= ROWS:
        return servers
    hit = {server for fault in view.faults for server in fault.servers}
    kept = [server for server in servers if server in hit][: ROWS // 2]
    others = [server for server in servers if server not in hit]
    room = ROWS - len(kept)
    chosen = {*kept, *(others[len(others) * place // room] for place in range(room))}
    return [server for server in servers if server in chosen]
