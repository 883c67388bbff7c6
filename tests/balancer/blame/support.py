"""Requests that fail on some nodes, and what is seen of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    HealthStatus,
    Lease,
    NoopCollector,
    Outcome,
    SelectionContext,
)

EMPTY = SelectionContext()

Request = Callable[[Lease[str]], object]

Send = Callable[..., None]

FRAGILE = ConsecutiveFailurePolicy(failure_threshold=1, recovery_successes=2, probe_interval=10.0)


class InOrder:
    """A strategy that takes the first node there is."""

    def select(self, candidates: Sequence[str], context: SelectionContext = EMPTY) -> int | None:
        """Return the first index, if any."""
        return 0 if len(candidates) else None


class PoisonError(ConnectionError):
    """What a server does that crashes on a request."""


class Events(NoopCollector):
    """Remembers outcomes and changes of health."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[Hashable, Outcome]] = []
        self.changes: list[tuple[Hashable, str]] = []

    def on_outcome(self, node_id: Hashable, outcome: Outcome, latency: float) -> None:
        self.outcomes.append((node_id, outcome))

    def on_health_change(self, node_id: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        self.changes.append((node_id, new.name or ""))


def send_sync(balancer: Balancer[str], request: Request, n: int = 3, **keywords: Any) -> None:
    """Send a request by a loop of attempts in ``with`` blocks."""
    for attempt in balancer.attempts(n, **keywords):
        with attempt as lease:
            request(lease)


def send_async(balancer: Balancer[str], request: Request, n: int = 3, **keywords: Any) -> None:
    """Send a request by a loop of attempts in ``async with`` blocks."""

    async def main() -> None:
        for attempt in balancer.attempts(n, **keywords):
            async with attempt as lease:
                request(lease)

    asyncio.run(main())


def failing_on(*bad: str) -> Request:
    """Return a request that fails on some nodes."""

    def request(lease: Lease[str]) -> None:
        if lease.node in bad:
            raise PoisonError(lease.node)

    return request


def failures(balancer: Balancer[str]) -> dict[str, int]:
    """Return the failures in a row of each node, as its health knows them."""
    assert balancer.health is not None
    return {node: balancer.health.health(node).consecutive_failures for node in balancer.nodes}
