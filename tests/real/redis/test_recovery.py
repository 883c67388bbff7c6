"""A server counts as back when it does what is needed, for the very keys that need it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, cast

import pytest
import redis
from tests.integrations.redis.limits import rpm
from tests.ports import free_port
from tests.real.redis.support import Valkey, until

from loadwise import ConsecutiveFailurePolicy, HealthStatus
from loadwise.integrations.redis import SharedHealth, SharedQuota
from loadwise.integrations.redis._connection import HEALTH_READ, QUOTA, check_writable

pytestmark = pytest.mark.slow

ABRUPT = ConsecutiveFailurePolicy(failure_threshold=1, recovery_successes=1)
UNHEALTHY = HealthStatus.UNHEALTHY


def be_a_replica(client: redis.Redis) -> Callable[[], object]:
    """Have a server read only; return how to end that."""
    client.replicaof("127.0.0.1", free_port())
    return lambda: client.replicaof("NO", "ONE")


def be_full(client: redis.Redis) -> Callable[[], object]:
    """Have a server without memory; return how to end that."""
    client.config_set("maxmemory", "1")
    return lambda: client.config_set("maxmemory", "0")


@pytest.mark.parametrize("harm", [be_a_replica, be_full])
def test_a_server_that_cannot_be_written_to_is_away(
    fragile: Valkey,
    prefix: str,
    stack: ExitStack,
    harm: Callable[[redis.Redis], Callable[[], object]],
) -> None:
    """It answers, and reads; one event tells that it is of no use until it can be written to."""
    client = stack.enter_context(fragile.client())
    health, other = (
        stack.enter_context(SharedHealth(fragile.client(), prefix, ABRUPT, poll=0.05))
        for _ in range(2)
    )
    quota = stack.enter_context(SharedQuota(fragile.client(), prefix))
    quota.register("node", rpm(1_000_000))
    health.report_failure("before")
    until(lambda: other.status("before") is UNHEALTHY)
    mend = harm(client)
    health.report_failure("during")
    until(lambda: quota.try_acquire("node") and not quota.connected)
    assert health._sync is not None
    breaker = health._sync.breaker
    until(lambda: breaker.wait >= 0.4)
    assert (health.events["outage"], health.events["restored"]) == (1, 0)
    assert (quota.events["outage"], quota.events["restored"]) == (1, 0)
    mend()
    until(lambda: health.connected and quota.connected)
    until(lambda: other.status("during") is UNHEALTHY)


def test_no_other_key_is_needed(fragile: Valkey, prefix: str, stack: ExitStack) -> None:
    """A user with a right to nothing but the keys that are documented comes back, too."""
    client = stack.enter_context(fragile.client())
    client.acl_setuser(
        "limited",
        enabled=True,
        nopass=True,
        commands=["+@all"],
        keys=[f"{prefix}:health", f"{prefix}:quota:*"],
        channels=[f"{prefix}:health"],
    )
    user: dict[str, Any] = {"username": "limited", "password": "any"}
    health = stack.enter_context(SharedHealth(fragile.client(**user), prefix, ABRUPT, poll=0.05))
    quota = stack.enter_context(SharedQuota(fragile.client(**user), prefix))
    quota.register("node", rpm(1_000_000))
    assert quota.try_acquire("node")
    health.report_failure("node")
    fragile.freeze()
    until(lambda: quota.try_acquire("node") and not quota.connected and not health.connected)
    fragile.thaw()
    until(lambda: quota.connected and health.connected)
    assert health.events["outage"] == quota.events["outage"] == 1


@pytest.mark.parametrize("command", ["time", "hmget", "hscan", "pttl", "hkeys", "hstrlen"])
def test_a_server_that_does_some_of_the_work_is_away(
    fragile: Valkey, prefix: str, stack: ExitStack, command: str
) -> None:
    """Where a user lacks one command of those needed, one event tells of it, and not each try."""
    client = stack.enter_context(fragile.client())
    client.acl_setuser(
        "limited", enabled=True, nopass=True, commands=["+@all"], keys=["*"], channels=["*"]
    )
    user: dict[str, Any] = {"username": "limited", "password": "any"}
    health = stack.enter_context(SharedHealth(fragile.client(**user), prefix, ABRUPT, poll=0.05))
    quota = stack.enter_context(SharedQuota(fragile.client(**user), prefix))
    client.acl_setuser("limited", enabled=True, commands=[f"-{command}"])
    quota.register("node", rpm(1_000_000))
    health.report_failure("node")
    assert health._sync is not None
    hit = [
        (shared, breaker)
        for shared, breaker, needs in (
            (quota, quota._circuit, QUOTA),
            (health, health._sync.breaker, HEALTH_READ),
        )
        if command.upper().encode() in needs.text
    ]
    assert hit
    until(lambda: quota.try_acquire("node") and all(each.wait >= 0.4 for _, each in hit))
    assert all(shared.events["outage"] == 1 and not shared.connected for shared, _ in hit)
    assert all(shared.events["restored"] == 0 for shared, _ in hit)
    client.acl_setuser("limited", enabled=True, commands=["+@all"])
    until(lambda: quota.connected and health.connected)


@pytest.mark.parametrize(
    "put",
    [
        lambda client, key: client.hset(key, mapping={"v": "1", "a": "b"}),
        lambda client, key: client.set(key, "somebody else's"),
        lambda client, key: client.rpush(key, 1, 2),
        lambda client, key: client.delete(key),
    ],
    ids=["hash", "string", "list", "absent"],
)
def test_the_check_leaves_the_key_as_it_is(
    client: redis.Redis, prefix: str, put: Callable[[redis.Redis, str], object]
) -> None:
    """Whatever it holds and for as long as it would, and nothing else is left behind."""
    put(client, prefix)
    client.pexpire(prefix, 50_000)
    before, left = client.dump(prefix), client.pttl(prefix)
    check_writable(cast("Any", client), prefix.encode())
    assert client.dump(prefix) == before
    assert left - 10_000 <= client.pttl(prefix) <= left
    assert client.keys(f"*{prefix}*") == ([prefix.encode()] if before else [])
