"""Shared state on a master that sentinels watch."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest
from tests.integrations.redis.limits import rpm
from tests.real.redis.servers import Watched, program
from tests.real.redis.support import DEADLINE, hasten, until

from loadwise import ConsecutiveFailurePolicy, HealthStatus
from loadwise.integrations.redis import SharedHealth, SharedQuota

pytestmark = pytest.mark.slow

ABRUPT = ConsecutiveFailurePolicy(failure_threshold=1, recovery_successes=1)
UNHEALTHY = HealthStatus.UNHEALTHY


@pytest.fixture(params=["valkey", "redis"])
def watched(request: pytest.FixtureRequest) -> Iterator[Watched]:
    """A master with a replica and a sentinel, of the test's own."""
    if program(request.param) is None:
        pytest.skip("there is no redis-server here: install the package of that name")
    found = Watched(request.param)
    yield found
    found.stop()


@pytest.fixture
def hanging() -> Iterator[int]:
    """The port of a sentinel that accepts connections and answers nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as found:
        yield found.getsockname()[1]


def is_told(tracker: SharedHealth, node_id: str) -> bool:
    """Whether a tracker has a node down."""
    return tracker.status(node_id) is UNHEALTHY


@pytest.mark.parametrize("harm", ["kill", "freeze"])
def test_the_replica_takes_over(
    watched: Watched, hanging: int, prefix: str, stack: ExitStack, harm: str
) -> None:
    """Counts and news go on with the new master, though the sentinel that is asked first hangs."""
    quota, other = (
        hasten(stack.enter_context(SharedQuota(watched.client(hanging), prefix, timeout=0.5)))
        for _ in range(2)
    )
    one, two = (
        stack.enter_context(SharedHealth(watched.client(hanging), prefix, ABRUPT, timeout=0.5))
        for _ in range(2)
    )
    for each in (quota, other):
        each.register("node", rpm(1000))
        until(partial(getattr, each, "connected"))
        assert each.try_acquire("node", {"rpm": 50})
    one.report_failure("before")
    until(partial(is_told, two, "before"))
    getattr(watched.master, harm)()
    until(lambda: quota.try_acquire("node") and not quota.connected)
    one.report_failure("during")
    for shared in (quota, other, one, two):
        until(partial(getattr, shared, "connected"), 2 * DEADLINE)
    for node_id in ("before", "during"):
        until(partial(is_told, two, node_id))
    two.report_failure("after")
    until(partial(is_told, one, "after"))
    assert quota.try_acquire("node")
    assert other.try_acquire("node")
    assert watched.replica.ask("INFO", "replication")["role"] == "master"
    assert quota.remaining("node", "rpm") < 900
