"""The health timeline of one strategy: what its clients took the servers for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from loadwise.simulation.report.chart_style import Figure, layout, time_axis
from loadwise.simulation.report.faults import mark_rows
from loadwise.simulation.report.servers import room_for_names, row_labels
from loadwise.simulation.report.text import plain
from loadwise.simulation.report.views import FirstRun
from loadwise.simulation.units import duration
from loadwise.simulation.world.timeline import HealthChange

__all__ = ["STATES", "health", "legend_of_states"]

STATES: Mapping[str, tuple[float, str, str]] = {
    "HEALTHY": (0.22, "", ""),
    "DEGRADED": (0.5, "/", "D"),
    "RECOVERING": (0.5, ".", "R"),
    "UNHEALTHY": (0.8, "", "U"),
}
"""From best to worst: how thick a state is drawn, with what pattern, and the letter on it."""

_MOST_ROWS = 40
_RESTART = "restart-clients"
_LETTER_ROOM = 0.035
"""Share of the chart that a segment needs to have a letter on it."""

Segment = tuple[float, float, str]


def health(view: FirstRun) -> tuple[Figure | None, str]:
    """Return the health timeline, and what it says; no chart if all was well all the time."""
    changes: dict[str, list[HealthChange]] = {}
    for change in view.timeline.health:
        if change.at <= view.end:
            changes.setdefault(change.server, []).append(change)
    if not changes:
        return None, "No client took any server for anything but HEALTHY, or none kept watch."
    hit = {server for fault in view.faults for server in fault.servers}
    segments = {
        server: list(_segments(view, changes.get(server, [])))
        for server in view.timeline.queues
        if server in changes or server in hit
    }
    out = {server: _seconds_in("UNHEALTHY", spans) for server, spans in segments.items()}
    worst_first = sorted(segments, key=lambda server: (server not in hit, -out[server]))
    chosen = set(worst_first[:_MOST_ROWS])
    servers = [server for server in segments if server in chosen]
    look = layout(40 + 28 * len(servers), left=room_for_names(servers), top=6)
    look |= {"barmode": "overlay", "bargap": 0}
    look["yaxis"] |= row_labels(servers)
    time_axis(look, view.end)
    rows = {server: row for row, server in enumerate(servers)}
    mark_rows(look, view.faults, view.end, rows)
    traces = [_bars(state, servers, segments, view.end) for state in STATES]
    longest = max(out, key=lambda server: out[server])
    spent = f"{duration(out[longest])} of {duration(view.end)}"
    words = (
        f"{longest} was UNHEALTHY the longest, for {spent}."
        if out[longest]
        else "No server was taken for UNHEALTHY."
    )
    words += _on_panic(view)
    left_out = len(view.timeline.queues) - len(segments)
    if left_out:
        words += f" Not shown: {left_out:,} that were HEALTHY throughout."
    if len(segments) > len(servers):
        words += f" Of the others, the {len(servers)} longest UNHEALTHY are shown."
    return {"data": traces, "layout": look}, words


def _on_panic(view: FirstRun) -> str:
    """Return how long clients were in panic, and when first; nothing if they never were."""
    spells = [
        (spell.begin, min(spell.end, view.end))
        for spell in view.timeline.panics
        if spell.begin < view.end
    ]
    if not spells:
        return ""
    seconds = sum(end - begin for begin, end in spells) / view.clients
    mean = " on average" if view.clients > 1 else ""
    who = "The clients were" if view.clients > 1 else "The client was"
    return (
        f" {who} in panic for {duration(seconds)}{mean}, from {duration(min(spells)[0])} on, and "
        f"then sent to ailing servers, too."
    )


def legend_of_states() -> str:
    """Return the legend of the states, as HTML."""
    items = "".join(
        f'<li><i class="state {state.lower()}" aria-hidden="true">{letter}</i>{state}</li>'
        for state, (_, _, letter) in STATES.items()
    )
    return f'<ul class="states" aria-label="States of health">{items}</ul>'


def _segments(view: FirstRun, changes: Sequence[HealthChange]) -> Iterator[Segment]:
    """Yield a server's states over time, as most clients see it; of two, the worse.

    Clients that restart take every server for HEALTHY.
    """
    restarts = [
        begin for fault in view.faults if fault.kind == _RESTART for begin, _ in fault.spans
    ]
    events = sorted(
        [(change.at, change) for change in changes] + [(at, None) for at in restarts],
        key=lambda event: event[0],
    )
    seen = _all_well(view.clients)
    begin, state = 0.0, "HEALTHY"
    for at, change in events:
        if change is None:
            seen = _all_well(view.clients)
        else:
            seen[change.old] -= 1
            seen[change.new] += 1
        now = max(reversed([*STATES]), key=lambda name: seen[name])
        if now != state:
            if at > begin:
                yield begin, at, state
            begin, state = at, now
    yield begin, view.end, state


def _all_well(clients: int) -> dict[str, int]:
    return {**dict.fromkeys(STATES, 0), "HEALTHY": clients}


def _seconds_in(state: str, segments: Sequence[Segment]) -> float:
    return sum(end - begin for begin, end, name in segments if name == state)


def _bars(
    state: str, servers: Sequence[str], segments: Mapping[str, Sequence[Segment]], end: float
) -> Figure:
    thickness, pattern, letter = STATES[state]
    bars = [
        (server, begin, until)
        for server in servers
        for begin, until, name in segments[server]
        if name == state
    ]
    return {
        "type": "bar",
        "orientation": "h",
        "name": state,
        "y": [plain(server) for server, *_ in bars],
        "base": [float(f"{begin:.6g}") for _, begin, _ in bars],
        "x": [float(f"{until - begin:.6g}") for _, begin, until in bars],
        "width": thickness,
        "text": [letter if until - begin > _LETTER_ROOM * end else "" for _, begin, until in bars],
        "textposition": "inside",
        "insidetextanchor": "middle",
        "textangle": 0,
        "constraintext": "none",
        "textfont": {"color": f"--on-{state.lower()}", "size": 12},
        "hovertext": [
            f"{plain(server)}: {state}<br>{duration(begin)} to {duration(until)}"
            for server, begin, until in bars
        ],
        "hoverinfo": "text",
        "marker": {
            "color": f"--{state.lower()}",
            "line": {"width": 0},
            "pattern": {
                "shape": pattern,
                "bgcolor": f"--{state.lower()}",
                "fgcolor": f"--on-{state.lower()}",
                "fgopacity": 0.4,
                "size": 5,
            },
        },
    }
