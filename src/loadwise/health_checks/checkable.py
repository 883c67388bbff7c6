"""Conditions without which every check would fail, found out before the first."""

from __future__ import annotations

from typing import TypeVar

from loadwise.balancer import Balancer
from loadwise.health import HealthTracker
from loadwise.health_checks.probe import TimedProbe
from loadwise.health_checks.settings import CheckSettings

__all__ = ["require_checkable", "tracker_of"]

N = TypeVar("N")


def require_checkable(balancer: Balancer[N], settings: CheckSettings, probe: object) -> None:
    """Find out before the first check what would make all checks fail.

    Raises:
        TypeError: The balancer is none.
        ValueError: A node has no address that the probe can use, or there is no tracker.
    """
    if not isinstance(balancer, Balancer):
        raise TypeError(f"balancer is {balancer!r}; it must be a Balancer")
    tracker = tracker_of(balancer, settings)
    if settings.leader is not None and type(tracker) is HealthTracker:
        raise ValueError(
            f"leader is given, but the health of balancer {balancer.name!r} is kept in this "
            f"process alone, so those that do not check would never hear of a node that is down; "
            f"give the balancer health=SharedHealth(...) of loadwise.integrations.redis, or a "
            f"HealthTracker of your own class that tells the others"
        )
    if isinstance(probe, TimedProbe):
        for node in balancer.nodes:
            probe.check_node(node)


def tracker_of(balancer: Balancer[N], settings: CheckSettings) -> HealthTracker:
    """Return the tracker to which checks are reported.

    Raises:
        ValueError: There is none.
    """
    tracker = balancer.health if settings.health is None else settings.health
    if tracker is None:
        raise ValueError(
            f"balancer {balancer.name!r} keeps no health (health=False), so there is nothing to "
            f"report to; give the checker a tracker of its own with health=HealthTracker()"
        )
    return tracker
