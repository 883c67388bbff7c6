"""The commands, their options and their help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import loadwise
from loadwise.cli import strategies as catalogue
from loadwise.cli.demo import run_demo
from loadwise.cli.demo.choices import CHOICES, DEFAULTS, choose
from loadwise.cli.demo.plan import Plan

__all__ = ["app"]

_HELP = """loadwise answers one question: which of these nodes should handle the next request?

It is a library. This command shows what it does and helps you to choose a strategy.

[bold]Examples[/bold]

[cyan]loadwise strategies[/cyan]  what there is to choose from, and when
[cyan]loadwise demo[/cyan]        requests that find their way around servers that fail
"""

_STRATEGIES_HELP = """Show every strategy: what it needs, what a pick costs, when to use it.

[bold]Examples[/bold]

[cyan]loadwise strategies[/cyan]
[cyan]loadwise strategies --json | jq -r '.[].name'[/cyan]
"""

_DEMO_HELP = """Watch loadwise route real HTTP requests to real servers, some of which fail.

Six server processes start on this machine: three are well, one is ten times
slower, one answers 503 to 30% of requests, and one is killed a third of the way
through and started again at two thirds.

The same stream of requests is sent with each strategy. A request that fails is
retried on another server, so none should be lost. The exit code is 0 if none
was, 1 otherwise, and 130 after Ctrl-C.

[bold]Examples[/bold]

[cyan]loadwise demo[/cyan]  (five strategies, in well under a minute)
[cyan]loadwise demo --strategy round-robin[/cyan]  (one, in detail)
[cyan]loadwise demo -s weighted-round-robin -s p2c[/cyan]  (compare two)
[cyan]loadwise demo --requests 1000 --plain --json out.json[/cyan]  (for a script)
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


@app.command(help=_STRATEGIES_HELP)
def strategies(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead.")] = False,
) -> None:
    if as_json:
        typer.echo(catalogue.as_json())
    else:
        catalogue.show(Console())


def _chosen(names: list[str]) -> list[str]:
    try:
        return [choose(name) for name in names]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _number(low: int, high: int, why: str) -> Callable[[object], int]:
    """Return what reads a whole number in this range."""

    def read(text: object) -> int:
        try:
            number = int(str(text))
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not a whole number, such as {low}.") from None
        if not low <= number <= high:
            raise typer.BadParameter(f"{number} is not between {low:,} and {high:,}; {why}.")
        return number

    return read


def _file(path: Path | None) -> Path | None:
    if path is not None and not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"{str(path)!r} is in no folder that exists; make it first.")
    return path


@app.command(help=_DEMO_HELP)
def demo(
    *,
    requests: Annotated[
        int,
        typer.Option(
            "--requests",
            "-n",
            metavar="N",
            parser=_number(100, 100_000, "every act needs a few, and a run should end"),
            help="Requests to send, per run.",
        ),
    ] = 3000,
    concurrency: Annotated[
        int,
        typer.Option(
            "--concurrency",
            "-c",
            metavar="N",
            parser=_number(1, 64, "each client is a thread with connections of its own"),
            help="Client threads.",
        ),
    ] = 16,
    strategy: Annotated[
        list[str],
        typer.Option(
            "--strategy",
            "-s",
            metavar="NAME",
            callback=_chosen,
            help=f"One of {', '.join(CHOICES)}; may be given several times. "
            f"By default {', '.join(DEFAULTS)}.",
        ),
    ] = [*DEFAULTS],  # noqa: B006 - typer takes the default from here
    seed: Annotated[
        int,
        typer.Option(
            metavar="N",
            parser=_number(0, 2**32, "any other seed does as well"),
            help="Seed of arrival times, answer times and random choices.",
        ),
    ] = 1,
    plain: Annotated[
        bool,
        typer.Option(
            "--plain", help="Lines only, as when the output is no terminal or a narrow one."
        ),
    ] = False,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="FILE",
            dir_okay=False,
            writable=True,
            callback=_file,
            help="Write the figures of all runs to this file.",
        ),
    ] = None,
) -> None:
    plan = Plan(requests, concurrency, seed)
    raise typer.Exit(run_demo(strategy, plan, plain=plain, json_file=json_file))
