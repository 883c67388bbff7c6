"""What the charts over time are made of: faults, health, rows, and where they end."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from tests.simulation.report.made import few_servers, many_servers

from loadwise.simulation.analysis.comparison import compare
from loadwise.simulation.report.chart_style import layout
from loadwise.simulation.report.faults import ChartedFault, faults_of, key, mark_all, mark_rows
from loadwise.simulation.report.health import STATES, health
from loadwise.simulation.report.overview import failures
from loadwise.simulation.report.servers import ROWS, load, queue
from loadwise.simulation.report.views import FirstRun, views_of
from loadwise.simulation.scenario import Callers, Constant, Exponential, Hang, Scenario, Servers
from loadwise.simulation.world.timeline import HealthChange, Mark, Panicked, Timeline


def view(
    *,
    health: list[tuple[float, int, str, str]] | None = None,
    marks: tuple[Mark, ...] = (),
    servers: int = 3,
    clients: int = 1,
    panics: tuple[Panicked, ...] = (),
) -> FirstRun:
    """Return a view of ten seconds in which servers do little, and one of them changes."""
    names = [f"server-{number}" for number in range(1, servers + 1)]
    changes = [
        HealthChange(at, client, "server-2", old, new) for at, client, old, new in health or []
    ]
    timeline = Timeline(
        times=tuple(map(float, range(1, 11))),
        queues=dict.fromkeys(names, (0,) * 10),
        loads=dict.fromkeys(names, (1.0,) * 10),
        latency=(0.1,) * 10,
        failures=(0,) * 10,
        health=tuple(changes),
        marks=marks,
        panics=panics,
    )
    return FirstRun("p2c", 1, timeline, 1.0, 10.0, faults_of(marks, 10.0), clients)


def states(of: FirstRun) -> list[tuple[str, float, float]]:
    """Return the segments of the one server that changes: state, begin and end, in order."""
    figure, _ = health(of)
    assert figure is not None
    segments = [
        (trace["name"], begin, begin + length)
        for trace in figure["data"]
        for server, begin, length in zip(trace["y"], trace["base"], trace["x"], strict=True)
        if server == "server-2"
    ]
    return sorted(segments, key=lambda segment: segment[1])


def test_faults_are_lettered_in_order() -> None:
    """The same thing on the same servers has one letter; what never ends, ends with the chart."""
    marks = [
        Mark(6.0, math.inf, "crash", ("b",)),
        Mark(1.0, 2.0, "slow", ("a",)),
        Mark(3.0, 4.0, "slow", ("a",)),
        Mark(12.0, 13.0, "hang", ("a",)),
    ]
    slow, crash = faults_of(marks, 10.0)
    assert slow == ChartedFault("A", "slow", ("a",), ((1.0, 2.0), (3.0, 4.0)))
    assert crash == ChartedFault("B", "crash", ("b",), ((6.0, 10.0),))
    assert "1.00 s to 2.00 s, and once more" in key([slow])
    assert not key([])


def test_labels_of_faults_do_not_overlap() -> None:
    """Faults that begin close together have their labels above each other, and stay inside."""
    faults = faults_of([Mark(at, 10.0, "crash", (str(at),)) for at in (1.0, 1.5, 9.5)], 10.0)
    look = layout(300)
    mark_all(look, faults, 10.0)
    first, second, last = look["annotations"]
    assert first["yshift"] == last["yshift"] < second["yshift"]
    assert [first["xanchor"], last["xanchor"]] == ["left", "right"]
    assert look["height"] - look["margin"]["t"] == 300 - layout(300)["margin"]["t"]


def test_many_faults_have_letters_only() -> None:
    """There is no room for more."""
    faults = faults_of([Mark(float(at), 10.0, "crash", (str(at),)) for at in range(30)], 30.0)
    look = layout(300)
    mark_all(look, faults, 30.0)
    assert [each["text"] for each in look["annotations"]][::29] == ["<b>A</b>", "<b>30</b>"]


def test_rows_are_framed() -> None:
    """A fault is framed in the rows it hit; one that hit no server in particular, all over."""
    faults = faults_of([Mark(1.0, 2.0, "slow", ("a", "z")), Mark(5.0, 5.0, "restart", ())], 10.0)
    look = layout(300)
    mark_rows(look, faults, 10.0, {"b": 0, "a": 1})
    framed, line = look["shapes"]
    assert (framed["y0"], framed["y1"], framed["yref"]) == (0.5, 1.5, "y")
    assert (line["type"], line["yref"]) == ("line", "y domain")


def test_health_is_what_most_clients_see() -> None:
    """Of four clients three have to change their minds, or two for the worse."""
    changes = [(float(at), at, "HEALTHY", "UNHEALTHY") for at in range(4)]
    back = [(6.0 + at, at, "UNHEALTHY", "HEALTHY") for at in range(4)]
    assert states(view(health=changes + back, clients=4)) == [
        ("HEALTHY", 0.0, 1.0),
        ("UNHEALTHY", 1.0, 8.0),
        ("HEALTHY", 8.0, 10.0),
    ]


def test_clients_that_start_anew_have_forgotten() -> None:
    """They take every server for HEALTHY, though nothing changed."""
    restart = Mark(5.0, 5.0, "restart-clients", ())
    seen = view(
        health=[(2.0, 0, "HEALTHY", "DEGRADED"), (7.0, 0, "HEALTHY", "DEGRADED")], marks=(restart,)
    )
    assert [state for state, _, _ in states(seen)] == ["HEALTHY", "DEGRADED"] * 2
    assert states(seen)[2] == ("HEALTHY", 5.0, 7.0)


def test_panic_is_a_sentence() -> None:
    """For how long, as the mean over the clients, and from when on; nothing beyond the chart."""
    down = [(2.0, 0, "HEALTHY", "UNHEALTHY")]
    spells = (Panicked(4.0, 5.0, 0), Panicked(2.5, 3.5, 1), Panicked(8.0, 14.0, 0))
    _, words = health(view(health=down, clients=2, panics=spells))
    assert (
        " The clients were in panic for 2.00 s on average, from 2.50 s on, and then sent to "
        "ailing servers, too." in words
    )
    _, words = health(view(health=down, panics=(Panicked(9.0, 9.5, 0), Panicked(11.0, 12.0, 0))))
    assert " The client was in panic for 500 ms, from 9.00 s on" in words
    _, words = health(view(health=down, panics=(Panicked(11.0, 12.0, 0),)))
    assert "panic" not in words


def test_health_without_changes_is_a_sentence() -> None:
    """There is nothing to draw."""
    figure, words = health(view())
    assert figure is None
    assert "HEALTHY" in words


def test_only_servers_with_a_story_have_a_row() -> None:
    """Those that were HEALTHY throughout are counted, not drawn."""
    figure, words = health(view(health=[(2.0, 0, "HEALTHY", "UNHEALTHY")], servers=5))
    assert figure is not None
    assert figure["layout"]["yaxis"]["categoryarray"] == ["server-2"]
    assert words.startswith("server-2 was UNHEALTHY the longest, for 8.00 s of 10.0 s.")
    assert "4 that were HEALTHY throughout" in words
    assert [trace["name"] for trace in figure["data"]] == list(STATES)


@pytest.mark.parametrize(("servers", "kind"), [(6, "scatter"), (7, "heatmap"), (300, "heatmap")])
def test_lines_or_a_heat_map(servers: int, kind: str) -> None:
    """Few servers have lines, many the rows of a map, and of too many some are chosen."""
    hit = Mark(1.0, 2.0, "slow", ("server-2",))
    figure, words = load(view(servers=servers, marks=(hit,)))
    assert {trace["type"] for trace in figure["data"]} == {kind}
    if kind == "scatter":
        assert len(figure["data"]) == servers
        assert figure["data"][1]["line"]["width"] > figure["data"][0]["line"]["width"]
    else:
        [trace] = figure["data"]
        assert len(trace["z"]) == len(trace["y"]) == min(servers, ROWS)
        assert "server-2" in trace["y"]
    assert ("of them" in words) == (servers > ROWS)


def test_empty_queues_are_no_error() -> None:
    """Nothing ever waits where service takes no time."""
    _, words = queue(view())
    assert words == "No request was at a server at these times."


def test_the_idle_end_is_left_out() -> None:
    """The time axis ends where the last strategy is done, for all of them."""
    views = views_of(few_servers())
    whole = few_servers().summaries[0].runs[0].timeline.times
    assert {each.end for each in views} == {views[0].end}
    assert views[0].end < whole[-1]
    last = max(
        max(queue[-1] for queue in each.timeline.queues.values())
        + max(load[-1] for load in each.timeline.loads.values())
        for each in views
    )
    assert last > 0


def test_no_failures_are_a_sentence() -> None:
    """There is nothing to draw."""
    [seen] = views_of(many_servers())
    calm = replace(seen, timeline=replace(seen.timeline, failures=(0,) * len(seen.timeline.times)))
    assert failures([calm]) == (None, "No request failed or was dropped in these runs.")


def test_failures_after_the_chart_are_told() -> None:
    """A timeout that is longer than the timeline brings failures which that cannot show."""
    [seen] = views_of(many_servers())
    figure, words = failures([replace(seen, late=70)])
    shown = sum(seen.timeline.failures)
    assert figure is not None
    assert words == f"{shown + 70:,} in the whole run. In all, 70 came after the end of the chart."
    calm = replace(seen, timeline=replace(seen.timeline, failures=(0,) * len(seen.timeline.times)))
    none, words = failures([replace(calm, late=70)])
    assert none is None
    assert words == "70 in the whole run. In all, 70 came after the end of the charts over time."


def test_late_failures_are_those_of_the_run() -> None:
    """Those that the timeline knows and those that it does not are all there are."""
    hang = Hang(at="20%", servers=("server-1",))
    run = compare(
        Scenario(
            name="late",
            about="",
            servers=Servers(count=4),
            requests=200,
            arrivals=Constant(rate=50.0),
            service=Exponential(mean=0.01),
            callers=Callers(timeout=30.0),
            faults=(hang,),
        ),
        ["round-robin"],
        seeds=1,
    )
    [seen] = views_of(run)
    assert seen.late == run.summaries[0].runs[0].failed > 0
