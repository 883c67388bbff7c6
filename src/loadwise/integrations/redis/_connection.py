"""Connections to the server: clients that give up soon, scripts, and a circuit breaker."""

from __future__ import annotations

import hashlib
import os
from importlib.resources import files
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, cast

import redis
import redis.asyncio
from redis.asyncio.connection import BlockingConnectionPool as AsyncBlockingPool
from redis.asyncio.connection import ConnectionPool as AsyncPool
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import BlockingConnectionPool, ConnectionPool
from redis.exceptions import NoScriptError
from redis.retry import Retry

from loadwise._fork import ForkAware, reset_in_child

if TYPE_CHECKING:
    from loadwise.clock import Clock
    from loadwise.integrations.redis._events import EventLog

__all__ = [
    "HEALTH_PUT",
    "HEALTH_READ",
    "LEADER",
    "QUOTA",
    "STORE_PUT",
    "TROUBLE",
    "AsyncCommands",
    "CircuitBreaker",
    "Commands",
    "Script",
    "abandon",
    "as_async_client",
    "as_client",
    "check_writable",
    "check_writable_async",
    "run",
    "run_async",
    "with_short_timeouts",
    "with_short_timeouts_async",
]

# Whatever a client raises (they have been seen to raise all sorts while a connection is being cut
# off), it must not reach a pick.
TROUBLE = Exception

Argument = str | bytes | int

_CHECK_EXPIRES = 1000

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
_FIRST_WAIT = 0.05
_LONGEST_WAIT = 1.0


class Script:
    """A script's text, and the digest that the server knows it by."""

    __slots__ = ("digest", "text")

    def __init__(self, name: str) -> None:
        self.text = files("loadwise.integrations.redis").joinpath(name).read_bytes()
        self.digest = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()


QUOTA = Script("quota.lua")
HEALTH_PUT = Script("health_put.lua")
HEALTH_READ = Script("health_read.lua")
LEADER = Script("leader.lua")
STORE_PUT = Script("store_put.lua")


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


def with_short_timeouts(client: redis.Redis, timeout: float) -> redis.Redis:
    """Return a client of the same server with connections of its own, that gives up soon.

    One with a pool of another kind (Sentinel, say) is returned as it is.
    """
    pool = cast("Any", client).connection_pool
    if type(pool) not in (ConnectionPool, BlockingConnectionPool):
        return client
    settings = _settings(pool.connection_kwargs, timeout, Retry(NoBackoff(), 0))
    return redis.Redis.from_pool(ConnectionPool(pool.connection_class, **settings))


def with_short_timeouts_async(client: redis.asyncio.Redis, timeout: float) -> redis.asyncio.Redis:
    """Return an asyncio client like that of `with_short_timeouts`."""
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


def check_writable(client: Commands, prefix: str) -> None:
    """See whether the server does what is needed: run scripts and write, not just answer."""
    run(client, STORE_PUT, _unused_key(prefix), "v", "1", _CHECK_EXPIRES)


async def check_writable_async(client: AsyncCommands, prefix: str) -> None:
    """See whether the server does what is needed."""
    await run_async(client, STORE_PUT, _unused_key(prefix), "v", "1", _CHECK_EXPIRES)


def _unused_key(prefix: str) -> bytes:
    return f"{prefix}:check:{os.urandom(8).hex()}".encode()


class CircuitBreaker(ForkAware):
    """Whether the server can be reached, as far as is known.

    Attributes:
        up: Whether it can; read without a lock.
        wait: Seconds from one attempt to reach it to the next: twice as long each time.

    Thread-safety: of many failures at once one is told of.
    """

    def __init__(self, log: EventLog, clock: Clock, meanwhile: str) -> None:
        self.up = True
        self.wait = _FIRST_WAIT
        self._log = log
        self._clock = clock
        self._meanwhile = meanwhile
        self._closed = False
        self._since = clock()
        self._after_fork()
        reset_in_child(self)

    def _after_fork(self) -> None:
        self._lock = Lock()

    def failed(self, error: BaseException) -> bool:
        """Take note that the server did not answer; tell whether that is news."""
        with self._lock:
            now = self._clock()
            if not self.up:
                self.wait = min(2 * self.wait, _LONGEST_WAIT)
                return False
            self.up = False
            # One that keeps failing right after it came back is asked less and less often.
            steady = now - self._since > 2 * _LONGEST_WAIT
            self.wait = _FIRST_WAIT if steady else min(2 * self.wait, _LONGEST_WAIT)
            self._since = now
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        self._log.add("outage", f"the server cannot be reached ({what}); {self._meanwhile}")
        return True

    def restored(self) -> bool:
        """Take note that the server answers; tell whether that is news."""
        with self._lock:
            if self.up or self._closed:
                return False
            self.up = True
            now = self._clock()
            outage, self._since = now - self._since, now
        self._log.add("restored", f"the server can be reached again, after {outage:.1f} s")
        return True

    def close(self) -> None:
        """Ask the server nothing any more."""
        with self._lock:
            self._closed = True
            self.up = False
