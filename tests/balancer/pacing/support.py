"""Attempts that wait by a clock which goes when told, and requests that fail."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any

from loadwise import (
    Attempts,
    Backoff,
    Balancer,
    Lease,
    SelectionContext,
)
from loadwise.testing import ManualClock

EMPTY = SelectionContext()

STEADY = Backoff(base=1.0, cap=4.0, jitter=False)

Request = Callable[[Lease[str]], object]

Send = Callable[[Attempts[str], Request], None]


class InOrder:
    """A strategy that takes the first node that may be chosen."""

    def select(self, candidates: Sequence[str], context: SelectionContext = EMPTY) -> int | None:
        """Return the first index, if any."""
        return next((i for i in range(len(candidates)) if i not in context.exclude), None)


class Sleeper:
    """Waits by a clock that goes when told, and remembers how long."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Wait."""
        self.slept.append(seconds)
        self.clock.advance(seconds)

    async def sleep_async(self, seconds: float) -> None:
        """Wait."""
        self.sleep(seconds)

    def balancer(self, *nodes: str, **keywords: Any) -> Balancer[str]:
        """Return a balancer that goes by this clock."""
        return Balancer(nodes, InOrder(), clock=self.clock, health=False, **keywords)

    def attempts(self, balancer: Balancer[str], n: int, **keywords: Any) -> Attempts[str]:
        """Return attempts that wait by this clock."""
        attempts = balancer.attempts(n, **keywords)
        assert attempts.pacing is not None
        attempts.pacing.sleep = self.sleep
        attempts.pacing.sleep_async = self.sleep_async
        return attempts


def send_sync(attempts: Attempts[str], request: Request) -> None:
    """Send a request by ``with`` blocks."""
    for attempt in attempts:
        with attempt as lease:
            request(lease)


def send_async(attempts: Attempts[str], request: Request) -> None:
    """Send a request by ``async with`` blocks."""

    async def main() -> None:
        for attempt in attempts:
            async with attempt as lease:
                request(lease)

    asyncio.run(main())


class Tried:
    """A request that fails, by an exception or by a word, so many times; it notes where."""

    def __init__(self, failures: float = math.inf, *, by_word: bool = False) -> None:
        self.nodes: list[str] = []
        self._failures = failures
        self._by_word = by_word

    def __call__(self, lease: Lease[str]) -> None:
        self.nodes.append(lease.node)
        if len(self.nodes) > self._failures:
            return
        if self._by_word:
            lease.failure("status 503")
        else:
            raise ConnectionError(f"number {len(self.nodes)}")


def in_flight(balancer: Balancer[Any]) -> int:
    """Return the requests in flight on all nodes."""
    return sum(status.in_flight for status in balancer.status())


def resting(sleeper: Sleeper, **seconds: float) -> Balancer[str]:
    """Return a balancer whose nodes are on cooldown for so many seconds."""
    balancer = sleeper.balancer(*seconds)
    for node, pause in seconds.items():
        balancer.acquire(exclude=set(seconds) - {node}).rate_limited(pause)
    return balancer
