"""Connections to the server: clients that give up soon, and scripts."""

from __future__ import annotations

import hashlib
from copy import copy
from functools import partial
from importlib.resources import files
from inspect import signature
from random import sample
from typing import Any, Protocol, cast

import redis
import redis.asyncio
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.asyncio.connection import BlockingConnectionPool as AsyncBlockingPool
from redis.asyncio.connection import ConnectionPool as AsyncPool
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import BlockingConnectionPool, ConnectionPool
from redis.exceptions import NoScriptError
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

from loadwise.integrations.redis._bounded import (
    Argument,
    AsyncBoundedClient,
    BoundedClient,
    Untyped,
    bounded,
)

__all__ = [
    "ATTEMPTS_AT_END",
    "HEALTH_PUT",
    "HEALTH_READ",
    "LEADER",
    "ONE_NODE",
    "QUOTA",
    "STORE_PUT",
    "TROUBLE",
    "AsyncClient",
    "AsyncCommands",
    "Client",
    "Commands",
    "Script",
    "abandon",
    "as_async_client",
    "as_client",
    "check_writable",
    "run",
    "run_async",
    "with_short_timeouts",
    "with_short_timeouts_async",
]

# Whatever a client raises (they have been seen to raise all sorts while a connection is being cut
# off), it must not reach a pick.
TROUBLE = Exception

Client = redis.Redis | RedisCluster
AsyncClient = redis.asyncio.Redis | redis.asyncio.RedisCluster

_FOR_THREADS = "a redis.Redis, or a redis.RedisCluster for a cluster"
_FOR_ASYNCIO = "a redis.asyncio.Redis, or a redis.asyncio.RedisCluster for a cluster"
ONE_NODE = "which is one node of a cluster; give a client of all: RedisCluster(host=..., port=...)"
_ASKING = 0.25

# Bound to the pool that they were made for.
_NOT_TO_COPY = (
    "event_dispatcher",
    "himport_registry",
    "maint_notifications_config",
    "maint_notifications_pool_handler",
    "oss_cluster_maint_notifications_handler",
    "retry_on_error",
    "retry_on_timeout",
)
ATTEMPTS_AT_END = 2
"""Most attempts to send the rest: it may be only one connection that broke."""


class Script:
    """A script's text, and the digest that the server knows it by."""

    __slots__ = ("digest", "text")

    def __init__(self, name: str) -> None:
        self.text = files("loadwise.integrations.redis").joinpath(name).read_bytes()
        self.digest = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()


QUOTA = Script("quota.lua")
CHECK = Script("check.lua")
HEALTH_PUT = Script("health_put.lua")
HEALTH_READ = Script("health_read.lua")
LEADER = Script("leader.lua")
STORE_PUT = Script("store_put.lua")


class Commands(Protocol):
    """Client, as far as it is used."""

    def execute_command(self, *args: Argument, **options: bool) -> object:
        """Send a command and return the answer."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class AsyncCommands(Protocol):
    """Client for asyncio, as far as it is used."""

    async def execute_command(self, *args: Argument, **options: bool) -> object:
        """Send a command and return the answer."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


def as_client(client: object) -> Client:
    """Return ``client`` if it is a redis-py client for threads, of one server or of a cluster.

    Raises:
        TypeError: It is something else.
        ValueError: It is a client of one server, and that is one node of a cluster.

    Cost: one connection, for as long as it takes the server to say what it is, at most 0.25 s.
    """
    if isinstance(client, redis.asyncio.Redis | redis.asyncio.RedisCluster):
        raise TypeError(f"client is {client!r}, for asyncio; it must be {_FOR_THREADS}")
    if not isinstance(client, redis.Redis | RedisCluster):
        raise TypeError(f"client is {client!r}; it must be {_FOR_THREADS}")
    if isinstance(client, redis.Redis) and _is_node_of_cluster(client):
        raise ValueError(f"client is {client!r}, {ONE_NODE}")
    return client


def as_async_client(client: object) -> AsyncClient:
    """Return ``client`` if it is a redis-py client for asyncio, of one server or of a cluster.

    Raises:
        TypeError: It is something else.
    """
    if isinstance(client, redis.Redis | RedisCluster):
        raise TypeError(f"client is {client!r}, for threads; it must be {_FOR_ASYNCIO}")
    if not isinstance(client, redis.asyncio.Redis | redis.asyncio.RedisCluster):
        raise TypeError(f"client is {client!r}; it must be {_FOR_ASYNCIO}")
    return client


def _is_node_of_cluster(client: redis.Redis) -> bool:
    """Ask the server; one that cannot be asked now is found out by its redirections later."""
    asking = with_short_timeouts(client, _ASKING)
    try:
        greeting = asking.execute_command("HELLO")  # which no user is refused
    except TROUBLE:
        return False
    finally:
        asking.close()
    words: object = greeting
    if isinstance(greeting, dict):
        words = list(cast("dict[object, object]", greeting).values())
    return isinstance(words, list) and b"cluster" in words


def with_short_timeouts(client: Client, timeout: float) -> BoundedClient:
    """Return a client of the same servers with connections of its own, whose calls end in time.

    One with a pool of a kind that is not redis-py's is used as it is: its own timeouts hold.
    """
    if isinstance(client, RedisCluster):
        return BoundedClient(partial(_cluster, client, timeout), timeout, is_cluster=True)
    pool = cast("Any", client).connection_pool
    if type(pool) is SentinelConnectionPool:
        return BoundedClient(partial(_client_of_sentinel, pool, timeout), timeout)
    if type(pool) not in (ConnectionPool, BlockingConnectionPool):
        return BoundedClient(lambda: client, timeout, is_own=False)
    return BoundedClient(partial(_client_of_server, pool, timeout), timeout)


def with_short_timeouts_async(client: AsyncClient, timeout: float) -> AsyncBoundedClient:
    """Return an asyncio client like that of `with_short_timeouts`."""
    if isinstance(client, redis.asyncio.RedisCluster):
        return AsyncBoundedClient(_async_cluster(client, timeout), timeout, is_cluster=True)
    pool = cast("Any", client).connection_pool
    if type(pool) not in (AsyncPool, AsyncBlockingPool):
        return AsyncBoundedClient(client, timeout, is_own=False)
    settings = _settings(pool.connection_kwargs, timeout, AsyncRetry(NoBackoff(), 0))
    own = redis.asyncio.Redis.from_pool(AsyncPool(pool.connection_class, **settings))
    return AsyncBoundedClient(own, timeout)


def abandon(client: BoundedClient) -> None:
    """Let go of a client that the parent of a fork goes on with."""
    client.abandon()


def _settings(given: dict[str, Any], timeout: float, retry: object) -> dict[str, Any]:
    kept = {name: value for name, value in given.items() if name not in _NOT_TO_COPY}
    return kept | {
        "retry": retry,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "decode_responses": False,
        # As many as there are threads: a pick does not wait for a connection.
        "max_connections": 2**16,
        # Nothing of the third is needed, and it tells late that the server has hung up.
        "protocol": 2,
    }


def _client_of_server(pool: Untyped, timeout: float) -> redis.Redis:
    settings = _settings(pool.connection_kwargs, timeout, Retry(NoBackoff(), 0))
    own = ConnectionPool(bounded(pool.connection_class), **settings)
    return redis.Redis.from_pool(own)


def _client_of_sentinel(pool: Untyped, timeout: float) -> redis.Redis:
    manager = copy(pool.sentinel_manager)
    # Each sentinel has its share of the time: one that hangs does not hide the others.
    share = timeout / (1 + len(manager.sentinels))
    manager.sentinels = [
        _client_of_server(sentinel.connection_pool, share) for sentinel in manager.sentinels
    ]
    settings = _settings(pool.connection_kwargs, timeout, Retry(NoBackoff(), 0))
    del settings["connection_pool"]
    make: Untyped = SentinelConnectionPool
    own = make(
        pool.service_name,
        manager,
        connection_class=bounded(pool.connection_class),
        is_master=pool.is_master,
        check_connection=pool.check_connection,
        **settings,
    )
    return redis.Redis.from_pool(own)


def _cluster(given: Untyped, timeout: float) -> RedisCluster:
    known = given.nodes_manager.nodes_cache.values()
    pool = next(node.redis_connection for node in known if node.redis_connection).connection_pool
    settings = _settings(pool.connection_kwargs, timeout, None)
    for name in ("retry", "host", "port", "db", "cache", "redis_connect_func"):
        settings.pop(name, None)
    make: Untyped = ClusterNode
    startup = [make(host, port) for host, port in _addresses(given)]
    # As from a URL, because only then a cluster's connections can be of a class of one's own.
    return RedisCluster(
        url=_url_of(startup.pop()),
        startup_nodes=startup,
        connection_class=bounded(pool.connection_class),
        connection_pool_class=ConnectionPool,
        retry=Retry(NoBackoff(), 1),
        require_full_coverage=False,
        address_remap=given.nodes_manager.address_remap,
        **settings,
    )


def _addresses(given: Untyped) -> list[tuple[str, int]]:
    """Return where the nodes of a cluster are, in any order: one that hangs must not come first."""
    manager = given.nodes_manager
    # Those that the program named may be elsewhere by now, and only newer clients remember them.
    named = getattr(given, "startup_nodes", ())
    nodes = [*named, *manager.startup_nodes.values(), *manager.nodes_cache.values()]
    addresses = sorted({(node.host, node.port) for node in nodes})
    return sample(addresses, len(addresses))


def _url_of(node: Untyped) -> str:
    return f"redis://{f'[{node.host}]' if ':' in node.host else node.host}:{node.port}"


def _async_cluster(given: Untyped, timeout: float) -> redis.asyncio.RedisCluster:
    settings = _settings(given.connection_kwargs, timeout, None)
    takes = signature(redis.asyncio.RedisCluster).parameters.keys() - {"retry", "host", "port"}
    settings["ssl"] = issubclass(settings["connection_class"], redis.asyncio.SSLConnection)
    return redis.asyncio.RedisCluster(
        startup_nodes=[AsyncClusterNode(host, port) for host, port in _addresses(given)],
        retry=AsyncRetry(NoBackoff(), 1),
        require_full_coverage=False,
        address_remap=given.nodes_manager.address_remap,
        **{name: value for name, value in settings.items() if name in takes},
    )


def run(client: Commands, script: Script, key: bytes, *args: Argument) -> object:
    """Run a script: one round trip, or two if the server has not seen it before."""
    try:
        return client.execute_command("EVALSHA", script.digest, 1, key, *args)
    except NoScriptError:
        return client.execute_command("EVAL", script.text, 1, key, *args)


async def run_async(client: AsyncCommands, script: Script, key: bytes, *args: Argument) -> object:
    """Run a script: one round trip, or two if the server has not seen it before."""
    try:
        return await client.execute_command("EVALSHA", script.digest, 1, key, *args)
    except NoScriptError:
        return await client.execute_command("EVAL", script.text, 1, key, *args)


def check_writable(client: Commands, key: bytes) -> None:
    """See whether the server does what is needed: run a script that writes to this very key.

    Raises: whatever stands against it. The key is left as it is.
    """
    run(client, CHECK, key)
