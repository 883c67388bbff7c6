"""Parts of a client's balancer, made of what a scenario says of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from loadwise._tables import parts
from loadwise._tables.contenders import Contender, Seat
from loadwise.balancer import SlowStart
from loadwise.clock import Clock
from loadwise.node_set import NodeSet
from loadwise.outliers import OutlierDetection
from loadwise.shared_memory.virtual_host import VirtualHost, VirtualProcess
from loadwise.simulation.scenario import Group, Scenario, Servers
from loadwise.simulation.scenario.fleet import added_groups, ids_of, server_groups
from loadwise.simulation.world.llm_engine import LlmEngine
from loadwise.simulation.world.loop import Loop
from loadwise.simulation.world.prompts import CHARACTERS_PER_TOKEN
from loadwise.simulation.world.server import Engine, Server
from loadwise.subsets import Aperture, RendezvousSubset

__all__ = [
    "engine_of",
    "hosts_of",
    "outlier_detection",
    "seat_of",
    "slow_start",
    "subset",
    "zone_of",
]


def engine_of(servers: Servers, group: Group, loop: Loop) -> Engine | None:
    """Return what a server of a group works with, where it is no queue."""
    if servers.kind != "llm":
        return None
    return LlmEngine(loop, servers.llm, 1.0 / (group.speed or 1.0))


def seat_of(scenario: Scenario, client: int, rng: Random) -> Seat:
    """Return the place of a client, which its strategy may depend on."""
    groups = (*server_groups(scenario), *added_groups(scenario))
    llm, believed = scenario.servers.llm, scenario.clients.believed_blocks
    return Seat(
        rng,
        scenario.tau,
        zone_of(scenario, client),
        {group.name: group.share for group in groups if group.share is not None},
        believed or max(1, llm.blocks),
        llm.block_tokens * CHARACTERS_PER_TOKEN,
    )


def zone_of(scenario: Scenario, client: int) -> str | None:
    """Return where a client stands, if that is said."""
    zones = scenario.clients.zones
    return zones[client // scenario.clients.per_host % len(zones)] if zones else None


def hosts_of(scenario: Scenario, clock: Clock) -> list[VirtualProcess | None]:
    """Return each client's part in its host; ``None`` where each sees its own requests alone."""
    count, together = scenario.clients.count, scenario.clients.per_host
    if together == 1:
        return [None] * count
    groups = (*server_groups(scenario), *added_groups(scenario))
    nodes = sum(len(ids_of(group)) for group in groups)
    return [
        process
        for _ in range(count // together)
        for process in VirtualHost(clock, processes=together, nodes=nodes).processes
    ]


def outlier_detection(scenario: Scenario, who: Contender, rng: Random) -> OutlierDetection | None:
    """Return what ejects outliers, if anything does."""
    return parts.outlier_detection(scenario.outliers, rng) if who.outliers else None


def slow_start(scenario: Scenario, who: Contender) -> SlowStart | None:
    """Return the slow start of servers that join, if there is one."""
    return parts.slow_start(scenario.slow_start) if who.slow_start else None


def subset(scenario: Scenario, client: int) -> Callable[[Sequence[Server]], NodeSet[Server]] | None:
    """Return the choice of the servers that a client uses; ``None`` where it uses all."""
    wanted = scenario.clients
    if wanted.subset is None:
        return None
    if wanted.subset == "aperture":
        return Aperture(client, wanted.count, wanted.subset_size)
    return RendezvousSubset(client, wanted.subset_size)
