"""The options of ``loadwise top`` and their help, and what carries them out."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live

from loadwise._text import visible_lines
from loadwise.cli.exit_codes import FAILED, INTERRUPTED, exit_codes, interruptible

if TYPE_CHECKING:
    from loadwise.cli.top.fetching import PageSource

__all__ = ["HELP", "top"]

_REFRESH = 1.0

HELP = f"""Watch the nodes of a running program in the terminal, those with problems first.

The program shows a status page (loadwise.integrations.status_page); this
asks it once a second, and shows how each node is, and why it gets no
requests. Without a terminal, and with --once, it is shown once.

{exit_codes("It was shown.", "There is no such page, or it does not answer.")}

[bold]Examples[/bold]

[cyan]loadwise top localhost:8080[/cyan]
[cyan]loadwise top https://api.internal/ops/status[/cyan]  (mounted below a path)
[cyan]loadwise top localhost:8080 --once[/cyan]  (for a script, or a chat)
[cyan]loadwise top localhost:8080 --json[/cyan]  (all there is)
"""


def top(
    *,
    page: Annotated[
        str,
        typer.Argument(metavar="URL", help="URL of the page, or host:port."),
    ],
    once: Annotated[bool, typer.Option("--once", help="Show it once.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what the page tells as JSON, once.")
    ] = False,
) -> None:
    """Show what a status page tells."""
    # The client takes longer to import than other commands to run.
    from loadwise.cli.top.fetching import (  # noqa: PLC0415 - see above
        PageSource,
        UnreachableError,
        address_of,
    )

    try:
        address = address_of(page)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint="URL") from None
    try:
        with interruptible(), PageSource(address) as source:
            if as_json:
                answer, _ = source.fetch()
                # In ASCII, so that no character of it does anything to a terminal.
                typer.echo(json.dumps(answer, indent=2))
            else:
                _show(source, once=once)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except UnreachableError as error:
        sys.stderr.write(visible_lines(f"{error}\n"))
        raise typer.Exit(FAILED) from None


def _show(source: PageSource, *, once: bool) -> None:
    from loadwise.cli.top.fetching import UnreachableError  # noqa: PLC0415 - see above
    from loadwise.cli.top.view import FleetView  # noqa: PLC0415 - see above

    console = Console()
    _, told = source.fetch()
    view = FleetView(console, source.shown)
    if once or not console.is_terminal or console.is_dumb_terminal:
        console.print(view.draw(told))
        return
    trouble = ""
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            if not trouble:
                view.remember(told)
            live.update(view.draw(told, height=console.height, trouble=trouble), refresh=True)
            time.sleep(_REFRESH)
            try:
                _, told = source.fetch()
                trouble = ""
            except UnreachableError as error:
                trouble = f"{error}; trying again"
