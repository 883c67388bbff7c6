"""``loadwise strategies``: complete, readable, and the same for people and machines."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

import loadwise
import loadwise.strategies
from loadwise import load
from loadwise.cli.app import app
from loadwise.cli.strategies.catalogue import CATALOGUE, show


def listed(kind: str) -> set[str]:
    """Return the names of one kind in the catalogue."""
    return {entry.name for entry in CATALOGUE if entry.kind == kind}


def test_every_strategy_is_listed() -> None:
    """The catalogue has each class of `loadwise.strategies.__all__` but the protocols, once."""
    everything = {name: getattr(loadwise.strategies, name) for name in loadwise.strategies.__all__}
    concrete = {name for name, kind in everything.items() if not getattr(kind, "_is_protocol", 0)}
    assert len(everything) - len(concrete) == 2
    assert listed("strategy") | listed("combinator") == concrete
    assert len({entry.name for entry in CATALOGUE}) == len(CATALOGUE)


def test_every_load_measure_is_listed() -> None:
    """The catalogue has each measure of `loadwise.load`."""
    assert listed("load") == set(load.__all__) - {"Cell", "Forgetful", "LoadMeasure"}


def test_names_can_be_imported_from_the_package() -> None:
    """Each name of the catalogue can be had by ``from loadwise import``."""
    assert [entry.name for entry in CATALOGUE if not hasattr(loadwise, entry.name)] == []


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
