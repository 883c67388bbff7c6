"""The view of ``top``: what fits on the screen, and the bars."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from loadwise.cli.top.told import BalancerTold, NodeTold, PageTold
from loadwise.cli.top.view import FleetView


def node(number: int, **changed: Any) -> NodeTold:
    """Return a node that is up, but for what is changed."""
    plain: dict[str, Any] = {
        "text": f"n{number}", "state": "up", "severity": "well", "why": "", "seconds": 5.0,
        "rate": 1.0, "in_flight": 0.0, "limit": None, "latency": 0.01, "successes": 5.0,
        "failures": 0.0, "picks": 10.0,
    }  # fmt: skip
    return NodeTold(**{**plain, **changed})


def page(*nodes: NodeTold, balancers: int = 1) -> PageTold:
    """Return a page of balancers that have these nodes."""
    one = BalancerTold("search", "P2C", "", "", 3.0, 3.0, 0.0, 9.0, nodes)
    return PageTold("process 1", (one,) * balancers)


def drawn(
    told: PageTold, width: int = 100, height: int | None = None, trouble: str = "", **more: Any
) -> list[str]:
    """Return the lines on a screen of this size."""
    file = io.StringIO()
    console = Console(file=file, width=width, legacy_windows=False, **more)
    view = FleetView(console, "http://page.test/")
    view.remember(told)
    console.print(view.draw(told, height=height, trouble=trouble))
    return file.getvalue().splitlines()


@pytest.mark.parametrize("height", [12, 24, 40])
@pytest.mark.parametrize("balancers", [1, 3])
def test_it_keeps_to_the_screen(height: int, balancers: int) -> None:
    """What does not fit is counted; every balancer has a part of the screen."""
    nodes = [node(i, severity="down", why="refused") for i in range(5)]
    nodes += [node(i) for i in range(5, 100)]
    lines = drawn(page(*nodes, balancers=balancers), height=height)
    if height > 6 * balancers + 2:
        assert len(lines) <= height
    assert sum("nodes more," in line for line in lines) == balancers


def test_trouble_is_told_to_its_end() -> None:
    """Why there is nothing newer is wrapped on a narrow screen, within its height."""
    trouble = "http://page.test/status.json does not answer: Connection refused; trying again"
    lines = drawn(page(*[node(i) for i in range(50)]), 40, 20, trouble)
    assert trouble in " ".join(line.strip() for line in lines)
    assert len(lines) <= 20


@pytest.mark.parametrize("width", [20, 60, 80, 100, 140])
def test_no_line_is_wider_than_the_screen(width: int) -> None:
    """Long ids and reasons are cut, those of double width too."""
    nodes = [node(1, text="名" * 60, why="理" * 200, severity="warning"), node(2, text="x" * 300)]
    assert max(map(cell_len, drawn(page(*nodes), width))) <= width


def test_who_is_left_out_is_told() -> None:
    """Whether all of them are up."""
    lines = drawn(page(*[node(i) for i in range(50)]), height=12)
    assert lines[-1].strip().endswith("nodes more, all up")
    bad = [node(i, severity="warning", why="full") for i in range(50)]
    assert drawn(page(*bad), height=12)[-1].strip().endswith("of them not up")


def test_bars_show_who_gets_what() -> None:
    """On one scale, where there is room, and where the terminal has the characters."""
    told = page(node(1, rate=8.0), node(2, rate=4.0), node(3, rate=None))
    rows = [line.rstrip() for line in drawn(told, 120)[-3:]]
    assert [row[-1] for row in rows] == ["█", "▄", "0"]
    assert not any(set("▁▂▃▄▅▆▇█") & set(line) for line in drawn(told, 80))
