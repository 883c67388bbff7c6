"""Records of nodes' health, and who of them is down or RECOVERING."""

from __future__ import annotations

import math
from collections.abc import Hashable

from loadwise.health.policy import NodeHealth
from loadwise.health.standing import SPOTLESS, Standing
from loadwise.health.status import HealthStatus

__all__ = ["Records"]


class Records:
    """All that is known of nodes' health, by id. Only nodes with something to remember are in.

    Attributes:
        by_id: The nodes' records.
        standings: Those of every node with a record, and of those that have failed too often of
            late.
        down: The records of UNHEALTHY nodes.
        recovering: The ids of RECOVERING nodes, as keys.

    Thread-safety: whoever writes holds a lock; readers of ``by_id`` and ``standings`` need none.

    Cost: O(1) for each method but `sort`.
    """

    def __init__(self) -> None:
        self.by_id: dict[Hashable, NodeHealth] = {}
        self.standings: dict[Hashable, Standing] = {}
        self.sort()

    def sort(self) -> None:
        """Work out from the records who is down or RECOVERING. O(n).

        For the child of a fork, which may have struck between the writes of one report.
        """
        records = self.by_id.items()
        self.down = {i: r for i, r in records if r.status is HealthStatus.UNHEALTHY}
        self.recovering = {i: None for i, r in records if r.status is HealthStatus.RECOVERING}
        for node_id in self.by_id:
            self.standings.setdefault(node_id, SPOTLESS)

    def of(self, node_id: Hashable) -> NodeHealth:
        """Return a node's record; that of a node that simply works, where there is none."""
        return self.by_id.get(node_id) or NodeHealth(node_id)

    def status(self, node_id: Hashable) -> HealthStatus:
        """Return a node's state."""
        record = self.by_id.get(node_id)
        return HealthStatus.HEALTHY if record is None else record.status

    def standing(self, node_id: Hashable, last_success: float | None) -> Standing:
        """Return a node's standing; where it has none, that of one that never failed.

        Args:
            node_id: The node's id.
            last_success: When it last answered well, if somebody else knows.
        """
        standing = self.standings.get(node_id)
        if standing is not None:
            return standing
        return SPOTLESS if last_success is None else Standing(1.0, last_success)

    def stand(self, node_id: Hashable, standing: Standing) -> None:
        """Replace the standing of a node without a record, or drop it if it is spotless."""
        if standing.spotless:
            self.standings.pop(node_id, None)
        else:
            self.standings[node_id] = standing

    def store(self, new: NodeHealth) -> None:
        """Replace a node's record, or drop it where there is nothing to remember."""
        if new.status is HealthStatus.HEALTHY and not new.consecutive_failures:
            self.by_id.pop(new.id, None)
            if self.standings.get(new.id, SPOTLESS).spotless:
                self.standings.pop(new.id, None)
        else:
            # In this order, because readers take no lock: who has a record has a standing.
            self.standings.setdefault(new.id, SPOTLESS)
            self.by_id[new.id] = new
        if new.status is HealthStatus.UNHEALTHY:
            self.down[new.id] = new
        else:
            self.down.pop(new.id, None)
        if new.status is HealthStatus.RECOVERING:
            self.recovering[new.id] = None
        else:
            self.recovering.pop(new.id, None)

    def remove(self, node_id: Hashable) -> bool:
        """Drop all of a node; return whether it had a record."""
        self.down.pop(node_id, None)
        self.recovering.pop(node_id, None)
        self.standings.pop(node_id, None)
        return self.by_id.pop(node_id, None) is not None

    def ailing_until(self, node_id: Hashable, window: float) -> float:
        """Return when a node ceases to be ailing if it is down, in seconds of the clock."""
        record, standing = self.by_id.get(node_id), self.standings.get(node_id)
        if record is None or standing is None or not standing.explains(record.consecutive_failures):
            return -math.inf
        return standing.counts_until(window)
