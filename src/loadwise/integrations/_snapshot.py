"""One balancer's metrics at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Generic, TypeVar

from loadwise.integrations._balancer_metrics import BalancerMetrics
from loadwise.integrations._node_counters import MetricRecorder, NodeCounters
from loadwise.integrations._node_state import NodeState, SharedState

__all__ = ["Snapshot"]

R = TypeVar("R", bound=MetricRecorder)


class Snapshot(Generic[R]):
    """One balancer's metrics, each part read once, when it is first asked for.

    Args:
        metrics: The balancer's metrics.

    Not thread-safe: it belongs to who makes it. Cost: O(nodes) per part.
    """

    def __init__(self, metrics: BalancerMetrics[R]) -> None:
        self.metrics = metrics
        self.name = metrics.name

    @cached_property
    def counters(self) -> list[NodeCounters[R]]:
        """The counters of each node."""
        return self.metrics.series()

    @cached_property
    def states(self) -> Mapping[str, NodeState]:
        """The gauges of each node, by label."""
        return self.metrics.states()

    @cached_property
    def shared(self) -> Mapping[str, SharedState]:
        """The state shared with other processes, by ``"quota"`` and ``"health"``."""
        return self.metrics.shared()

    @cached_property
    def in_panic(self) -> int | None:
        """Return how many balancers are in panic; ``None`` without any."""
        return self.metrics.in_panic()
