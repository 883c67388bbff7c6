"""Calls of both kinds, and requests that fail on some nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from loadwise import (
    Balancer,
    SelectionContext,
)

EMPTY = SelectionContext()

Call = Callable[..., Any]


class InOrder:
    """A strategy that takes the first node that may be chosen."""

    def select(self, candidates: Sequence[str], context: SelectionContext = EMPTY) -> int | None:
        """Return the first index, if any."""
        return next((i for i in range(len(candidates)) if i not in context.exclude), None)


def call_sync(balancer: Balancer[str], fn: Callable[..., Any], **keywords: Any) -> Any:
    """Call a plain function."""
    return balancer.call(fn, **keywords)


def call_async(balancer: Balancer[str], fn: Callable[..., Any], **keywords: Any) -> Any:
    """Call the same function as a coroutine function."""

    async def coroutine(*arguments: Any) -> Any:
        await asyncio.sleep(0)
        return fn(*arguments)

    async def main() -> Any:
        return await balancer.call_async(coroutine, **keywords)

    return asyncio.run(main())


async def call_it(balancer: Balancer[str], fn: Callable[..., Any], **keywords: Any) -> Any:
    """Call a plain function that is taken for one that returns what can be awaited."""
    return await balancer.call_async(fn, **keywords)


def in_flight(balancer: Balancer[Any]) -> int:
    """Return the requests in flight on all nodes."""
    return sum(status.in_flight for status in balancer.status())


def failures(balancer: Balancer[str]) -> dict[str, int]:
    """Return the failures in a row of each node, as its health knows them."""
    assert balancer.health is not None
    return {node: balancer.health.health(node).consecutive_failures for node in balancer.nodes}


class Asked:
    """A request that fails on some nodes, and notes where it went."""

    def __init__(self, bad: str = "", error: type[BaseException] = ConnectionError) -> None:
        self.nodes: list[str] = []
        self._bad = bad
        self._error = error

    def __call__(self, node: str) -> str:
        self.nodes.append(node)
        if node in self._bad:
            raise self._error(f"from {node}")
        return f"answer from {node}"


# The deadline of `call_async`. The timers are real, and what is waited for never comes.


async def never(node: str) -> None:
    """Wait for an answer that does not come."""
    await asyncio.Event().wait()
