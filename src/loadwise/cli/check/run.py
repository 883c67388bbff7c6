"""Carries out ``loadwise check``: read, build, and say what came of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadwise._text import visible
from loadwise.cli.check.summary import summary
from loadwise.cli.exit_codes import FAILED
from loadwise.config import ConfigError
from loadwise.config.building import balancer_of
from loadwise.config.file import read_fleet
from loadwise.config.json_schema import fleet_schema

__all__ = ["print_schema", "run_check"]


def print_schema() -> None:
    """Print the JSON Schema of fleet files."""
    typer.echo(json.dumps(fleet_schema(), indent=2))


def run_check(file: str, settings: Sequence[str]) -> int:
    """Print all that is wrong with a file, or what it would build; return the exit code."""
    try:
        fleet = read_fleet(file, settings)
        balancer = balancer_of(fleet)
    except (ConfigError, ImportError) as error:
        sys.stderr.write(f"{error}\n")
        return FAILED
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, text in summary(fleet, balancer):
        table.add_row(name, Text(visible(text)))
    console = Console()
    console.print(Text.assemble((visible(file), "bold cyan"), " is right. It builds:"))
    console.print(table)
    return 0
