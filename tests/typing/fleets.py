"""Rules for fleets as a typed program uses them. Checked by mypy and pyright, never run."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_type

from loadwise import Aperture, Balancer, Endpoint, NodeSet, RendezvousSubset, SlowStart


def slow_start(nodes: list[Endpoint]) -> None:
    """How weights grow."""
    rule = SlowStart(window=30.0, aggression=2.0, min_weight=0.2)
    assert_type(rule.factor(12.0), float)
    balancer = Balancer(nodes, slow_start=rule)
    assert_type(balancer, Balancer[Endpoint])
    assert_type(balancer.status()[0].slow_start, float | None)
    Balancer(nodes, slow_start=None)


def first(nodes: Sequence[Endpoint]) -> NodeSet[Endpoint]:
    """A subset of one's own."""
    return NodeSet(nodes[:12])


def subsets(nodes: list[Endpoint]) -> None:
    """Some of the nodes."""
    assert_type(RendezvousSubset("client", size=12)(nodes), NodeSet[Endpoint])
    aperture = Aperture(client=3, clients=40, size=12)
    assert_type(aperture(nodes), NodeSet[Endpoint])
    assert_type(aperture.width(100), float)
    assert_type(Balancer(nodes, subset=aperture).all_nodes, tuple[Endpoint, ...])
    assert_type(Balancer(nodes, subset=first), Balancer[Endpoint])
    assert_type(Balancer(nodes, subset=RendezvousSubset("client")), Balancer[Endpoint])
