"""Four servers that a session of requests asks: killed, frozen, reset, and restored."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Event, Lock
from typing import Any

import pytest
import requests
from tests.real.databases.servers import until

from loadwise import Balancer, ConsecutiveFailurePolicy, HealthStatus, HealthTracker, RetryBudget
from loadwise.integrations.requests import LoadwiseAdapter

pytestmark = pytest.mark.slow

CALLERS = 8
URL = "http://service"


class Callers:
    """Threads that share a session and send GETs and POSTs by turns, until told to end."""

    def __init__(self, session: requests.Session) -> None:
        self._session = session
        self._numbers = count()
        self._lock = Lock()
        self.over = Event()
        self.answered: Counter[str] = Counter()
        self.posted: set[str] = set()
        self.lost_posts = 0
        self.errors: list[str] = []

    def run(self) -> None:
        """Send requests."""
        while not self.over.is_set():
            number = next(self._numbers)
            self._send("POST" if number % 3 == 0 else "GET", f"{number}")

    def _send(self, method: str, name: str) -> None:
        wrong: str | None = None
        try:
            response = self._session.request(
                method, f"{URL}/{name}", headers={"X-Request-Id": name}, timeout=(1.0, 1.0)
            )
            if response.status_code != 200 or response.json()["path"] != f"/{name}":
                wrong = f"{response.status_code} {response.text}"
        except requests.RequestException as error:
            wrong = repr(error)
        with self._lock:
            if wrong is None:
                self.answered[method] += 1
                if method == "POST":
                    self.posted.add(name)
            elif method == "POST":
                self.lost_posts += 1
            else:
                self.errors.append(wrong)

    def until_answered(self, more: int) -> None:
        """Wait until so many more GETs have been answered, or one has not."""
        aim = self.answered["GET"] + more
        until(lambda: self.answered["GET"] >= aim or self.errors)


def test_a_bad_day(upstreams: Callable[[int], list[Any]]) -> None:
    """No GET is lost, no POST is acted on twice, none stays in flight, and all nodes come back."""
    servers = upstreams(4)
    killed, frozen, resetting, _ = servers
    health = HealthTracker(ConsecutiveFailurePolicy(probe_interval=0.2))
    balancer = Balancer([server.address for server in servers], health=health)
    adapter = LoadwiseAdapter(
        balancer, max_attempts=4, budget=RetryBudget(ratio=1.0, floor=1_000.0)
    )

    def are(status: HealthStatus, nodes: list[Any]) -> bool:
        return all(health.status(server.address) is status for server in nodes)

    with requests.Session() as session, ThreadPoolExecutor(CALLERS) as pool:
        session.mount(f"{URL}/", adapter)
        callers = Callers(session)
        running = [pool.submit(callers.run) for _ in range(CALLERS)]
        try:
            callers.until_answered(100)
            killed.kill()
            frozen.signal(signal.SIGSTOP)
            resetting.behave("reset")
            until(lambda: are(HealthStatus.UNHEALTHY, servers[:3]) or callers.errors)
            callers.until_answered(100)
            killed.start()
            frozen.signal(signal.SIGCONT)
            resetting.behave("")
            until(lambda: are(HealthStatus.HEALTHY, servers) or callers.errors)
            before = [len(server.acted_on()) for server in servers]
            until(
                lambda: (
                    callers.errors
                    or all(
                        len(server.acted_on()) >= earlier + 10
                        for server, earlier in zip(servers, before, strict=True)
                    )
                )
            )
        finally:
            callers.over.set()
            frozen.signal(signal.SIGCONT)
        for each in running:
            each.result()
    assert callers.errors == []
    assert sum(status.in_flight for status in balancer.status()) == 0
    acted_on = Counter(name for server in servers for name in server.acted_on())
    posts = {name: times for name, times in acted_on.items() if int(name) % 3 == 0}
    assert set(posts.values()) == {1}
    assert callers.posted <= posts.keys()
    assert len(callers.posted) > 30
    # Those alone are lost that may have been sent: what was under way when a node was found out.
    assert callers.lost_posts <= 3 * 3 * CALLERS
