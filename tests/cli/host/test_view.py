"""The view of ``host``: what fits on the screen."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from loadwise import HealthStatus
from loadwise.cli.host.view import HostView
from loadwise.shared_memory import HostNode, HostProcess, HostStatus


def status(processes: int, nodes: int, down: int = 0) -> HostStatus:
    """Return a host with so many processes, each with a request at each node."""
    states = [HealthStatus.HEALTHY] * (nodes - down) + [HealthStatus.UNHEALTHY] * down
    return HostStatus(
        "api",
        "/dev/shm/loadwise-0-api",  # noqa: S108 - only shown
        64,
        4096,
        tuple(HostProcess(1000 + i, True, 10.0 * i, nodes, nodes) for i in range(processes)),
        tuple(
            HostNode(f"n{i}", state, 5.0, 0, processes, (1,) * processes, 0.01, 0.5)
            for i, state in enumerate(states)
        ),
    )


def drawn(told: HostStatus, width: int = 100, height: int | None = None) -> list[str]:
    """Return the lines on a screen of this size."""
    file = io.StringIO()
    console = Console(file=file, width=width, legacy_windows=False)
    console.print(HostView(console).draw(told, height=height))
    return file.getvalue().splitlines()


@pytest.mark.parametrize("height", [14, 24, 40])
@pytest.mark.parametrize("width", [60, 100, 200])
@pytest.mark.parametrize("processes", [1, 64])
def test_it_keeps_to_the_screen(height: int, width: int, processes: int) -> None:
    """What does not fit is counted."""
    lines = drawn(status(processes, 100, down=3), width, height)
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width
    assert any("more, " in line and "not up" not in line for line in lines)
    assert sum(line.startswith("down") for line in lines) == 3


def test_nodes_left_out_that_are_not_up_are_told() -> None:
    """So that nobody takes the rest for well."""
    lines = drawn(status(1, 100, down=90), height=24)
    assert lines[-1].endswith("of them not up")


def test_columns_of_processes_are_all_or_none() -> None:
    """Some of them would not add up to the total."""
    for width, has in ((100, True), (70, False)):
        heads = next(line for line in drawn(status(4, 2), width) if "oldest" in line)
        assert ("1000" in heads) is has
        assert ("1003" in heads) is has


def test_a_host_that_nobody_has() -> None:
    """It says so."""
    assert drawn(status(0, 0)) == ["api  /dev/shm/loadwise-0-api", "No process takes part."]
