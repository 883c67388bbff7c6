"""The options of ``loadwise strategies`` and their help."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from loadwise.cli.exit_codes import exit_codes
from loadwise.cli.strategies.listing import as_json, show

__all__ = ["HELP", "strategies"]

HELP = f"""Show every strategy: what it needs, what a pick costs, when to use it.

{exit_codes("The list was printed.", "It could not be printed.")}

[bold]Examples[/bold]

[cyan]loadwise strategies[/cyan]
[cyan]loadwise strategies --json | jq -r '.[].name'[/cyan]
"""


def strategies(
    *,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead.")] = False,
) -> None:
    """Print the list."""
    if json:
        typer.echo(as_json())
    else:
        show(Console())
