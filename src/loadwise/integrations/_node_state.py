"""Gauges of a balancer's nodes, and of what it shares with other processes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from loadwise.health import HealthStatus

__all__ = ["NodeState", "SharedState", "state_name"]


def state_name(status: HealthStatus) -> str:
    """Return a state of health in the way of label values."""
    return str(status.name).lower()


@dataclass(slots=True)
class NodeState:
    """The gauges of one label: of a node, or sums over those beyond the limit.

    Of the seconds of their cooldowns the most, which add up to nothing that anybody could use.
    """

    in_flight: int = 0
    drained: int = 0
    ailing: int = 0
    on_cooldown: int = 0
    ejected: int = 0
    cooldown_seconds: float = 0.0
    health: dict[str, int] = field(
        default_factory=lambda: {state_name(status): 0 for status in HealthStatus}
    )
    quota: dict[str, float] = field(default_factory=dict[str, float])


@dataclass(slots=True)
class SharedState:
    """State that processes share, of one kind.

    Attributes:
        connected: Whether the server of each can be reached.
        events: How often each kind of event has happened.
    """

    connected: bool = True
    events: Counter[str] = field(default_factory=Counter[str])
