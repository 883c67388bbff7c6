"""The frames that the demo draws while it runs."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from loadwise.cli.demo.fleet import DemoFleet
from loadwise.cli.demo.plan import DemoPlan
from loadwise.cli.demo.run import DemoRun
from loadwise.cli.demo.view import introduce, watching

_SHOW_CURSOR = "\x1b[?25h"


def drawn(encoding: str, width: int) -> str:
    """Return what is drawn of a run in which one server of six fails 3 of 18 requests."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="replace", write_through=True)
    console = Console(file=file, force_terminal=True, width=width, height=40)
    with DemoFleet(1) as fleet:
        introduce(console, fleet)
        run = DemoRun(fleet, "round-robin", DemoPlan(100, 1, 1))
        with watching(console, run, live=True) as show:
            show()
            for _ in range(18):
                with run.balancer.acquire() as lease:
                    if lease.node.id == "flaky":
                        lease.failure("503")
            show()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize(
    ("encoding", "width", "bar", "edge"),
    [("utf-8", 80, "█", "╭"), ("utf-8", 120, "█", "╭"), ("ascii", 80, "#", "+")],
)
def test_frame(encoding: str, width: int, bar: str, edge: str) -> None:
    """The table shows health and share of every server, uncut, in any width and encoding."""
    output = drawn(encoding, width)
    assert output.rfind(_SHOW_CURSOR) > output.rfind(edge)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output)
    lines = text.replace("\r", "\n").splitlines()
    assert max(map(len, lines)) <= width
    assert any("flaky is UNHEALTHY: no traffic but one probe every 0.2 s" in line for line in lines)
    frame = lines[
        max(i for i, line in enumerate(lines) if line.startswith(edge) and "act" in line) :
    ]
    rows = {line.split()[1]: line for line in frame if line.rstrip().endswith(("%  │", "%  |"))}
    assert sorted(rows) == ["doomed", "fast-1", "fast-2", "fast-3", "flaky", "slow"]
    assert [name for name, row in rows.items() if "UNHEALTHY" in row] == ["flaky"]
    shares = {name: int(re.findall(r"(\d+)%", row)[0]) for name, row in rows.items()}
    assert shares["flaky"] == 17
    assert sum(shares.values()) in range(98, 103)
    assert all(bar in row for row in rows.values())
    assert "…" not in text
    assert "?" not in text
