"""``loadwise strategies``: complete, readable, and the same for people and machines."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from loadwise.cli.app import app
from loadwise.cli.strategies.listing import show
from loadwise.strategies.catalogue import CATALOGUE


@pytest.mark.parametrize("width", [80, 120])
def test_table_fits_the_terminal(width: int) -> None:
    """No line is wider than the terminal, and no name or cost is cut."""
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as capture:
        show(console)
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= width
    firsts = [line.split()[0] for line in lines if line.startswith("  ") and line.split()]
    assert [entry.name for entry in CATALOGUE if entry.name not in firsts] == []
    assert "…" not in capture.get()


def test_json_is_the_same_catalogue() -> None:
    """``--json`` prints a list with every entry and field, and nothing else."""
    result = CliRunner().invoke(app, ["strategies", "--json"])
    assert result.exit_code == 0
    fields = ("kind", "name", "needs", "cost", "use")
    assert json.loads(result.output) == [
        {field: getattr(entry, field) for field in fields} for entry in CATALOGUE
    ]


def test_table_is_printed() -> None:
    """Without an option the command prints all three tables."""
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["strategies"])
    assert result.exit_code == 0
    assert [
        each for each in ("Strategies", "Combinators", "Loads") if each not in result.output
    ] == []
