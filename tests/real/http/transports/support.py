"""Servers to start, and what is seen of requests to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loadwise import Balancer, NoopCollector, Outcome

Start = Callable[[int], list[Any]]


class Recorder(NoopCollector):
    """Remembers retries and what was refused."""

    def __init__(self) -> None:
        self.retried: list[object] = []
        self.refused: list[str] = []
        self.outcomes: list[tuple[object, Outcome]] = []

    def on_retry(self, node_id: object, reason: str) -> None:
        self.retried.append((node_id, reason))

    def on_retry_refused(self, reason: str) -> None:
        self.refused.append(reason)

    def on_outcome(self, node_id: object, outcome: Outcome, latency: float) -> None:
        self.outcomes.append((node_id, outcome))


def in_flight(balancer: Balancer[Any]) -> int:
    """Requests in flight over all nodes."""
    return sum(status.in_flight for status in balancer.status())
