"""The scenario of a fleet that runs: what its file says takes the place of what a scenario says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from loadwise._tables.contenders import contender
from loadwise._tables.schema import Raw, is_table
from loadwise.config.file import FleetFile
from loadwise.config.records import FleetTable, SplitTable
from loadwise.config.sources import nodes_now
from loadwise.nodes import Endpoint
from loadwise.simulation.errors import ScenarioError

__all__ = ["put_fleet"]

_OF_NODES = {"count", "groups", "weight", "zone", "priority"}
"""Keys of ``[servers]`` that a fleet's nodes have of their own."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def put_fleet(raw: dict[str, Raw], fleet: FleetFile) -> None:
    """Put a fleet into a scenario: its nodes, strategy, health, outliers, limits and quotas.

    What the scenario says of load, service times, network and faults stays as it is, and so does
    what it says of the work of a server, such as ``servers.parallelism``.

    Args:
        raw: What the scenario holds; it is changed.
        fleet: The fleet.

    Raises:
        ScenarioError: The fleet says what cannot be simulated.
        ConfigError: Its source cannot be asked for the nodes that there are.
    """
    table = fleet.table
    for place, quota in enumerate(table.quotas):
        if quota.nodes:
            raise ScenarioError(
                f"{fleet.origin}: quotas[{place}].nodes names some nodes, but in a simulation all "
                f"have each quota: leave it out"
            )
    servers = raw.get("servers")
    kept: dict[str, Raw] = {}
    if is_table(servers):
        kept = {key: value for key, value in servers.items() if key not in _OF_NODES}
    raw["servers"] = {**kept, "groups": _groups(nodes_now(fleet), table.split, fleet.origin)}
    raw["strategies"] = [_strategy(table)]
    raw["tau"] = table.tau
    raw["quotas"] = [_plain(quota, ("nodes",)) for quota in table.quotas]
    for key in ("health", "outliers", "slow_start", "limits"):
        raw.pop(key, None)
        value: Struct | None = getattr(table, key)
        if value is not None:
            raw[key] = _plain(value, ("max_waiting",))
    if table.callers is not None:
        raw["callers"] = _with(raw.get("callers"), msgspec.to_builtins(table.callers))
    clients: dict[str, Raw] = {"count": table.clients.count}
    if table.clients.zone is not None:
        clients["zones"] = [table.clients.zone]
    raw["clients"] = _with(raw.get("clients"), clients)


def _with(table: Raw, values: dict[str, Raw]) -> Raw:
    """Return a table with other values; what is no table is left for validation to refuse."""
    if table is None:
        return values
    return {**table, **values} if is_table(table) else table


def _plain(value: Struct, left_out: Sequence[str]) -> dict[str, Raw]:
    """Return a record as a file has it, without what only fleets have."""
    plain: dict[str, Raw] = msgspec.to_builtins(value)
    return {key: inner for key, inner in plain.items() if key not in left_out}


def _strategy(table: FleetTable) -> str:
    """Return the contender that the fleet's balancer is."""
    name = contender(table.strategy).name
    options = {"outliers": table.outliers, "slow-start": table.slow_start}
    given = [option for option, value in options.items() if value is not None]
    return contender("/".join([name, *given])).name


def _groups(nodes: Sequence[Endpoint], split: SplitTable | None, origin: str) -> list[Raw]:
    """Return the nodes in groups of those that are alike, in the order of the first of each."""
    alike: dict[tuple[Any, ...], list[str]] = {}
    for node in nodes:
        of = None if split is None else node.tags.get(split.tag, "")
        alike.setdefault((of, node.weight, node.zone, node.priority), []).append(str(node.id))
    groups: list[Raw] = []
    for number, ((of, weight, zone, priority), ids) in enumerate(alike.items(), 1):
        name = "nodes" if len(alike) == 1 else f"nodes-{number}"
        group: dict[str, Raw] = {"name": name, "ids": ids, "weight": weight, "priority": priority}
        if zone is not None:
            group["zone"] = zone
        if split is not None:
            _check_group(of, [each["name"] for each in groups], split, origin)
            group |= {"name": of, "share": split.shares[of]}
        groups.append(group)
    return groups


def _check_group(name: str, before: Sequence[str], split: SplitTable, origin: str) -> None:
    """Refuse a group of a split that a scenario cannot have."""
    if name in before:
        raise ScenarioError(
            f"{origin}: the nodes of group {name!r} differ in weight, zone or priority, but in a "
            f"simulation of 'split' those of a group are alike: make them alike"
        )
    if name not in split.shares:  # as a source may list some
        raise ScenarioError(
            f"{origin}: some nodes have the group {name!r} by their tag {split.tag!r}, and "
            f"split.shares has none for it"
        )
    if not _NAME.fullmatch(name):
        raise ScenarioError(
            f"{origin}: the group {name!r} cannot be simulated: its name must be of letters, "
            f"digits, - and _, and begin with a letter"
        )
