"""A fleet whose results are said, not made."""

from __future__ import annotations

from typing import Any

from loadwise import Balancer, HealthStatus, Outcome, OutlierDetection
from loadwise.testing import ManualClock


class OutlierFleet:
    """A balancer with outlier detection, its clock, and words for what happens to its nodes."""

    def __init__(self, nodes: str, *, health: Any = False, **options: Any) -> None:
        self.clock = ManualClock()
        self.detection = OutlierDetection(**options)
        self.balancer: Balancer[Any] = Balancer(
            list(nodes), health=health, outliers=self.detection, clock=self.clock
        )

    def load(self, node: str, good: int = 0, bad: int = 0) -> None:
        """Have requests to a node end, the good ones first."""
        for outcome, number in ((Outcome.SUCCESS, good), (Outcome.FAILURE, bad)):
            for _ in range(number):
                self.balancer.report(node, outcome)

    def at(self, seconds: float) -> None:
        """Let it be so late, in seconds since the balancer was made."""
        self.clock.now = seconds

    @property
    def out(self) -> str:
        """The ids of the nodes that are ejected, in order."""
        return "".join(sorted(map(str, self.detection.ejections)))

    @property
    def down(self) -> str:
        """The ids of the nodes that are UNHEALTHY, in order."""
        statuses = self.balancer.status()
        return "".join(
            sorted(str(each.id) for each in statuses if each.health is HealthStatus.UNHEALTHY)
        )

    def reason(self, node: str) -> str | None:
        """Why a node is in its state of health."""
        return next(each.health_reason for each in self.balancer.status() if each.id == node)
