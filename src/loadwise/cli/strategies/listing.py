"""The catalogue of strategies, combinators and loads, as tables and as JSON."""

from __future__ import annotations

import json

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadwise.strategies.catalogue import CATALOGUE

__all__ = ["as_json", "show"]

_FIELDS = ("kind", "name", "needs", "cost", "use")
_HEADINGS = {
    "strategy": ("Strategies", "choose a node"),
    "combinator": ("Combinators", "are strategies made of strategies"),
    "load": ("Loads", "tell LeastLoad and PowerOfTwoChoices how busy a node is: load=InFlight()"),
}


def as_json() -> str:
    """Return the catalogue as a JSON list of objects."""
    entries = [{name: getattr(entry, name) for name in _FIELDS} for entry in CATALOGUE]
    return json.dumps(entries, indent=2)


def show(console: Console) -> None:
    """Print the catalogue as tables, as wide as the terminal."""
    for kind, (title, subtitle) in _HEADINGS.items():
        table = Table(
            box=box.SIMPLE_HEAD,
            padding=(0, 1),
            title=Text.assemble((title, "bold cyan"), (f" {subtitle}", "dim")),
            title_justify="left",
            expand=True,
        )
        table.add_column("name", style="bold", width=18, no_wrap=True)
        table.add_column("needs of\na node", width=13)
        table.add_column("cost\nper pick", width=11)
        table.add_column("use it when", ratio=1)
        for entry in CATALOGUE:
            if entry.kind == kind:
                table.add_row(entry.name, entry.needs, entry.cost, entry.use)
        console.print(table)
    console.print(
        Text(
            "A load is a node's own load_score(), a function of a node, or one of the loads above, "
            "which a Balancer keeps up to date. n is the number of nodes.",
            "dim",
        )
    )
