"""Clients of redis-py whose calls end in time, whatever the server does meanwhile."""

from __future__ import annotations

import asyncio
import math
import socket
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from typing import Any

from redis.exceptions import ConnectionError as Unconnected
from redis.exceptions import ResponseError

__all__ = ["AsyncBoundedClient", "BoundedClient", "Subscription", "bounded", "within"]

Argument = str | bytes | int
# What redis-py does not type, or not the same in all of its versions.
Untyped = Any


# When the call is to end that a thread is making, or a greenlet: of those a thread has many.
_ends = ContextVar("ends", default=math.inf)


class within:  # noqa: N801 - reads as a word of a `with` statement
    """Limit what this thread waits for on bounded connections, all in all.

    Args:
        seconds: From the beginning of the block. Of limits that are nested the earliest holds.

    Thread-safety: a limit is its thread's own, or its greenlet's.
    """

    __slots__ = ("_before", "_seconds")
    _before: float

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        now = time.monotonic()
        self._before = _ends.get()
        # One that has passed was left behind: what a signal handler raises may strike anywhere.
        outer = self._before if self._before > now else math.inf
        _ends.set(min(outer, now + self._seconds))

    def __exit__(self, *_: object) -> None:
        _ends.set(self._before)


def _left(timeout: float | None) -> float | None:
    """Return for how long to wait at most, of ``timeout`` seconds.

    Raises:
        TimeoutError: The call should have ended.
    """
    ends = _ends.get()
    if ends == math.inf or timeout == 0:
        return timeout
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError("the server answers too slowly")
    return left if timeout is None else min(left, timeout)


class _BoundedSocket:
    """A socket that waits for what is left of the call, whatever came in between.

    Args:
        wrapped: The socket; all that is not about waiting is its own.
    """

    def __init__(self, wrapped: socket.socket) -> None:
        self._wrapped = wrapped
        self._timeout = wrapped.gettimeout()

    def __getattr__(self, name: str) -> Untyped:
        return getattr(self._wrapped, name)

    def settimeout(self, timeout: float | None) -> None:
        """Set the timeout of each operation, in seconds."""
        self._timeout = timeout
        self._wrapped.settimeout(timeout)

    def recv(self, *args: Untyped) -> bytes:
        """Receive bytes."""
        self._wrapped.settimeout(_left(self._timeout))
        return self._wrapped.recv(*args)

    def recv_into(self, *args: Untyped) -> int:
        """Receive bytes into a buffer."""
        self._wrapped.settimeout(_left(self._timeout))
        return self._wrapped.recv_into(*args)

    def sendall(self, *args: Untyped) -> None:
        """Send bytes."""
        self._wrapped.settimeout(_left(self._timeout))
        self._wrapped.sendall(*args)


@cache
def bounded(connection_class: Untyped) -> Untyped:
    """Return a subclass of a redis-py connection class that keeps to the limits of `within`.

    Looking up a host's name is the one thing that is not limited.
    """

    class Bounded(connection_class):  # type: ignore[misc]  # any of redis-py's, which is not typed
        """A connection on which nothing waits beyond the end of its call."""

        # A property, since a name may have several addresses, which are tried in turn.
        @property
        def socket_connect_timeout(self) -> float | None:
            return _left(self._socket_connect_timeout)

        @socket_connect_timeout.setter
        def socket_connect_timeout(self, seconds: float | None) -> None:
            self._socket_connect_timeout = seconds

        def _connect(self) -> _BoundedSocket:
            connection: Untyped = self
            base: Untyped = super()
            usual = connection.socket_timeout
            connection.socket_timeout = _left(usual)  # of the TLS handshake
            try:
                found = _BoundedSocket(base._connect())  # noqa: SLF001 - what it overrides
            finally:
                connection.socket_timeout = usual
            found.settimeout(usual)
            return found

    return Bounded


class BoundedClient:
    """A client for threads whose calls end in time.

    Args:
        make: Makes the client when it is first needed; that of a cluster connects at once.
        timeout: Seconds for which a call waits at most, all in all.
        is_cluster: Whether it is a client of a cluster. One whose connections failed is replaced,
            so that the next call asks where all keys are now.
        is_own: Whether to close it in the end.

    Thread-safety: full. In the child of a fork `abandon` it and make another one.
    """

    def __init__(
        self,
        make: Callable[[], Untyped],
        timeout: float,
        *,
        is_cluster: bool = False,
        is_own: bool = True,
    ) -> None:
        self.is_cluster = is_cluster
        self._make = make
        self._timeout = timeout
        self._is_own = is_own
        self._client: Untyped = None
        self._making = threading.Lock()

    def execute_command(self, *args: Argument, **options: bool) -> object:
        """Send a command and return the answer.

        Raises:
            TimeoutError: There is none in time; redis-py has an error of that name, too.
            redis.RedisError: The server refuses, or cannot be reached.
        """
        with within(self._timeout):
            client = self._current()
            try:
                return client.execute_command(*args, **options)
            except ResponseError:
                raise
            except BaseException:
                if self.is_cluster and self._client is client:
                    self._client = None
                raise

    def subscribe(self, channel: bytes) -> Subscription:
        """Begin to listen to a channel; in a cluster, on the shard of the key of that name.

        Raises: as `execute_command` does; a refusal only shows when one listens.
        """
        with within(self._timeout):
            client = self._current()
            if not self.is_cluster:
                news = client.pubsub()
                news.subscribe(channel)
            else:
                owner = client.get_node_from_key(channel)
                news = client.get_redis_connection(owner).pubsub()
                news.ssubscribe(channel)
        return Subscription(news, self._timeout)

    def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None and self._is_own:
            client.close()

    def abandon(self) -> None:
        """Leave the connections to the parent of a fork.

        Closing them would take a lock that another thread may have held at that moment, and would
        now hold for ever.
        """
        if self._client is None or not self._is_own:
            return
        if self.is_cluster:
            _abandoned.append(self._client)
        else:
            self._client.auto_close_connection_pool = False

    def _current(self) -> Untyped:
        client = self._client
        if client is not None:
            return client
        left = _left(self._timeout)
        if left is None or not self._making.acquire(timeout=left):
            raise TimeoutError("another thread is still connecting")
        try:
            if self._client is None:
                self._client = self._make()
            return self._client
        finally:
            self._making.release()


# Clients of clusters that a fork copied; they close themselves when they are collected.
_abandoned: list[object] = []


class Subscription:
    """A subscription to one channel.

    Args:
        news: What redis-py calls a PubSub.
        timeout: Seconds in which a message that has begun must have arrived.
    """

    def __init__(self, news: Untyped, timeout: float) -> None:
        self._news = news
        self._timeout = timeout

    def next(self, seconds: float) -> object:
        """Return the next message, or ``None`` if none begins within ``seconds``.

        Raises:
            redis.ConnectionError: It is broken, or the shard has moved to another server.
            redis.RedisError: The server refuses it.
        """
        with within(seconds + self._timeout):
            message = self._news.get_message(timeout=seconds)
        if message is None:
            return None
        if str(message["type"]).endswith("unsubscribe"):
            raise Unconnected("the server ended the subscription")
        return message["data"] if str(message["type"]).endswith("message") else None

    def close(self) -> None:
        """End it."""
        self._news.close()

    def abandon(self) -> None:
        """Leave it to the parent of a fork, where it goes on; see `BoundedClient.abandon`."""
        self._news.connection = None


class AsyncBoundedClient:
    """A client for asyncio whose calls end in time.

    Args:
        client: The client.
        timeout: Seconds for which a call waits at most, all in all.
        is_cluster: Whether it is a client of a cluster. One whose connections failed is closed
            before it is used again, so that it asks where all keys are now.
        is_own: Whether to close it in the end.

    Thread-safety: for the tasks of one event loop.
    """

    def __init__(
        self,
        client: Untyped,
        timeout: float,
        *,
        is_cluster: bool = False,
        is_own: bool = True,
    ) -> None:
        self._client = client
        self._timeout = timeout
        self._is_cluster = is_cluster
        self._is_own = is_own
        self._is_stale = False

    async def execute_command(self, *args: Argument, **options: bool) -> object:
        """Send a command and return the answer.

        Raises: as `BoundedClient.execute_command` does.
        """
        async with asyncio.timeout(self._timeout):
            if self._is_stale:
                # It asks where all keys are when it is used again.
                self._is_stale = False
                await self._client.aclose()
            try:
                answer: object = await self._client.execute_command(*args, **options)
            except ResponseError:
                raise
            except BaseException:
                self._is_stale = self._is_cluster
                raise
        return answer

    async def aclose(self) -> None:
        """Close the connections."""
        if self._is_own:
            await self._client.aclose()
