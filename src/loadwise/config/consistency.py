"""Consistency of a fleet: what it says goes together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from loadwise._tables.contenders import STRATEGIES, Contender, contender
from loadwise.config.records import FleetTable
from loadwise.errors import nearest
from loadwise.nodes import Endpoint

__all__ = ["FLEET_STRATEGIES", "inconsistencies", "strategy_faults"]

FLEET_STRATEGIES: Final = tuple(name for name in STRATEGIES if name != "most-available")
"""Names of the strategies that can choose among the nodes of a file."""

_MOST_NAMED = 10
"""Ids that a message names at most."""


def inconsistencies(table: FleetTable, nodes: Sequence[Endpoint]) -> Iterator[str]:
    """Yield what does not go together, with the place and the remedy. O(nodes and quotas).

    Args:
        table: What the file says.
        nodes: The nodes that it names.

    Example:
        >>> [found] = inconsistencies(FleetTable(strategy="p3c", nodes=("a",)), [Endpoint("a")])
        >>> found[:56]
        "strategy: 'p3c' is not a strategy; did you mean 'p2c'? ("
    """
    yield from _of_nodes(table, nodes)
    faults = list(strategy_faults(table.strategy))
    yield from faults
    if not faults:
        yield from _of_strategy(table, nodes, contender(table.strategy))
    outliers = table.outliers
    if outliers is not None and outliers.max_ejection < outliers.base_ejection:
        yield (
            f"outliers.max_ejection is {outliers.max_ejection:g} s, below outliers.base_ejection, "
            f"which is {outliers.base_ejection:g} s"
        )
    yield from _of_quotas(table, nodes)


def strategy_faults(name: str) -> Iterator[str]:
    """Yield what is wrong with the name of a strategy, or its options."""
    try:
        who = contender(name)
    except ValueError as error:
        yield f"strategy: {error}"
        return
    plain = who.name.partition("/")[0]
    if plain not in FLEET_STRATEGIES:
        yield (
            f"strategy {plain!r} asks each node what it has left, which nodes of a file cannot "
            f"tell: name another, such as 'p2c', or make a Balancer of objects with remaining()"
        )


def _of_nodes(table: FleetTable, nodes: Sequence[Endpoint]) -> Iterator[str]:
    if table.nodes is None and table.source is None:
        yield 'there are neither nodes nor a source: name some, such as nodes = ["10.0.0.1:8080"]'
    elif table.nodes is not None and table.source is not None:
        yield "there are both nodes and a source: leave one of them out"
    elif table.source is not None:
        return
    elif not nodes:
        yield 'nodes is empty: name one, such as nodes = ["10.0.0.1:8080"]'
    elif not any(node.weight for node in nodes):
        yield "all nodes have weight 0, so that none may be picked: set a weight"


def _of_strategy(table: FleetTable, nodes: Sequence[Endpoint], who: Contender) -> Iterator[str]:
    plain = who.name.partition("/")[0]
    if plain == "zones":
        yield from _of_zones(table, nodes)
    if table.split is None:
        if plain == "split":
            yield "strategy 'split' needs groups and their shares: add a table [split]"
        return
    if plain != "split":
        yield f"split is set, but the strategy is {who.name!r}: leave it out, or name 'split'"
        return
    yield from _of_shares(table.split.tag, table.split.shares, nodes)


def _of_zones(table: FleetTable, nodes: Sequence[Endpoint]) -> Iterator[str]:
    for index, node in enumerate(nodes):
        if node.zone is None:
            yield f"strategy 'zones' needs nodes with zones: nodes[{index}], {node.id!r}, has none"
    zones = sorted({node.zone for node in nodes if node.zone is not None})
    local = table.clients.zone
    if local is None:
        yield "strategy 'zones' needs to know where this program stands: set clients.zone"
    elif zones and local not in zones:
        yield (
            f"clients.zone is {local!r}, and no node is there{nearest(local, zones)} (the nodes' "
            f"zones are {_some(zones)})"
        )


def _of_shares(tag: str, shares: dict[str, float], nodes: Sequence[Endpoint]) -> Iterator[str]:
    if not any(shares.values()):
        yield "split.shares needs a group with a share above 0"
    for index, node in enumerate(nodes):
        group = node.tags.get(tag)
        if group is None:
            yield f"strategy 'split' goes by tag {tag!r}: nodes[{index}], {node.id!r}, has none"
        elif group not in shares:
            yield (
                f"nodes[{index}].tags.{tag} is {group!r}, a group without a share"
                f"{nearest(group, shares)} (split.shares has {_some(shares)})"
            )


def _of_quotas(table: FleetTable, nodes: Sequence[Endpoint]) -> Iterator[str]:
    ids = {str(node.id) for node in nodes}
    # Whose quota of a name has been seen; "" stands for all nodes.
    seen: dict[str, set[str]] = {}
    for place, quota in enumerate(table.quotas):
        for index, identity in enumerate(quota.nodes):
            if ids and identity not in ids:
                yield (
                    f"quotas[{place}].nodes[{index}]: there is no node {identity!r}"
                    f"{nearest(identity, ids)} (the nodes are {_some(sorted(ids))})"
                )
        of, before = {*quota.nodes} or {""}, seen.setdefault(quota.name, set())
        both = sorted(of & before) if "" not in of | before else sorted(before)[:1]
        if both:
            whose = f" for node {both[0]!r}" if both[0] else ""
            yield f"quotas[{place}]: a quota called {quota.name!r} is there twice{whose}"
        before |= of
        part = quota.limit / table.clients.count
        if quota.aware and quota.counts == "requests" and part < 1:
            yield (
                f"quotas[{place}].limit is {quota.limit:g} for {table.clients.count:,} clients, "
                f"less than one request for each: set a longer window and a higher limit"
            )


def _some(names: Sequence[str] | dict[str, float]) -> str:
    found = list(names)
    rest = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return f"{', '.join(found[:_MOST_NAMED])}{rest}"
