"""The options of ``loadwise explain`` and their help."""

from __future__ import annotations

from typing import Annotated

import typer

from loadwise.cli.exit_codes import exit_codes
from loadwise.cli.options import config_extra

__all__ = ["HELP", "explain"]

HELP = f"""Where would the balancer of this fleet file send a request, and why?

It builds the balancer and asks it once, as Balancer.explain() of a program
that has just started: all nodes are healthy, and nothing is in flight. No
request is sent. A source of nodes is asked once for those that it lists now.

To install all that it needs: pip install 'loadwise\\[cli,config]'

{exit_codes("It was told.", "The file is not right, or a package is missing.")}

[bold]Examples[/bold]

[cyan]loadwise explain fleet.toml[/cyan]
[cyan]loadwise explain fleet.toml --hash-key user-7[/cyan]  (strategies that go by keys)
[cyan]loadwise explain fleet.toml --hash-key user-7 --exclude a:8080[/cyan]  (the next)
[cyan]loadwise explain fleet.toml --cost tpm=5000[/cyan]  (what quotas allow)
"""


def _amount(text: str) -> tuple[str, float]:
    name, _, amount = text.partition("=")
    try:
        return name, float(amount)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a quota's name, = and an amount, such as tpm=5000.",
            param_hint="--cost",
        ) from None


def explain(
    *,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Path of the TOML file.", show_default=False)
    ],
    hash_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="What the request belongs to, such as a user or a path."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="A node not to choose. May be given several times."),
    ] = None,
    cost: Annotated[
        list[str] | None,
        typer.Option(
            metavar="QUOTA=AMOUNT",
            help="What the request uses of a quota. May be given several times.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a value of the file. May be given several times.",
        ),
    ] = None,
) -> None:
    """Read the options, and carry them out."""
    with config_extra():
        from loadwise.cli.explain.run import RequestToExplain, run_explain  # noqa: PLC0415 - another extra
    asked = RequestToExplain(hash_key, tuple(exclude or ()), dict(map(_amount, cost or ())))
    raise typer.Exit(run_explain(file, settings or [], asked))
