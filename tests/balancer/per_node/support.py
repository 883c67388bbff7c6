"""Things that are made for nodes, and strategies that count in different ways."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from loadwise import (
    Balancer,
    InFlight,
    Lease,
    LeastLoad,
    PeakEwma,
    RoundRobin,
    by_id,
)

SECONDS = 10.0
"""Longer than anything here takes, so that what hangs is a failure."""


class Thing:
    """An object that is made for a node, and tells what became of it."""

    def __init__(self, node: object) -> None:
        self.node = node
        self.closed = 0

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.closed += 1


WRONG: list[tuple[Any, ...]] = [(None,), (Thing, "close")]


class Maker:
    """Makes things, and remembers them."""

    def __init__(self, errors: int = 0) -> None:
        self.made: list[Thing] = []
        self.errors = errors

    def __call__(self, node: object) -> Thing:
        if self.errors:
            self.errors -= 1
            raise ConnectionError(f"{node} refused")
        self.made.append(Thing(node))
        return self.made[-1]

    async def later(self, node: object) -> Thing:
        await asyncio.sleep(0)
        return self(node)

    @property
    def closed(self) -> list[int]:
        return [thing.closed for thing in self.made]


STRATEGIES: dict[str, Callable[[], Any]] = {
    "in flight": lambda: LeastLoad(load=InFlight()),
    "ewma": lambda: LeastLoad(load=PeakEwma()),
    "two measures": lambda: TwoMeasures(),  # noqa: PLW0108 - defined below
}


class TwoMeasures(RoundRobin[Any]):
    """A strategy that has two measures fed."""

    def __init__(self) -> None:
        super().__init__()
        self._both = (InFlight(), PeakEwma())

    @property
    def measures(self) -> tuple[Any, ...]:
        return self._both


def lease_of(balancer: Balancer[Any], node: str = "a") -> Lease[Any]:
    """Return an open lease on one node."""
    return balancer.acquire(where=by_id(node))
