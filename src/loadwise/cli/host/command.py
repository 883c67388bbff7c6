"""The options of ``loadwise host`` and their help, and what carries them out."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from loadwise._text import visible_lines
from loadwise.cli.exit_codes import FAILED, INTERRUPTED, exit_codes, interruptible
from loadwise.cli.host.view import HostView
from loadwise.shared_memory import HostFileError, HostStatus, read_host

__all__ = ["HELP", "host"]

_REFRESH = 1.0

HELP = f"""Watch the worker processes of this host, and the nodes that they share.

The processes share by a HostState (loadwise.shared_memory). This reads its
file once a second, and writes nothing: who takes part, what each has in
flight, what the nodes cost, and which of them are down. Without a terminal,
and with --once, it is shown once.

{exit_codes("It was shown.", "There is no such file, or it cannot be read.")}

[bold]Examples[/bold]

[cyan]loadwise host api[/cyan]         for HostState("api")
[cyan]loadwise host /run/app/lb[/cyan] for HostState("/run/app/lb")
[cyan]loadwise host api --once[/cyan]  for a script, or a chat
[cyan]loadwise host api --json[/cyan]  all there is
"""


def host(
    *,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Name that the program gives to HostState, or path."),
    ],
    once: Annotated[bool, typer.Option("--once", help="Show it once.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all as JSON, once.")] = False,
) -> None:
    """Show what the processes of a host share."""
    try:
        with interruptible():
            status = _first(name)
            if as_json:
                # In ASCII, so that no character of it does anything to a terminal.
                typer.echo(json.dumps(status.to_dict(), indent=2))
            else:
                _show(name, status, once=once)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except HostFileError as error:
        sys.stderr.write(visible_lines(f"{error}\n"))
        raise typer.Exit(FAILED) from None


def _first(name: str) -> HostStatus:
    try:
        return read_host(name)
    except ValueError as error:
        raise typer.BadParameter(visible_lines(f"{error}."), param_hint="NAME") from None


def _show(name: str, status: HostStatus, *, once: bool) -> None:
    console = Console()
    view = HostView(console)
    if once or not console.is_terminal or console.is_dumb_terminal:
        console.print(view.draw(status))
        return
    trouble = ""
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(view.draw(status, height=console.height, trouble=trouble), refresh=True)
            time.sleep(_REFRESH)
            try:
                status = read_host(name)
                trouble = ""
            except (HostFileError, ValueError) as error:  # or its folder is gone
                trouble = f"{error}; trying again"
