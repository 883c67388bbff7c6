"""Clients of redis-py, as loadwise needs them."""

from __future__ import annotations

import os
from typing import Any, Protocol, cast

import redis
import redis.asyncio
from redis.asyncio.connection import BlockingConnectionPool as AsyncBlockingPool
from redis.asyncio.connection import ConnectionPool as AsyncPool
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import BlockingConnectionPool, ConnectionPool
from redis.exceptions import NoScriptError
from redis.retry import Retry

from loadwise.integrations.redis._scripts import STORE_PUT, Script

__all__ = [
    "TROUBLE",
    "AsyncCommands",
    "Commands",
    "abandon",
    "as_async_client",
    "as_client",
    "hurried",
    "hurried_async",
    "knock",
    "knock_async",
    "run",
    "run_async",
]

# Whatever a client raises (they have been seen to raise all sorts while a connection is being cut
# off), it must not reach a pick.
TROUBLE = Exception

Argument = str | bytes | int

_KNOCK_EXPIRES = 1000

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


class Commands(Protocol):
    """What is used of a client."""

    def execute_command(self, *args: Argument, **options: bool) -> object:
        """Send a command and return the answer."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class AsyncCommands(Protocol):
    """What is used of an asyncio client."""

    async def execute_command(self, *args: Argument, **options: bool) -> object:
        """Send a command and return the answer."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


def as_client(client: object) -> redis.Redis:
    """Return ``client`` if it is a redis-py client for threads.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(client, redis.Redis):
        raise TypeError(f"client is {client!r}; it must be a redis.Redis")
    return client


def as_async_client(client: object) -> redis.asyncio.Redis:
    """Return ``client`` if it is a redis-py client for asyncio.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(client, redis.asyncio.Redis):
        raise TypeError(f"client is {client!r}; it must be a redis.asyncio.Redis")
    return client


def hurried(client: redis.Redis, timeout: float) -> redis.Redis:
    """Return a client of the same server with connections of its own, that gives up soon.

    One with a pool of another kind (Sentinel, say) is returned as it is.
    """
    pool = cast("Any", client).connection_pool
    if type(pool) not in (ConnectionPool, BlockingConnectionPool):
        return client
    settings = _settings(pool.connection_kwargs, timeout, Retry(NoBackoff(), 0))
    return redis.Redis.from_pool(ConnectionPool(pool.connection_class, **settings))


def hurried_async(client: redis.asyncio.Redis, timeout: float) -> redis.asyncio.Redis:
    """Return an asyncio client like that of `hurried`."""
    pool = cast("Any", client).connection_pool
    if type(pool) not in (AsyncPool, AsyncBlockingPool):
        return client
    settings = _settings(pool.connection_kwargs, timeout, AsyncRetry(NoBackoff(), 0))
    return redis.asyncio.Redis.from_pool(AsyncPool(pool.connection_class, **settings))


def abandon(client: redis.Redis) -> None:
    """Let go of a client that the parent of a fork goes on with.

    Closing it would take a lock that another thread may have held at that moment, and would now
    hold for ever.
    """
    client.auto_close_connection_pool = False


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


def knock(client: Commands, prefix: str) -> None:
    """See whether the server does what is needed: run scripts and write, not just answer."""
    run(client, STORE_PUT, _unused_key(prefix), "v", "1", _KNOCK_EXPIRES)


async def knock_async(client: AsyncCommands, prefix: str) -> None:
    """See whether the server does what is needed."""
    await run_async(client, STORE_PUT, _unused_key(prefix), "v", "1", _KNOCK_EXPIRES)


def _unused_key(prefix: str) -> bytes:
    return f"{prefix}:knock:{os.urandom(8).hex()}".encode()
