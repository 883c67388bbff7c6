"""Base of the senders that keep connections of their own, sync or async."""

from __future__ import annotations

from collections.abc import Hashable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from loadwise.balancer import Balancer
from loadwise.integrations._http.pools import Key, Link, Pool
from loadwise.integrations._http.stale import (
    StaleConnection,
    Trail,
    frame_of,
    is_graceful,
)

__all__ = ["Pooled", "checked_limits"]

_LEAST = 100
_PER_NODE = 2
_KEPT = 20
_EXPIRY = 5.0
# A server that ends every connection at once would else be asked for ever.
MOST_CONNECTIONS = 10

# Requests, responses and connections are Any throughout: they are those of either package.


class Pooled:
    """Keeps connections for each origin apart, as many as there may be over all of them.

    Args:
        module: httpx or httpx2.
        balancer: Whose nodes they are.
        limits: The limits given; ``None`` for the default.
        http2: Whether HTTP/2 may be spoken.
    """

    connection_type: str
    wire_type: type[Any]
    backend_type: str
    _stream: type[Any]

    def __init__(self, module: Any, balancer: Balancer[Any], limits: Any, *, http2: bool) -> None:
        self._module = module
        self._core: Any = import_module(module.__name__.replace("httpx", "httpcore"))
        self._connection: type[Any] = getattr(self._core, self.connection_type)
        self._backend: Any = getattr(self._core, self.backend_type)()
        self._balancer = balancer
        self._nodes = balancer.nodes
        self._http2 = http2
        self._context: Any = None
        self._most = None if limits is None else limits.max_connections
        self._expiry = _EXPIRY if limits is None else limits.keepalive_expiry
        most = self._default_most if limits is None else self._given_most
        kept = _KEPT if limits is None else limits.max_keepalive_connections
        self._pool = Pool(self._make, most, kept, self._expiry)

    def _given_most(self) -> int | None:
        return self._most

    def _default_most(self) -> int:
        return max(_LEAST, _PER_NODE * len(self._nodes))

    def _make(self, key: Key) -> tuple[Any, Any]:
        scheme, host, port = key
        if scheme == b"https" and self._context is None:
            # Reading the certificates of authorities takes longer than a hundred requests.
            self._context = self._module.create_ssl_context()
        wire = self.wire_type(self._backend)
        origin = self._core.URL(scheme=scheme, host=host, port=port, target=b"/").origin
        connection = self._connection(
            origin,
            ssl_context=self._context,
            keepalive_expiry=self._expiry,
            http2=self._http2,
            network_backend=wire,
        )
        return connection, wire

    @staticmethod
    def way(_node: object, identity: Hashable) -> Hashable:
        """Return how a node is reached."""
        return identity

    def _look_around(self) -> None:
        """Give up the connections of nodes that have left, if any have."""
        nodes = self._balancer.nodes
        if nodes is not self._nodes:
            self._nodes = nodes
            self._pool.abandon(self._balancer.__contains__)

    def _translated(self, request: Any, url: Any) -> tuple[Key, Any, Trail | None]:
        """Return where a request goes, the request as httpcore has it, and what follows it."""
        scheme, host, port = url.raw_scheme, url.raw_host, url.port
        extensions, trail = request.extensions, None
        if self._http2:
            trail = Trail(extensions.get("trace"))
            # In place: who drains a response gives it another timeout there.
            extensions["trace"] = self._seen_by(trail)
        core = self._core
        translated = core.Request(
            method=request.method,
            url=core.URL(scheme=scheme, host=host, port=port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=extensions,
        )
        return (scheme, host, port), translated, trail

    def _was_unavailable(self, link: Link) -> None:
        """Record that a connection took no request: it may not speak HTTP/2 after all."""
        tls = link.wire.get_extra_info("ssl_object") if link.shared else None
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self._pool.is_single(link)

    def _answer(self, response: Any, link: Link) -> Any:
        link.answered = True
        if link.shared and response.extensions.get("http_version") != b"HTTP/2":
            self._pool.is_single(link)
        return self._module.Response(
            status_code=response.status,
            headers=response.headers,
            stream=self._stream(response.stream, link, self),
            extensions=response.extensions,
        )

    def _seen_by(self, trail: Trail) -> Any:
        raise NotImplementedError

    def error_for(self, error: Exception) -> Exception | None:
        """Return the package's error for one of httpcore, with that as its cause."""
        for kind in type(error).__mro__:
            found = getattr(self._module, kind.__name__, None)
            if found is not None and kind.__module__ == self._core.__name__:
                made: Exception = found(str(error))
                made.__cause__ = error
                return made
        return None

    def _unanswered(self, error: Exception, link: Link, trail: Trail | None) -> Exception | None:
        """Return the package's error for a request without an answer.

        Where a stale connection is all there is to it, that is the cause.
        """
        made = self.error_for(error)
        stale = None if made is None else self._staleness(error, link, trail)
        if made is not None and stale is not None:
            made.__cause__ = stale
            stale.__cause__ = error
        return made

    def _staleness(
        self, error: Exception, link: Link, trail: Trail | None
    ) -> StaleConnection | None:
        """Tell whether an error is the end of a kept connection, and no more than that."""
        core = self._core
        if not isinstance(error, core.ReadError | core.WriteError | core.RemoteProtocolError):
            return None
        frame = frame_of(error)
        if frame is not None:
            if trail is None or not is_graceful(frame):
                return None
            return StaleConnection(unsent=trail.was_unread(frame))
        if not link.answered:
            return None
        if link.shared:
            return StaleConnection(unsent=trail is not None and not trail.sent)
        return None if link.wire.received else StaleConnection(unsent=not link.wire.sent)


def checked_limits(module: Any, limits: object, http2: object, transport: object) -> None:
    """Check what is said about the connections of the default transport.

    Raises:
        TypeError: It is of the wrong kind, or there is a transport that would not go by it.
        ImportError: HTTP/2 is asked for, and h2 is missing.
    """
    package = module.__name__
    if limits is not None and not isinstance(limits, module.Limits):
        raise TypeError(f"limits is {limits!r}; it must be a {package}.Limits")
    if not isinstance(http2, bool):
        raise TypeError(f"http2 is {http2!r}; it must be True or False")
    if transport is not None and (limits is not None or http2):
        raise TypeError(
            "limits and http2 are for the connections that are kept by default; with a transport "
            "of your own, give them to that one"
        )
    if http2 and find_spec("h2") is None:
        raise ImportError(f"http2=True needs h2: install {package}[http2]")
