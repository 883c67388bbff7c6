"""Connections of urllib3, watched: whether one was kept, and what has gone over it.

urllib3 tells nobody, but connections and the class that reads their answers may be one's own. They
report to the `Exchange` that is present in their thread, and hold every wait for the network to its
deadline, which urllib3 would begin again with each piece that comes.
"""

from __future__ import annotations

import http.client
import io
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

__all__ = ["Exchange", "NodeAdapter"]

_SHORTEST_WAIT = 0.001
_SHORTEST_SCHEME = len("https://")
_MOST_POOLS = 16


class Exchange:
    """One request and its answer, as its connection sees them.

    Args:
        left: Returns the seconds until its deadline; ``None`` without one.

    Attributes:
        kept: Whether its connection was kept from earlier requests.
        connected: Whether there was a connection to the node, TLS and a proxy's tunnel included.
        sent: Whether anything of the request was sent.
        received: Whether anything of the answer has come.

    Not thread-safe: it belongs to one request.
    """

    __slots__ = ("_left", "connected", "kept", "received", "sent")

    def __init__(self, left: Callable[[], float] | None) -> None:
        self._left = left
        self.kept = False
        self.connected = False
        self.sent = False
        self.received = False

    def cap(self, timeout: float | None) -> float | None:
        """Return a timeout, or what is left to the deadline if that is less."""
        if self._left is None:
            return timeout
        left = max(self._left(), _SHORTEST_WAIT)  # sockets refuse less than nothing
        return left if timeout is None else min(timeout, left)

    def hold_to(self, left: Callable[[], float] | None) -> None:
        """Hold what comes now to another deadline; to none with ``None``."""
        self._left = left


_PRESENT: ContextVar[Exchange | None] = ContextVar("loadwise_exchange", default=None)


class WatchedConnection(HTTPConnection):
    """A connection that reports what happens to it."""

    def connect(self) -> None:
        """Connect, through a proxy's tunnel and by TLS where there are any."""
        super().connect()
        exchange = _PRESENT.get()
        if exchange is not None:
            exchange.connected = True
            exchange.received = False  # a proxy may have answered

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request."""
        exchange = _PRESENT.get()
        if exchange is not None and self.sock is not None and not exchange.connected:
            exchange.connected = exchange.kept = True
        super().request(*args, **kwargs)

    def send(self, data: Any) -> None:
        """Send a part of a request."""
        super().send(data)
        exchange = _PRESENT.get()
        if exchange is not None:
            exchange.sent = exchange.connected  # what opens a tunnel is none of it


class WatchedAnswer(http.client.HTTPResponse):
    """An answer that is read under the eyes of its exchange."""

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        exchange = _PRESENT.get()
        if exchange is not None:
            buffered: Any = self.fp
            file: Any = buffered.raw
            file.__class__ = _watched_file(file.__class__)
            file.watch(sock, exchange)


class WatchedFile(io.RawIOBase):
    """Bytes of a socket, as a file whose waits are held to a deadline.

    It is made by giving the socket's own file a class that extends that file's: another file around
    it would cost each answer more.
    """

    _socket: Any
    _exchange: Exchange
    _given: float | None
    _timeout: float | None

    def watch(self, sock: Any, exchange: Exchange) -> None:
        """Begin to report to an exchange."""
        self._socket = sock
        self._exchange = exchange
        self._timeout = self._given = sock.gettimeout()

    def readinto(self, buffer: Any) -> int | None:
        """Read what comes."""
        timeout = self._exchange.cap(self._given)
        if timeout != self._timeout:
            self._timeout = timeout
            self._socket.settimeout(timeout)
        reading: Any = super()
        count: int | None = reading.readinto(buffer)
        if count:
            self._exchange.received = True
        return count


@lru_cache(maxsize=64)
def _watched_file(kind: type[Any]) -> type[Any]:
    """Return a kind of file that is watched."""
    return type(kind.__name__, (WatchedFile, kind), {})


@lru_cache(maxsize=64)
def _watched(pool: type[Any]) -> type[Any]:
    """Return a kind of pool whose connections are watched."""
    if issubclass(pool.ConnectionCls, WatchedConnection):
        return pool
    kept = {"response_class": WatchedAnswer}
    connection = type("Watched", (WatchedConnection, pool.ConnectionCls), kept)
    return type(pool.__name__, (pool,), {"ConnectionCls": connection})


def _watch(manager: Any) -> Any:
    """Have a manager of pools make watched ones, whatever their kind is."""
    kinds = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {scheme: _watched(kind) for scheme, kind in kinds.items()}
    return manager


class NodeAdapter(HTTPAdapter):
    """Sends requests to one node, by connections of its own. Thread-safe.

    requests finds the pool of connections anew for each request, by some thirty settings of which
    a node's requests change none. Here it is remembered, which pays for the choice of the node.
    """

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make what makes the pools."""
        super().init_poolmanager(*args, **kwargs)
        _watch(self.poolmanager)
        self._pools: dict[tuple[str, object], Any] = {}

    def get_connection_with_tls_context(
        self, request: Any, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        """Return the pool of connections for a request."""
        url: str = request.url
        end = url.find("/", _SHORTEST_SCHEME)
        if proxies or cert is not None or end < 0 or not isinstance(verify, bool | str):
            return super().get_connection_with_tls_context(request, verify, proxies, cert)
        key = url[:end], verify
        pool = self._pools.get(key)
        if pool is None or pool.pool is None:  # it is closed where there were too many
            pool = super().get_connection_with_tls_context(request, verify, proxies, cert)
            if len(self._pools) >= _MOST_POOLS:
                self._pools = {}
            self._pools[key] = pool
        return pool

    def request_url(self, request: Any, proxies: Any) -> str:
        """Return the URL as it is sent."""
        return super().request_url(request, proxies) if proxies else str(request.path_url)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """Return what makes the pools of connections through a proxy."""
        return _watch(super().proxy_manager_for(proxy, **proxy_kwargs))

    def exchange(self, outbound: PreparedRequest, exchange: Exchange, **given: Any) -> Response:
        """Send a request, whose connection reports to an exchange."""
        token = _PRESENT.set(exchange)
        try:
            return self.send(outbound, **given)
        finally:
            _PRESENT.reset(token)
