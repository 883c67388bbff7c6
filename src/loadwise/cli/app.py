"""The command ``loadwise``, where the commands are registered."""

from __future__ import annotations

from typing import Annotated

import typer

import loadwise
from loadwise.cli.check import command as check
from loadwise.cli.compare import command as compare
from loadwise.cli.demo import command as demo
from loadwise.cli.exit_codes import exit_codes
from loadwise.cli.explain import command as explain
from loadwise.cli.host import command as host
from loadwise.cli.scenarios import command as scenarios
from loadwise.cli.strategies import command as strategies
from loadwise.cli.top import command as top

__all__ = ["app"]

_HELP = f"""loadwise answers one question: which of these nodes should handle the next request?

It is a library. This command shows what it does, helps you to choose a
strategy, and watches programs that use it.

{exit_codes("All went well.", "It did not; each command's help says what that means.")}

[bold]Examples[/bold]

[cyan]loadwise strategies[/cyan]         what there is to choose from, and when
[cyan]loadwise demo[/cyan]               real requests to real servers, some of which fail
[cyan]loadwise compare slow-node[/cyan]  strategies side by side on a simulated fleet
[cyan]loadwise scenarios[/cyan]          fleets to simulate, and what each teaches
[cyan]loadwise check fleet.toml[/cyan]   what is wrong with a fleet file, or what it builds
[cyan]loadwise explain fleet.toml[/cyan] where its balancer would send a request, and why
[cyan]loadwise top localhost:8080[/cyan] the nodes of a running program, live
[cyan]loadwise host api[/cyan]           the processes of a host that share load, live
"""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help=_HELP,
)


def _version(asked: bool) -> None:  # noqa: FBT001 - called by typer
    if asked:
        typer.echo(f"loadwise {loadwise.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


app.command(help=strategies.HELP)(strategies.strategies)
app.command(help=demo.HELP)(demo.demo)
app.command(help=compare.HELP)(compare.compare)
app.command(help=scenarios.HELP)(scenarios.scenarios)
app.command(help=check.HELP)(check.check)
app.command(help=explain.HELP)(explain.explain)
app.command(help=top.HELP)(top.top)
app.command(help=host.HELP)(host.host)
