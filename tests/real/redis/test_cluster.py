"""Shared state on a cluster: three masters that share the hash slots."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
import redis
import redis.asyncio
from tests.integrations.redis.limits import rpm
from tests.real.redis.servers import Cluster, program
from tests.real.redis.support import DEADLINE, PATIENCE, Valkey, hasten, until

from loadwise import ConsecutiveFailurePolicy, HealthStatus
from loadwise.integrations.redis import (
    AsyncRedisStore,
    AsyncSharedQuota,
    RedisStore,
    SharedEvent,
    SharedHealth,
    SharedQuota,
)
from loadwise.integrations.redis._circuit_breaker import CircuitBreaker
from loadwise.integrations.redis._events import EventLog

pytestmark = pytest.mark.slow

NODES = [f"node-{i}" for i in range(12)]
ABRUPT = ConsecutiveFailurePolicy(failure_threshold=1, recovery_successes=1)
LONG = 2 * DEADLINE  # which is what it takes the others to elect a new master, at most
HEALTHY, UNHEALTHY = HealthStatus.HEALTHY, HealthStatus.UNHEALTHY


def need(kind: str) -> None:
    """Skip the test where there is no such server."""
    if program(kind) is None:
        pytest.skip("there is no redis-server here: install the package of that name")


@pytest.fixture(scope="session", params=["valkey", "redis"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster that tests share, each under a prefix of its own."""
    need(request.param)
    found = Cluster(request.param)
    yield found
    found.stop()


@pytest.fixture(params=["valkey", "redis"])
def replicated(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster of the test's own, with a replica of its first master."""
    need(request.param)
    found = Cluster(request.param, replicas=1)
    yield found
    found.stop()


def share(stack: ExitStack, client: Any, prefix: str, **settings: Any) -> SharedHealth:
    """Return a tracker that is closed in the end."""
    settings = dict[str, Any](policy=ABRUPT, timeout=PATIENCE) | settings
    tracker = stack.enter_context(SharedHealth(client, prefix, **settings))
    tracker.catch_up()  # as with the first request
    return tracker


def sees(tracker: SharedHealth, node_id: str, status: HealthStatus) -> None:
    """Wait until a tracker has a node in this state."""
    until(lambda: tracker.status(node_id) is status)


def test_quotas_are_spread_over_the_masters(
    cluster: Cluster, prefix: str, stack: ExitStack
) -> None:
    """Two objects share 10 units of each of 12 nodes, exactly, whichever master has the node."""
    quotas = [
        stack.enter_context(SharedQuota(cluster.client(), prefix, timeout=PATIENCE))
        for _ in range(2)
    ]
    for quota in quotas:
        for node_id in NODES:
            quota.register(node_id, rpm(10))
    for node_id in NODES:
        granted = [quota.try_acquire(node_id) is not None for quota in quotas for _ in range(8)]
        assert sum(granted) == 10
    with cluster.client() as client:
        keys = [key.decode() for key in client.scan_iter(f"{prefix}*")]
        assert len(keys) == len(NODES)
        owners = {client.get_node_from_key(key).port for key in keys}
    assert owners == {node.port for node in cluster.nodes}


def test_leased_quotas_on_a_cluster(cluster: Cluster, prefix: str, stack: ExitStack) -> None:
    """Slices are taken from whichever master has the node, and given back there."""
    quota = stack.enter_context(SharedQuota(cluster.client(), prefix, "leased", timeout=PATIENCE))
    for node_id in NODES:
        quota.register(node_id, rpm(100))
    for node_id in NODES:
        until(partial(quota.try_acquire, node_id))
    quota.close()
    other = stack.enter_context(SharedQuota(cluster.client(), prefix, timeout=PATIENCE))
    for node_id in NODES:
        other.register(node_id, rpm(100))
        assert other.remaining(node_id, "rpm") == 99


def test_an_asyncio_quota_on_a_cluster(cluster: Cluster, prefix: str, stack: ExitStack) -> None:
    """Awaited, it shares the same counts."""
    quota = stack.enter_context(SharedQuota(cluster.client(), prefix, timeout=PATIENCE))

    async def use() -> None:
        client = cluster.async_client()
        async with client, AsyncSharedQuota(client, prefix, timeout=PATIENCE) as awaited:
            for node_id in NODES:
                await awaited.register(node_id, rpm(10))
                for _ in range(4):
                    assert await awaited.try_acquire(node_id)
            assert awaited.connected

    asyncio.run(use())
    for node_id in NODES:
        quota.register(node_id, rpm(10))
        assert sum(quota.try_acquire(node_id) is not None for _ in range(10)) == 6


def test_stores_on_a_cluster(cluster: Cluster, prefix: str) -> None:
    """Both stores keep states under one key, and read what the other has put there."""
    with cluster.client() as client:
        store = RedisStore[Any](client, prefix)
        for node_id in NODES:
            store.put(node_id, {"n": node_id})
        store.remove(NODES[0])

    async def use() -> None:
        async with cluster.async_client() as client:
            store = AsyncRedisStore[Any](client, prefix)
            assert dict(await store.list()) == {i: {"n": i} for i in NODES[1:]}
            assert await store.get(NODES[0]) is None
            await store.put(NODES[0], 5)
            await store.remove(NODES[1])

    asyncio.run(use())
    with cluster.client() as client:
        store = RedisStore[Any](client, prefix)
        assert store.get(NODES[0]) == 5
        assert store.get(NODES[1]) is None


def test_health_is_heard_of_in_a_cluster(cluster: Cluster, prefix: str, stack: ExitStack) -> None:
    """News comes by a channel of the shard that keeps it: nobody polls within a minute."""
    one, other = (share(stack, cluster.client(), prefix, poll=60.0) for _ in range(2))
    owner = cluster.owner(f"{prefix}:health")
    channel = f"{prefix}:health"
    until(lambda: owner.ask("PUBSUB SHARDNUMSUB", channel)[0][1] == 2)
    for node_id in NODES:
        one.report_failure(node_id)
        sees(other, node_id, UNHEALTHY)
        # Of its own nodes: clocks that were compared on a busy machine may differ by as much as
        # would make a success that follows at once seem older.
        other.report_failure(f"other-{node_id}")
        sees(one, f"other-{node_id}", UNHEALTHY)
    assert one.events == other.events == dict.fromkeys(one.events, 0)


def test_state_goes_on_when_its_slot_moves(cluster: Cluster, prefix: str, stack: ExitStack) -> None:
    """Another master takes over a slot: counts hold, states are kept, and news is heard of."""
    one, other = (share(stack, cluster.client(), prefix, poll=0.5) for _ in range(2))
    quota = stack.enter_context(SharedQuota(cluster.client(), prefix, timeout=PATIENCE))
    quota.register("node", rpm(10))
    assert sum(quota.try_acquire("node") is not None for _ in range(6)) == 6
    one.report_failure("before")
    sees(other, "before", UNHEALTHY)
    channel = f"{prefix}:health"
    with cluster.client() as client:
        keys = [key.decode() for key in client.scan_iter(f"{prefix}:quota*")]
    for key in (channel, *keys):
        cluster.move(key)
    assert sum(quota.try_acquire("node") is not None for _ in range(10)) == 4
    until(lambda: cluster.owner(channel).ask("PUBSUB SHARDNUMSUB", channel)[0][1] == 2)
    one.report_failure("after")
    sees(other, "after", UNHEALTHY)
    sees(share(stack, cluster.client(), prefix), "before", UNHEALTHY)
    assert quota.events["outage"] == one.events["outage"] == other.events["outage"] == 0


@pytest.mark.parametrize("harm", ["kill", "freeze"])
def test_a_master_that_is_lost_is_replaced(
    replicated: Cluster, prefix: str, stack: ExitStack, harm: str
) -> None:
    """Its replica takes over, whether it is gone or hangs: counts go on, and so do news.

    Meanwhile no pick raises, and afterwards the server has been told of what was used.
    """
    lost = replicated.nodes[0]
    quota, other = (
        hasten(stack.enter_context(SharedQuota(replicated.client(), prefix))) for _ in range(2)
    )
    names = (f"node-{i}" for i in range(1000))
    mine = next(name for name in names if replicated.owner(f"{prefix}:quota:{name}") is lost)
    for each in (quota, other):
        each.register(mine, rpm(1000))
    replicated_health = next(
        f"{prefix}-{i}" for i in range(1000) if replicated.owner(f"{prefix}-{i}:health") is lost
    )
    one, two = (share(stack, replicated.client(), replicated_health, timeout=0.5) for _ in "ab")
    one.report_failure("before")
    sees(two, "before", UNHEALTHY)
    for each in (quota, other):
        assert each.try_acquire(mine, {"rpm": 50})
    getattr(lost, harm)()
    until(lambda: quota.try_acquire(mine, {"rpm": 1}) and not quota.connected)
    one.report_failure("during")
    for each in (quota, other):
        until(partial(getattr, each, "connected"), LONG)
        assert each.try_acquire(mine)
    for tracker in (one, two):
        until(partial(getattr, tracker, "connected"), LONG)
    for node_id in ("before", "during"):
        sees(two, node_id, UNHEALTHY)
    two.report_success("during")
    sees(one, "during", HEALTHY)
    assert quota.try_acquire(mine)
    assert quota.remaining(mine, "rpm") < 900


def test_a_client_of_one_node_is_told_what_to_use(cluster: Cluster, prefix: str) -> None:
    """Whatever is made of it, at once, and not by a redirection later."""
    port = cluster.nodes[0].port
    with redis.Redis(port=port) as client:
        makers: list[Callable[[], object]] = [
            lambda: SharedQuota(client, prefix),
            lambda: SharedHealth(client, prefix),
            lambda: RedisStore[int](client, prefix),
        ]
        for make in makers:
            with pytest.raises(ValueError, match=r"one node of a cluster; .*RedisCluster\(host="):
                make()


def test_an_asyncio_client_of_one_node_is_found_out(
    cluster: Cluster, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It cannot be asked when it is given; the first redirection says what to use."""

    async def use() -> None:
        client = redis.asyncio.Redis(port=cluster.nodes[0].port)
        async with client, AsyncSharedQuota(client, prefix, timeout=PATIENCE) as quota:
            for node_id in NODES:
                await quota.register(node_id, rpm(10))
                assert await quota.try_acquire(node_id)

    with caplog.at_level(logging.WARNING, "loadwise"):
        asyncio.run(use())
    assert "one node of a cluster; give a client of all: RedisCluster(host=" in caplog.text


def test_older_clients_find_a_cluster(cluster: Cluster, prefix: str, stack: ExitStack) -> None:
    """Before redis-py 7 they did not keep the addresses that they were given."""
    client, awaited = cluster.client(), cluster.async_client()
    for each in (client, awaited):
        vars(each).pop("startup_nodes", None)
    quota = stack.enter_context(SharedQuota(client, prefix, timeout=PATIENCE))
    quota.register(NODES[0], rpm(10))

    async def use() -> None:
        async with awaited, AsyncSharedQuota(awaited, prefix, timeout=PATIENCE) as other:
            await other.register(NODES[0], rpm(10))
            assert await other.try_acquire(NODES[0], {"rpm": 10})

    asyncio.run(use())
    assert quota.try_acquire(NODES[0]) is None


def test_a_redirection_in_words_says_what_to_use() -> None:
    """A client for asyncio of redis-py 5 raises an error of no kind of its own."""
    heard: list[SharedEvent] = []
    breaker = CircuitBreaker(EventLog("quota", heard.append), time.monotonic, "meanwhile")
    breaker.failed(redis.ResponseError("MOVED 12882 127.0.0.1:29634"))
    assert "one node of a cluster; give a client of all: RedisCluster(host=" in heard[0].detail


def test_clients_of_the_other_kind_are_refused(valkey: Valkey) -> None:
    """Threads and asyncio have classes of their own, and the message names the right one."""
    client, awaited = valkey.client(), valkey.async_client()
    for make in (SharedQuota, SharedHealth, RedisStore[int]):
        with pytest.raises(TypeError, match=r"for asyncio; it must be a redis\.Redis, or a"):
            make(awaited)  # type: ignore[arg-type]  # the error under test
    for make_awaited in (AsyncSharedQuota, AsyncRedisStore[int]):
        with pytest.raises(TypeError, match=r"for threads; it must be a redis\.asyncio\.Redis, "):
            make_awaited(client)  # type: ignore[arg-type]  # the error under test
