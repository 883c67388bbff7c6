"""Quotas of a fleet file, given to nodes as they join."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from loadwise.clock import Clock
from loadwise.config.records import FleetQuota
from loadwise.nodes import Endpoint
from loadwise.quota import QuotaConfig, QuotaDimension, QuotaTracker

__all__ = ["FleetQuotas"]


class FleetQuotas:
    """Quotas that the nodes of a fleet have, and the tracker that keeps them.

    Args:
        tables: What the file says of them.
        parts: How many programs share them.
        clock: Source of monotonic seconds.

    Attributes:
        tracker: Counts what is used.

    Thread-safety: that of the tracker.
    """

    def __init__(self, tables: Iterable[FleetQuota], parts: int, clock: Clock) -> None:
        self.tracker = QuotaTracker(clock)
        self._of_all: list[QuotaDimension] = []
        self._of_some: dict[str, list[QuotaDimension]] = {}
        for table in tables:
            if not table.aware:
                continue
            dimension = QuotaDimension(
                table.name,
                limit=table.limit / parts,
                window=table.window,
                default_cost=1 if table.counts == "requests" else 0,
            )
            for identity in table.nodes:
                self._of_some.setdefault(identity, []).append(dimension)
            if not table.nodes:
                self._of_all.append(dimension)

    def give(self, nodes: Iterable[Endpoint]) -> None:
        """Register the quotas of nodes that are about to join. O(nodes)."""
        for node in nodes:
            dimensions = self._of(node)
            if dimensions:
                self.tracker.register(node.id, QuotaConfig(dimensions))

    def _of(self, node: Endpoint) -> Sequence[QuotaDimension]:
        return [*self._of_all, *self._of_some.get(str(node.id), ())]
