"""Health of a balancer without health: nodes go down by ejection only."""

from __future__ import annotations

from loadwise.health import HealthStatus, NodeHealth
from loadwise.outcome import Outcome

__all__ = ["EjectionOnly"]


class EjectionOnly:
    """A health policy by which a node goes down only if it is ejected, and one success ends that.

    Attributes:
        probe_interval: Seconds from a failed probe to the next.

    Immutable, so thread-safe.
    """

    recovery_successes = 1
    ignores_success_when_healthy = True

    def __init__(self, probe_interval: float) -> None:
        self.probe_interval = probe_interval

    def next_status(self, health: NodeHealth, outcome: Outcome) -> HealthStatus:
        """Return the state after ``outcome``."""
        if outcome is Outcome.FAILURE and health.status is HealthStatus.UNHEALTHY:
            return HealthStatus.UNHEALTHY
        return HealthStatus.HEALTHY
