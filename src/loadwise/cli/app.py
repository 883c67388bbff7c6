"""The commands, their options and their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import loadwise
from loadwise.cli import strategies as catalogue
from loadwise.cli.compare.command import HELP, compare
from loadwise.cli.demo import run_demo
from loadwise.cli.demo.choices import CHOICES, DEFAULT_SHARED, DEFAULTS, choose
from loadwise.cli.demo.plan import Plan
from loadwise.cli.options import simulation_extra, whole_number

__all__ = ["app"]

_HELP = """loadwise answers one question: which of these nodes should handle the next request?

It is a library. This command shows what it does and helps you to choose a strategy.

[bold]Examples[/bold]

[cyan]loadwise strategies[/cyan]  what there is to choose from, and when
[cyan]loadwise demo[/cyan]        requests that find their way around servers that fail
[cyan]loadwise compare[/cyan]     strategies side by side on a fleet like yours, simulated
[cyan]loadwise scenarios[/cyan]   fleets to simulate, and what each teaches
"""

_STRATEGIES_HELP = """Show every strategy: what it needs, what a pick costs, when to use it.

[bold]Examples[/bold]

[cyan]loadwise strategies[/cyan]
[cyan]loadwise strategies --json | jq -r '.[].name'[/cyan]
"""

_DEMO_HELP = """Watch loadwise route real HTTP requests to real servers, some of which fail.

Six server processes start on this machine: three are well, one is ten times
slower, one answers 503 to 30% of requests, and one is killed a third of the
way through and started again at two thirds.

The same stream of requests is sent with each strategy, through loadwise's
transport for httpx2. A request that fails is retried on another server, so
none should be lost. The exit code is 0 if none was, 1 otherwise, and 130
after Ctrl-C.

With --shared, two processes send half of the requests each. Through a
Valkey server, which is started too, they share quotas, and what one of them
finds out of a server the other is told. Whether every quota was kept is read
from the servers' own logs; if not, the exit code is 1. It needs loadwise\\[demo].

[bold]Examples[/bold]

[cyan]loadwise demo[/cyan]  (five strategies, in well under a minute)
[cyan]loadwise demo --strategy round-robin[/cyan]  (one, in detail)
[cyan]loadwise demo -s weighted-round-robin -s p2c[/cyan]  (compare two)
[cyan]loadwise demo --requests 1000 --plain --json out.json[/cyan]  (for a script)
[cyan]loadwise demo --shared[/cyan]  (two processes, one quota)
"""

_SCENARIOS_HELP = """Show the scenarios that ship with loadwise, and what each teaches.

With a name, print that scenario as it stands: a TOML file with comments, to begin one of your own.
It needs loadwise\\[simulation].

[bold]Examples[/bold]

[cyan]loadwise scenarios[/cyan]
[cyan]loadwise scenarios slow-node > mine.toml[/cyan]
[cyan]loadwise scenarios --json | jq -r '.[].name'[/cyan]
"""

_USAGE = 2

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


app.command(help=HELP)(compare)


@app.command(help=_STRATEGIES_HELP)
def strategies(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead.")] = False,
) -> None:
    if as_json:
        typer.echo(catalogue.as_json())
    else:
        catalogue.show(Console())


@app.command(help=_SCENARIOS_HELP)
def scenarios(
    *,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Print this one's TOML file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead.")] = False,
) -> None:
    with simulation_extra():
        from loadwise.cli import scenarios as gallery  # noqa: PLC0415 - needs another extra
    if name is None:
        if as_json:
            typer.echo(gallery.as_json())
        else:
            gallery.show(Console())
        return
    if as_json:
        raise typer.BadParameter("it lists all scenarios; leave the name out.", param_hint="--json")
    try:
        typer.echo(gallery.text_of(name), nl=False)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint="NAME") from None


def _chosen(names: list[str]) -> list[str]:
    try:
        return [choose(name) for name in names]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


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
            parser=whole_number(100, 100_000, "every act needs a few, and a run should end"),
            help="Requests to send, per run.",
        ),
    ] = 3000,
    concurrency: Annotated[
        int,
        typer.Option(
            "--concurrency",
            "-c",
            metavar="N",
            parser=whole_number(1, 64, "each client is a thread with connections of its own"),
            help="Client threads; with --shared, of both processes together.",
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
            f"By default {', '.join(DEFAULTS)}; with --shared one, by default {DEFAULT_SHARED}.",
        ),
    ] = [],  # noqa: B006 - typer takes the default from here
    shared: Annotated[
        bool,
        typer.Option(
            "--shared",
            help="Two client processes that share quota and health; needs loadwise\\[demo].",
        ),
    ] = False,
    seed: Annotated[
        int,
        typer.Option(
            metavar="N",
            parser=whole_number(0, 2**32, "any other seed does as well"),
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
    if shared:
        raise typer.Exit(_demo_shared(strategy or [DEFAULT_SHARED], plan, json_file))
    choices = strategy or DEFAULTS
    raise typer.Exit(run_demo(choices, plan, plain=plain, json_file=json_file))


def _demo_shared(choices: list[str], plan: Plan, json_file: Path | None) -> int:
    if len(choices) > 1:
        raise typer.BadParameter(
            "--shared runs with one strategy; give --strategy once.", param_hint="--strategy"
        )
    try:
        from loadwise.cli.demo.shared import run_shared  # noqa: PLC0415 - needs another extra
    except ImportError as error:
        typer.echo(error, err=True)
        return _USAGE
    return run_shared(choices[0], plan, json_file=json_file)
