"""The options of ``loadwise check`` and their help."""

from __future__ import annotations

from typing import Annotated

import typer

from loadwise.cli.exit_codes import exit_codes
from loadwise.cli.options import config_extra

__all__ = ["HELP", "check"]

HELP = f"""Is this fleet file right? Say all that is wrong with it, or what it would build.

A fleet file is the TOML file that loadwise.config.load_balancer reads: nodes,
strategy, health, limits, quotas. Nothing is started, and nobody is asked.
What stands there in vain, such as tau for a strategy without it, is listed
under "no effect".

To install all that it needs: pip install 'loadwise\\[cli,config]'

{exit_codes("The file is right.", "It is not, or cannot be read, or a package is missing.")}

[bold]Examples[/bold]

[cyan]loadwise check fleet.toml[/cyan]
[cyan]loadwise check fleet.toml --set clients.zone=eu-1[/cyan]  (for a zone)
[cyan]loadwise check --schema > fleet.schema.json[/cyan]  (a JSON Schema, for editors)

A fleet file to begin with:

[cyan]nodes = \\["10.0.0.1:8080", {{id = "10.0.0.2:8080", weight = 2}}]
strategy = "p2c"

\\[health]
failure_threshold = 5[/cyan]
"""


def check(
    *,
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="Path of the TOML file.", show_default=False),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a value of the file. May be given several times.",
        ),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of fleet files instead.")
    ] = False,
) -> None:
    """Read the options, and carry them out."""
    with config_extra():
        from loadwise.cli.check.run import print_schema, run_check  # noqa: PLC0415 - another extra
    if schema:
        if file is not None or settings:
            raise typer.BadParameter(
                "it is the same for all files; leave file and settings out.",
                param_hint="--schema",
            )
        print_schema()
        return
    if file is None:
        raise typer.BadParameter("name a file, such as fleet.toml.", param_hint="FILE")
    raise typer.Exit(run_check(file, settings or []))
