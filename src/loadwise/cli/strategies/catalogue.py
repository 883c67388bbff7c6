"""The catalogue of strategies, combinators and loads, as tables and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["CATALOGUE", "Entry", "as_json", "show"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the catalogue.

    Attributes:
        kind: ``"strategy"``, ``"combinator"`` or ``"load"``.
        name: Name of the class, importable from `loadwise`.
        needs: What it needs of a node.
        cost: What a pick costs for n nodes.
        use: When to use it.
    """

    kind: str
    name: str
    needs: str
    cost: str
    use: str


CATALOGUE = (
    Entry("strategy", "RoundRobin", "nothing", "O(1)", "Nodes are alike and requests cost alike."),
    Entry(
        "strategy",
        "WeightedRoundRobin",
        "weight",
        "O(1) or O(log n)",
        "Nodes differ in size and requests cost alike. Exact shares, smoothly interleaved; "
        "O(log n) only for weights that are floats or very uneven.",
    ),
    Entry(
        "strategy",
        "Random",
        "nothing",
        "O(1)",
        "Many clients share the nodes and must not fall into step.",
    ),
    Entry(
        "strategy",
        "WeightedRandom",
        "weight",
        "O(1)",
        "As Random, for nodes that differ in size.",
    ),
    Entry(
        "strategy",
        "PowerOfTwoChoices",
        "a load",
        "O(1)",
        "The default. Nearly as good as asking all nodes for their load, at any size.",
    ),
    Entry(
        "strategy",
        "LeastLoad",
        "a load",
        "O(n)",
        "Few nodes and one client, or requests so long that the best place is worth a scan.",
    ),
    Entry(
        "strategy",
        "ConsistentHash",
        "hash_key of the request",
        "O(1)",
        "A key must stay on its node (caches, sessions); few keys move when nodes change. "
        "A weight is heeded.",
    ),
    Entry(
        "strategy",
        "MostAvailable",
        "remaining()",
        "O(n)",
        "Several budgets (API keys, token allowances) are to be spent evenly.",
    ),
    Entry(
        "combinator",
        "Filtered",
        "as the strategy inside",
        "as the strategy inside",
        "A strategy may see only some nodes: one zone, one tier, the healthy ones. O(n) more when "
        "health or quotas have changed, and at each pick with a function of a node.",
    ),
    Entry(
        "combinator",
        "WithFallback",
        "as the strategies inside",
        "as those asked",
        "One strategy first, another when the first has nothing to offer.",
    ),
    Entry(
        "combinator",
        "FallbackChain",
        "as the strategies inside",
        "as those asked",
        "Tiers: the best that has a node left, in any number.",
    ),
    Entry(
        "load",
        "InFlight",
        "nothing",
        "O(1)",
        "Requests cost about the same on every node: counts those under way.",
    ),
    Entry(
        "load",
        "PeakEwma",
        "nothing",
        "O(1)",
        "Nodes or requests differ in speed: recent latency, peaks at once, times those under way.",
    ),
)

_HEADINGS = {
    "strategy": ("Strategies", "choose a node"),
    "combinator": ("Combinators", "are strategies made of strategies"),
    "load": ("Loads", "tell LeastLoad and PowerOfTwoChoices how busy a node is: load=InFlight()"),
}


def as_json(entries: Iterable[Entry] = CATALOGUE) -> str:
    """Return the catalogue as a JSON list of objects."""
    return json.dumps([asdict(entry) for entry in entries], indent=2)


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
