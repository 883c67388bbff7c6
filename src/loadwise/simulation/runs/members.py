"""Parts of a client's balancer, made of what a scenario says of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

from loadwise.balancer import SlowStart
from loadwise.node_set import NodeSet
from loadwise.outliers import FailureShare, OutlierDetection, SlowShare, SuccessRate
from loadwise.simulation.scenario import Group, Scenario, Servers
from loadwise.simulation.scenario.contenders import Contender, Seat
from loadwise.simulation.scenario.fleet import added_groups, server_groups
from loadwise.simulation.world.llm_engine import LlmEngine
from loadwise.simulation.world.loop import Loop
from loadwise.simulation.world.prompts import CHARACTERS_PER_TOKEN
from loadwise.simulation.world.server import Engine, Server
from loadwise.subsets import Aperture, RendezvousSubset

__all__ = ["engine_of", "outlier_detection", "seat_of", "slow_start", "subset"]

T = TypeVar("T")


def engine_of(servers: Servers, group: Group, loop: Loop) -> Engine | None:
    """Return what a server of a group works with, where it is no queue."""
    if servers.kind != "llm":
        return None
    return LlmEngine(loop, servers.llm, 1.0 / (group.speed or 1.0))


def seat_of(scenario: Scenario, client: int, rng: Random) -> Seat:
    """Return the place of a client, which its strategy may depend on."""
    zones = scenario.clients.zones
    groups = (*server_groups(scenario), *added_groups(scenario))
    llm, believed = scenario.servers.llm, scenario.clients.believed_blocks
    return Seat(
        rng,
        scenario.tau,
        zones[client % len(zones)] if zones else None,
        {group.name: group.share for group in groups if group.share is not None},
        believed or max(1, llm.blocks),
        llm.block_tokens * CHARACTERS_PER_TOKEN,
    )


def outlier_detection(scenario: Scenario, who: Contender, rng: Random) -> OutlierDetection | None:
    """Return what ejects outliers, if anything does."""
    if not who.outliers:
        return None
    wanted = scenario.outliers
    deviations, share = _given(wanted.stdev_factor), _given(wanted.failure_share)
    slow, nodes = _given(wanted.slow_factor), wanted.min_nodes
    many, fewer = wanted.min_requests or 100, wanted.min_requests or 50
    return OutlierDetection(
        interval=wanted.interval,
        base_ejection=wanted.base_ejection,
        max_ejection=wanted.max_ejection,
        jitter=wanted.jitter,
        max_ejected=wanted.max_ejected,
        consecutive_failures=_given(wanted.consecutive_failures),
        success_rate=None if deviations is None else SuccessRate(deviations, nodes, many),
        failure_share=None if share is None else FailureShare(share, nodes, fewer),
        slow_share=None if slow is None else SlowShare(slow),
        significance=_given(wanted.significance),
        probe=wanted.probe,
        rng=rng,
    )


def slow_start(scenario: Scenario, who: Contender) -> SlowStart | None:
    """Return the slow start of servers that join, if there is one."""
    if not who.slow_start:
        return None
    wanted = scenario.slow_start
    return SlowStart(wanted.window, wanted.aggression, wanted.min_weight)


def subset(scenario: Scenario, client: int) -> Callable[[Sequence[Server]], NodeSet[Server]] | None:
    """Return the choice of the servers that a client uses; ``None`` where it uses all."""
    wanted = scenario.clients
    if wanted.subset is None:
        return None
    if wanted.subset == "aperture":
        return Aperture(client, wanted.count, wanted.subset_size)
    return RendezvousSubset(client, wanted.subset_size)


def _given(value: T | str) -> T | None:
    return None if isinstance(value, str) else value
