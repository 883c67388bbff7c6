"""Calls end in time: a server that drips is as bad as one that hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from contextvars import copy_context
from threading import Thread
from typing import Any

import pytest
import redis
import redis.asyncio
from tests.integrations.redis.limits import rpm
from tests.real.redis.servers import Dripping
from tests.real.redis.support import DEADLINE, until

from loadwise import HealthStatus
from loadwise.integrations.redis import AsyncSharedQuota, SharedHealth, SharedQuota
from loadwise.integrations.redis._bounded import bounded, within
from loadwise.integrations.redis._connection import with_short_timeouts

pytestmark = pytest.mark.slow

# A server that drips never comes to an end: who returns at all has not waited for it.
DRIPS: dict[str, Callable[[bytes], bool]] = {
    "scripts": lambda command: b"EVAL" in command,
    "handshake": lambda command: b"CLIENT" in command or b"HELLO" in command,
    "everything": lambda _: True,
}


@pytest.fixture(params=DRIPS)
def dripping(request: pytest.FixtureRequest) -> Iterator[Dripping]:
    """A server that drips, at different times."""
    found = Dripping(DRIPS[request.param])
    yield found
    found.stop()


def in_time(work: Callable[[], Any]) -> Any:
    """Return what ``work`` returns, if it ends."""
    found: list[Any] = []
    thread = Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    thread.join(DEADLINE)
    assert found, "it did not end"
    return found[0]


def is_closed(shared: SharedQuota | SharedHealth) -> bool:
    """Close it, and tell when that is done."""
    shared.close()
    return True


def test_a_quota_goes_on_alone(dripping: Dripping, prefix: str, stack: ExitStack) -> None:
    """The circuit opens, and requests are answered by what is known here."""

    def use() -> SharedQuota:
        quota = SharedQuota(redis.Redis(port=dripping.port), prefix)
        stack.callback(quota.close)
        quota.register("node", rpm(10))
        assert sum(quota.try_acquire("node") is not None for _ in range(20)) == 10
        return quota

    quota = in_time(use)
    assert not quota.connected
    assert quota.events["outage"] == 1
    assert in_time(lambda: is_closed(quota))


def test_an_asyncio_quota_goes_on_alone(dripping: Dripping, prefix: str) -> None:
    """So it does when it is awaited."""

    async def use() -> int:
        client = redis.asyncio.Redis(port=dripping.port)
        async with client, AsyncSharedQuota(client, prefix) as quota:
            await quota.register("node", rpm(10))
            granted = [await quota.try_acquire("node") for _ in range(20)]
            assert not quota.connected
        return len([each for each in granted if each is not None])

    assert in_time(lambda: asyncio.run(use())) == 10


def test_health_goes_on_alone(dripping: Dripping, prefix: str, stack: ExitStack) -> None:
    """Reports are taken as ever, the circuit opens, and closing ends."""

    def use() -> SharedHealth:
        health = SharedHealth(redis.Redis(port=dripping.port), prefix)
        stack.callback(health.close)
        for _ in range(3):
            health.report_failure("node")
        return health

    health = in_time(use)
    assert health.status("node") is HealthStatus.UNHEALTHY
    until(lambda: not health.connected)
    assert in_time(lambda: is_closed(health))


def test_a_subscription_that_drips_is_made_again(prefix: str) -> None:
    """A message that does not end is given up, and closing does not wait for it."""
    server = Dripping(lambda command: b"SUBSCRIBE" in command)
    health = SharedHealth(redis.Redis(port=server.port), prefix)
    health.report_failure("node")
    until(lambda: server.begun >= 2)
    assert in_time(lambda: is_closed(health))
    server.stop()


def test_limits_hold_for_all_that_a_call_does() -> None:
    """Connecting has what is left of the call; of limits that are nested the earliest holds."""
    connection = bounded(redis.Connection)(socket_timeout=90.0, socket_connect_timeout=90.0)
    assert connection.socket_connect_timeout == 90.0
    with within(60.0):
        assert connection.socket_connect_timeout <= 60.0
        with within(30.0):
            assert connection.socket_connect_timeout <= 30.0
        with within(80.0):
            assert connection.socket_connect_timeout <= 60.0
        with within(0.0), pytest.raises(redis.TimeoutError):
            connection.connect()
    assert connection.socket_connect_timeout == 90.0


def test_a_limit_that_was_left_behind_limits_nothing(client: redis.Redis) -> None:
    """What a signal handler raises may strike before a limit is lifted; later calls do not mind."""
    calls = with_short_timeouts(client, DEADLINE)

    def call() -> object:
        within(0.0).__enter__()
        return calls.execute_command("PING")

    assert copy_context().run(call)
    calls.close()
