"""Rules for fleets as a typed program uses them. Checked by mypy and pyright, never run."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from typing import assert_type

from loadwise import Balancer, Endpoint, SlowStart


def slow_start(nodes: list[Endpoint]) -> None:
    """How weights grow."""
    rule = SlowStart(window=30.0, aggression=2.0, min_weight=0.2)
    assert_type(rule.factor(12.0), float)
    balancer = Balancer(nodes, slow_start=rule)
    assert_type(balancer, Balancer[Endpoint])
    assert_type(balancer.status()[0].slow_start, float | None)
    Balancer(nodes, slow_start=None)
