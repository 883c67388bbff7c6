"""Four servers under load, of which one is killed, one frozen and one reset, and then restored."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import grpc
import pytest
from tests.ports import free_port
from tests.real.grpc.servers import Process, Server, asked, until

from loadwise import Balancer, ConsecutiveFailurePolicy, HealthStatus, HealthTracker, RetryBudget
from loadwise.integrations.grpc import Channel
from loadwise.integrations.grpc.aio import Channel as AioChannel

pytestmark = pytest.mark.slow

SAFE, ONCE = "/test.Service/Safe", "/test.Service/One"
CALLERS = 6
MOST_CALLS = 5_000


class Fleet:
    """Four servers, one of them behind a proxy that can reset connections."""

    def __init__(self, folder: Any) -> None:
        self.servers = [Server(folder / str(number)) for number in range(4)]
        self.killed, self.frozen, self.reset, _ = self.servers
        port = free_port()
        self.resetter = Process("resetter.py", port, self.reset.port)
        self.addresses = [server.address for server in self.servers]
        self.addresses[2] = f"127.0.0.1:{port}"
        for process in (*self.servers, self.resetter):
            process.wait_until_ready()

    def ail(self) -> None:
        """Kill one, freeze one and reset one."""
        self.killed.kill()
        self.frozen.signal(signal.SIGSTOP)
        self.resetter.signal(signal.SIGUSR1)

    def recover(self) -> None:
        """End all that."""
        self.frozen.signal(signal.SIGCONT)
        self.resetter.signal(signal.SIGUSR2)
        self.killed.start()

    def acted(self) -> Counter[str]:
        """Return how many times the servers have acted on each call."""
        return Counter(name for server in self.servers for name in server.acted())


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Yield the servers."""
    fleet = Fleet(tmp_path_factory.mktemp("journals"))
    try:
        yield fleet
    finally:
        for process in (*fleet.servers, fleet.resetter):
            process.kill()


class Day:
    """A day of the fleet, and what its callers have seen."""

    def __init__(self, fleet: Fleet, kind: str) -> None:
        self.fleet = fleet
        self.kind = kind
        self.numbers = count()
        self.calls = 0
        self.errors: list[BaseException] = []
        self.lost = 0
        self.over = False
        tracker = HealthTracker(ConsecutiveFailurePolicy(probe_interval=0.2))
        self.balancer = Balancer(fleet.addresses, health=tracker)
        self.options: dict[str, Any] = {
            "max_attempts": 4,
            "idempotent": {SAFE},
            "attempt_timeout": 1.0,
            "budget": RetryBudget(ratio=1.0, floor=1_000.0),
        }

    def next_name(self, method: str) -> str:
        """Return the id of the next call."""
        return f"{self.kind}{method}/{next(self.numbers)}"

    def heard(self, method: str, error: BaseException | None) -> None:
        """Take in how a call has ended."""
        self.calls += 1
        if error is not None and method == SAFE:
            self.errors.append(error)
        elif error is not None:
            self.lost += 1

    def live(self) -> None:
        """Let things happen while the calls go on."""

        def calls(more: int) -> Callable[[], bool]:
            goal = self.calls + more
            return lambda: self.calls >= goal or bool(self.errors)

        until(calls(100), "100 calls are made")
        self.fleet.ail()
        until(calls(200), "200 calls are made with one server left")
        self.fleet.recover()
        until(
            lambda: all(s.health is HealthStatus.HEALTHY for s in self.balancer.status()),
            "all nodes are well again",
        )
        until(calls(100), "100 calls are made after that")

    def judge(self) -> None:
        """Assert what must hold in the evening."""
        assert self.errors == []
        assert sum(status.in_flight for status in self.balancer.status()) == 0
        # Each server has acted on what it was sent while it was frozen, and on nothing twice.
        once = {name: times for name, times in self.fleet.acted().items() if ONCE in name}
        assert len(once) > 100
        assert set(once.values()) == {1}
        # Those alone are lost that may have been sent: what was under way when it happened.
        assert self.lost <= 3 * 3 * CALLERS


@contextmanager
def living(day: Day) -> Iterator[threading.Thread]:
    """Let things happen in a thread; raise what it raises."""
    raised: list[BaseException] = []

    def live() -> None:
        try:
            day.live()
        except BaseException as error:  # noqa: BLE001 - raised below
            raised.append(error)
        finally:
            day.over = True

    thread = threading.Thread(target=live)
    thread.start()
    yield thread
    thread.join()
    assert raised == []


def test_callers_in_threads_see_no_error(fleet: Fleet) -> None:
    """Idempotent calls all succeed, no other is acted on twice, and none stays in flight."""
    day = Day(fleet, "threads")

    def call(channel: Channel) -> None:
        methods = {name: channel.unary_unary(name) for name in (SAFE, ONCE)}
        for number in range(MOST_CALLS):
            name = ONCE if number % 3 else SAFE
            error: BaseException | None = None
            try:
                json.loads(methods[name](asked(id=day.next_name(name))))
            except grpc.RpcError as raised:
                error = raised
            day.heard(name, error)
            if day.over:
                return

    with Channel(day.balancer, **day.options) as channel:
        callers = [threading.Thread(target=call, args=(channel,)) for _ in range(CALLERS)]
        with living(day):
            for each in callers:
                each.start()
            for each in callers:
                each.join()
    day.judge()


def test_callers_in_tasks_see_no_error(fleet: Fleet) -> None:
    """The same holds in an event loop."""
    day = Day(fleet, "tasks")

    async def call(channel: AioChannel) -> None:
        methods = {name: channel.unary_unary(name) for name in (SAFE, ONCE)}
        for number in range(MOST_CALLS):
            name = ONCE if number % 3 else SAFE
            error: BaseException | None = None
            try:
                json.loads(await methods[name](asked(id=day.next_name(name))))
            except grpc.RpcError as raised:
                error = raised
            day.heard(name, error)
            if day.over:
                return

    async def main() -> None:
        async with AioChannel(day.balancer, **day.options) as channel:
            await asyncio.gather(*(call(channel) for _ in range(CALLERS)))

    with living(day):
        asyncio.run(main())
    day.judge()
