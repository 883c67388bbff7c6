"""Connections to the server: clients that give up soon, scripts, and a circuit breaker."""

from __future__ import annotations

import hashlib
from copy import copy
from functools import partial
from importlib.resources import files
from inspect import signature
from random import sample
from signal import getsignal, valid_signals
from threading import Lock
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, Protocol, cast

import redis
import redis.asyncio
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.asyncio.connection import BlockingConnectionPool as AsyncBlockingPool
from redis.asyncio.connection import ConnectionPool as AsyncPool
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import BlockingConnectionPool, ConnectionPool
from redis.exceptions import MovedError, NoScriptError
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

from loadwise._fork import ForkAware, reset_in_child
from loadwise.integrations.redis._bounded import (
    Argument,
    AsyncBoundedClient,
    BoundedClient,
    Untyped,
    bounded,
)

if TYPE_CHECKING:
    from loadwise.clock import Clock
    from loadwise.integrations.redis._events import EventLog

__all__ = [
    "ATTEMPTS_AT_END",
    "HEALTH_PUT",
    "HEALTH_READ",
    "LEADER",
    "QUOTA",
    "STORE_PUT",
    "TROUBLE",
    "AsyncClient",
    "AsyncCommands",
    "CircuitBreaker",
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
_ONE_NODE = "which is one node of a cluster; give a client of all: RedisCluster(host=..., port=...)"
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
"""Attempts to tell the rest, for it may be only one connection that broke."""

_FIRST_WAIT = 0.05
_LONGEST_WAIT = 1.0


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
        raise ValueError(f"client is {client!r}, {_ONE_NODE}")
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


def _is_of_signal_handler(error: BaseException) -> bool:
    """Tell whether a signal handler raised it, as celery's does for a soft time limit."""
    handlers = {getattr(getsignal(each), "__code__", None) for each in valid_signals()}
    return any(frame.f_code in handlers for frame, _ in walk_tb(error.__traceback__))


class CircuitBreaker(ForkAware):
    """Tell whether the server can be reached, as far as is known.

    Attributes:
        up: Whether it can; read without a lock.
        wait: Seconds from one attempt to reach it to the next: twice as long each time.
        closed: Whether it is to be asked nothing any more.

    Thread-safety: of many failures at once one is told of.
    """

    def __init__(self, log: EventLog, clock: Clock, meanwhile: str) -> None:
        self.up = True
        self.wait = _FIRST_WAIT
        self._log = log
        self._clock = clock
        self._meanwhile = meanwhile
        self.closed = False
        self._since = clock()
        self._after_fork()
        reset_in_child(self)

    def _after_fork(self) -> None:
        self._lock = Lock()

    def failed(self, error: BaseException) -> bool:
        """Record that the server did not answer; tell whether that is news.

        Raises: the error, if it is a signal handler's: then it was meant for the program.
        """
        if _is_of_signal_handler(error):
            raise error
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
        # A client for asyncio of redis-py 5 says so in words only.
        if isinstance(error, MovedError) or str(error).startswith("MOVED "):
            what = f"the client is of one server, {_ONE_NODE}"
        self._log.add("outage", f"the server cannot be reached ({what}); {self._meanwhile}")
        return True

    def restored(self) -> bool:
        """Record that the server answers; tell whether that is news."""
        with self._lock:
            if self.up or self.closed:
                return False
            self.up = True
            now = self._clock()
            outage, self._since = now - self._since, now
        self._log.add("restored", f"the server can be reached again, after {outage:.1f} s")
        return True

    def close(self) -> None:
        """Ask the server nothing any more."""
        with self._lock:
            self.closed = True
            self.up = False
