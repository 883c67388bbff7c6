"""Threads that wait for nodes, watched and not for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from threading import Thread
from typing import Any

from loadwise import (
    Balancer,
    Lease,
    NoopCollector,
)

LONG = 20.0
"""Seconds after which a test gives up."""


class Waits(NoopCollector):
    """Remembers what it is told of waits."""

    def __init__(self) -> None:
        self.told: list[tuple[float, bool]] = []
        self.reasons: list[str] = []

    def on_wait(self, seconds: float, got: bool) -> None:  # noqa: FBT001 - as the collector's
        self.told.append((seconds, got))

    def on_unavailable(self, reason: str) -> None:
        self.reasons.append(reason)


class Waiting:
    """A thread that waits for a node."""

    def __init__(self, balancer: Balancer[Any], **keywords: Any) -> None:
        self.lease: Lease[Any] | None = None
        self.error: BaseException | None = None
        self._thread = Thread(target=self._work, args=(balancer, keywords), daemon=True)
        before = balancer.waiting
        self._thread.start()
        until(lambda: balancer.waiting > before or not self._thread.is_alive())

    def _work(self, balancer: Balancer[Any], keywords: dict[str, Any]) -> None:
        try:
            self.lease = balancer.acquire(**{"timeout": None, **keywords})
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    @property
    def waits(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> Lease[Any]:
        self._thread.join(LONG)
        assert not self.waits
        if self.error is not None:
            raise self.error
        assert self.lease is not None
        return self.lease


def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds, not for ever."""
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.0005)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine, not for ever."""
    return asyncio.run(asyncio.wait_for(coroutine, LONG))
