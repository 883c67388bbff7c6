"""Nodes that are made to fail."""

from __future__ import annotations

from typing import Any

from loadwise import (
    Balancer,
    HealthStatus,
    HealthTracker,
)

UNHEALTHY, RECOVERING = HealthStatus.UNHEALTHY, HealthStatus.RECOVERING


def tracker_of(balancer: Balancer[Any]) -> HealthTracker:
    """Return the balancer's tracker, which is there."""
    assert balancer.health is not None
    return balancer.health


def kill(balancer: Balancer[Any], *ids: str) -> None:
    """Have nodes that never failed before fail until they are UNHEALTHY."""
    for node in ids:
        while tracker_of(balancer).status(node) is not UNHEALTHY:
            tracker_of(balancer).report_failure(node)


def sicken(balancer: Balancer[Any], *ids: str) -> None:
    """Have nodes answer every other request for a while, and then fail until UNHEALTHY."""
    health = tracker_of(balancer)
    for node in ids:
        for _ in range(40):
            health.report_failure(node)
            health.report_success(node)
        kill(balancer, node)


def picked(balancer: Balancer[Any], times: int = 200, **request: Any) -> set[Any]:
    """Return the ids of all that are picked."""
    found = [balancer.pick(**request) for _ in range(times)]
    return {getattr(node, "id", node) for node in found}
