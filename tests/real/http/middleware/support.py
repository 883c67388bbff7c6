"""Server processes, and what is seen of requests to them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import ClientSession

from loadwise import Balancer, NoopCollector, Outcome

UPSTREAM = Path(__file__).with_name("upstream.py")


class Server:
    """A server process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, str(UPSTREAM), name], stdout=subprocess.PIPE, text=True
        )

    def wait(self) -> Server:
        """Wait until it listens."""
        assert self.process.stdout is not None
        self.address = f"127.0.0.1:{int(self.process.stdout.readline())}"
        return self

    def acted_on(self, identity: str) -> int:
        """How often it has acted on a request."""
        return self.all_acted_on().count(identity)

    def until_acted_on(self, identity: str) -> None:
        """Wait until it has acted on a request."""
        while not self.acted_on(identity):
            pass

    def all_acted_on(self) -> list[str]:
        """The ids of all requests it has acted on."""
        with urllib.request.urlopen(f"http://{self.address}/_tell", timeout=10) as answer:
            ids: list[str] = json.load(answer)
        return ids

    def kill(self) -> None:
        """Kill it and wait for its end."""
        self.process.kill()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Recorder(NoopCollector):
    """Remembers outcomes, latencies, retries and what was refused."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.latencies: list[float] = []
        self.retries: list[object] = []
        self.refused: list[str] = []

    def on_outcome(self, node_id: object, outcome: Outcome, latency: float) -> None:
        self.outcomes.append(outcome)
        self.latencies.append(latency)

    def on_retry(self, node_id: object, reason: str) -> None:
        self.retries.append((node_id, reason))

    def on_retry_refused(self, reason: str) -> None:
        self.refused.append(reason)


def in_flight(balancer: Balancer[Any]) -> int:
    """Requests in flight over all nodes."""
    return sum(status.in_flight for status in balancer.status())


async def turns_until(condition: Callable[[], bool]) -> None:
    """Let the event loop turn until something is so."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what it waits for sets no event
            await asyncio.sleep(0)


async def told(session: ClientSession, url: str = "http://service/", **options: Any) -> Any:
    """Send a GET and return what the server says of it."""
    async with session.get(url, **options) as response:
        return await response.json()
