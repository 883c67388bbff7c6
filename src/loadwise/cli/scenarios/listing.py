"""The list of bundled scenarios, as a table and as JSON, and the file of each."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadwise.errors import nearest
from loadwise.simulation.scenario.file import load_scenario
from loadwise.simulation.scenario.fleet import server_groups
from loadwise.simulation.scenario.gallery import scenario_names, scenario_text

__all__ = ["ListingRow", "as_json", "entries", "show", "text_of"]

_LEAST_WIDTH = 60


@dataclass(frozen=True, slots=True)
class ListingRow:
    """One row of the list.

    Attributes:
        name: Its name.
        servers: Servers in the beginning.
        load: Work that arrives, as a share of what they can do.
        strategies: Those compared by default.
        requests: Requests in a run.
        about: What it teaches.
    """

    name: str
    servers: int
    load: float
    strategies: tuple[str, ...]
    requests: int
    about: str


def entries() -> tuple[ListingRow, ...]:
    """Return a row for each bundled scenario."""
    scenarios = map(load_scenario, scenario_names())
    return tuple(
        ListingRow(
            scenario.name,
            sum(group.count for group in server_groups(scenario)),
            scenario.load,
            scenario.strategies,
            scenario.requests,
            " ".join(scenario.about.split()),
        )
        for scenario in scenarios
    )


def as_json() -> str:
    """Return the list as JSON."""
    return json.dumps([asdict(entry) for entry in entries()], indent=2)


def text_of(name: str) -> str:
    """Return the TOML file of a scenario, comments and all.

    Raises:
        ValueError: There is no such scenario.
    """
    if name not in scenario_names():
        raise ValueError(
            f"there is no scenario {name!r}{nearest(name, scenario_names())} "
            f"(the scenarios are {', '.join(scenario_names())})"
        )
    return scenario_text(name)


def show(console: Console) -> None:
    """Print the list as a table, as wide as the terminal; a narrow one breaks the lines itself."""
    width = max(console.width, _LEAST_WIDTH)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), width=width)
    table.add_column("scenario", style="bold", no_wrap=True)
    table.add_column("servers", justify="right", no_wrap=True)
    table.add_column("load", justify="right", no_wrap=True)
    table.add_column("what it teaches", ratio=1)
    for entry in entries():
        table.add_row(entry.name, str(entry.servers), f"{entry.load:g}", entry.about)
        table.add_row()
    console.print(table, crop=False)
    console.print(
        Text(
            "Load is the work that arrives, as a share of what the servers can do. Simulate one "
            "with 'loadwise compare NAME'; begin one of your own with "
            "'loadwise scenarios NAME > mine.toml'.",
            "dim",
        )
    )
