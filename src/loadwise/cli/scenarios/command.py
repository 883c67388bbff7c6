"""The options of ``loadwise scenarios`` and their help."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from loadwise.cli.exit_codes import exit_codes
from loadwise.cli.options import simulation_extra

__all__ = ["HELP", "scenarios"]

HELP = f"""Show the bundled scenarios, and what each teaches.

With a name, print that scenario as it stands: a TOML file with comments, to begin one of your own.

To install all that it needs: pip install 'loadwise\\[cli,simulation]'

{exit_codes("The list or file was printed.", "It could not be printed, or a package is missing.")}

[bold]Examples[/bold]

[cyan]loadwise scenarios[/cyan]
[cyan]loadwise scenarios slow-node > mine.toml[/cyan]
[cyan]loadwise scenarios --json | jq -r '.[].name'[/cyan]
"""


def scenarios(
    *,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Print this one's TOML file.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead.")] = False,
) -> None:
    """Print the list, or one scenario."""
    with simulation_extra():
        from loadwise.cli.scenarios.listing import (  # noqa: PLC0415 - needs another extra
            as_json,
            show,
            text_of,
        )
    if name is None:
        if json:
            typer.echo(as_json())
        else:
            show(Console())
        return
    if json:
        raise typer.BadParameter("it lists all scenarios; leave the name out.", param_hint="--json")
    try:
        typer.echo(text_of(name), nl=False)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint="NAME") from None
