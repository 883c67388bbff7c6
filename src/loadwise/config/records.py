"""Records of a fleet file: nodes or where they come from, and how requests are balanced.

What scenarios say, too, is written as there, and by the same records.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from loadwise._tables.fields import Count, PositiveSeconds, TableRecord
from loadwise._tables.records import (
    Health,
    LimitTable,
    Outliers,
    Quota,
    Retries,
    SlowStartTable,
)
from loadwise.config.source_records import (
    ConsulNodes,
    DnsNodes,
    FileNodes,
    KubernetesNodes,
    Name,
    SourceTable,
)

__all__ = [
    "ConsulNodes",
    "DnsNodes",
    "FileNodes",
    "FleetClients",
    "FleetLimits",
    "FleetQuota",
    "FleetTable",
    "KubernetesNodes",
    "NodeTable",
    "SplitTable",
]


class NodeTable(TableRecord, frozen=True):
    """One node; an id alone, in quotes, stands for a table of nothing but that.

    Attributes:
        id: Its identity; an address is a good one.
        weight: Its share relative to others; 0 for drained.
        zone: Where it stands.
        priority: Its tier, for ``tiers``; those of the lowest are asked first.
        tags: Texts by name.
    """

    id: Name
    weight: Annotated[float, Meta(ge=0, description="a weight")] = 1.0
    zone: Name | None = None
    priority: Annotated[int, Meta(ge=0, description="a whole number")] = 0
    tags: dict[str, str] = {}  # noqa: RUF012 - msgspec copies an empty one


class SplitTable(TableRecord, frozen=True):
    """Shares of groups of nodes, for the strategy ``split``.

    Attributes:
        tag: Name of the tag that says to which group a node belongs.
        shares: Shares of the requests by group; any unit, such as per cent.
    """

    tag: Name
    shares: dict[str, Annotated[float, Meta(ge=0, le=1e6, description="a share, in any unit")]]


class FleetClients(TableRecord, frozen=True):
    """Programs that use this fleet, each of which sees its own requests only.

    Attributes:
        count: How many there are; each keeps to its part of the quotas.
        zone: Where this one stands, for ``zones``.
    """

    count: Count = 1
    zone: Name | None = None


class FleetLimits(LimitTable, frozen=True):
    """Limits of what a balancer sends, and of what waits for it.

    Attributes:
        max_waiting: Requests that may wait for a node at once. No limit by default.
    """

    max_waiting: (
        Annotated[int, Meta(ge=0, le=1_000_000, description="a whole number of requests")] | None
    ) = None


class FleetQuota(Quota, frozen=True):
    """A limit that every node enforces, with an answer 429, and every client knows.

    Attributes:
        nodes: Ids of the nodes that have it; all by default.
    """

    nodes: tuple[Name, ...] = ()


class FleetTable(TableRecord, frozen=True):
    """A fleet: its nodes, and how requests are balanced over them.

    Attributes:
        nodes: Ids of nodes, or a table for each; unless there is a source.
        source: Where the nodes are listed; unless they are here.
        schema: Version of this layout; 1.
        name: Name of the balancer, for errors and metrics.
        strategy: Who chooses, by its name in scenarios, with options behind it:
            ``p2c/outliers/slow-start``, ``least-load/no-health``.
        tau: Seconds in which peak EWMA forgets a peak.
        clients: Who balances.
        callers: How requests that fail are retried; without the table as each call says.
        health: How health is tracked.
        outliers: When nodes that do worse than the rest are ejected; never without this table or
            the option ``/outliers``.
        slow_start: How the weight grows of nodes that join or recover; at once without this table
            or the option ``/slow-start``.
        limits: How much is sent to a node, and how much may wait.
        split: Groups and their shares, for ``split``.
        quotas: Limits that nodes enforce.
    """

    nodes: tuple[Name | NodeTable, ...] | None = None
    source: SourceTable | None = None
    schema: Annotated[int, Meta(ge=1, le=1, description="the version of the layout")] = 1
    name: Name = "default"
    strategy: Name = "p2c"
    tau: PositiveSeconds = 10.0
    clients: FleetClients = FleetClients()
    callers: Retries | None = None
    health: Health = Health()
    outliers: Outliers | None = None
    slow_start: SlowStartTable | None = None
    limits: FleetLimits = FleetLimits()
    split: SplitTable | None = None
    quotas: tuple[FleetQuota, ...] = ()
