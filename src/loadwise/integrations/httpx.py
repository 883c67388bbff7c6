"""loadwise for httpx: a transport that sends each request to a node of a balancer.

client = httpx.Client(transport=LoadwiseTransport(Balancer(["10.0.0.1:8080", ...])))
client.get("http://service/users/42")
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from loadwise.errors import NoNodeAvailable
from loadwise.integrations._http.hash_keys import by_cookie, by_header
from loadwise.integrations._http.httpx_async import AsyncStream, AsyncTransport
from loadwise.integrations._http.httpx_family import Connections, Library
from loadwise.integrations._http.httpx_sync import SyncStream, SyncTransport
from loadwise.integrations._http.settings import AsyncTransportOptions, Settings, TransportOptions
from loadwise.integrations._http.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Unpack

    from loadwise.balancer import Balancer

try:
    import httpx
except ImportError as error:
    raise ImportError(
        "loadwise.integrations.httpx needs httpx: pip install 'loadwise[httpx]'"
    ) from error

__all__ = [
    "AsyncLoadwiseTransport",
    "LoadwiseTransport",
    "NoNodeError",
    "Verdict",
    "by_cookie",
    "by_header",
]


class _SyncStream(SyncStream, httpx.SyncByteStream):
    """A response's body, of the kind that httpx expects."""


class _AsyncStream(AsyncStream, httpx.AsyncByteStream):
    """A response's body, of the kind that httpx expects."""


class NoNodeError(NoNodeAvailable, httpx.TransportError):
    """No node could be given to a request, and why: an error of httpx's own family.

    Attributes:
        request: The request, as in all errors of httpx.

    It can be pickled, with its request.
    """

    def __init__(
        self,
        balancer: str,
        total: int,
        reasons: Mapping[str, int],
        retry_after: float | None = None,
        filters: Iterable[str] = (),
        *,
        request: httpx.Request | None = None,
    ) -> None:
        httpx.TransportError.__init__(self, "", request=request)
        NoNodeAvailable.__init__(self, balancer, total, reasons, retry_after, filters)

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return (partial(type(self), request=self._request), self.args)


_LIBRARY = Library(httpx, _SyncStream, _AsyncStream, NoNodeError)


class LoadwiseTransport(SyncTransport, httpx.BaseTransport):
    """Sends each request of a ``httpx.Client`` to a node that a balancer chooses.

    The request's scheme, host and port give way to the node's; path (below the node's own path,
    if it has one), query, headers and body stay. Each node has connections of its own. Redirects
    and cookies are mapped back to what was asked for; a redirect that leaves the fleet is followed
    as any client does.

    A request is in flight until its response is closed; its latency is the time to the headers.
    Where it may be repeated, a body of a ``Content-Length`` up to 64 KiB is read ahead, and the
    request is over with its last byte. A connection that has ended between two requests is
    replaced, and counts against nobody. Refused, reset and timed out connections and 502, 503 and
    504 are failures of the node; all else is a success. 429, and 503 with a Retry-After, put it on
    cooldown for that long, ``max_cooldown`` at most.

    A failed request is tried on another node: always when the connection was never made; else
    only if the method is idempotent, or the request has an ``Idempotency-Key`` header or
    ``extensions={"loadwise": {"retry": True}}``, and its body can be sent again. When attempts,
    deadline, nodes or the retry budget are used up, the last error or response is what you get.
    ``response.extensions["loadwise"]`` tells the ``node`` and the number of ``attempts``.

    Args:
        balancer: Who chooses.
        transport: Who sends: a transport for all nodes, or a function of a node that returns one
            for it. By default each node has connections of its own.
        limits: Of the default connections: the idle ones are for each node, all of them together
            are at most ``max_connections``. By default 20 idle ones per node are kept for 5 s, and
            there are at most 100, or two per node where that is more.
        http2: Whether the default connections may speak HTTP/2, which is agreed on in TLS.
        options: See `TransportOptions`.

    Raises:
        TypeError: An argument is of the wrong kind or not known.
        ValueError: A node's address cannot be told, or a number is out of range.

    A request may say for itself, in ``extensions={"loadwise": ...}``: ``retry``, ``hash_key``,
    ``cost``, ``deadline``, ``where`` and ``timeout``. When no node is available, `NoNodeError`
    is raised.

    Thread-safety: as that of ``httpx.Client``: one for all threads.
    """

    library = _LIBRARY

    def __init__(
        self,
        balancer: Balancer[Any],  # of whatever nodes
        transport: httpx.BaseTransport | Callable[[Any], httpx.BaseTransport] | None = None,
        *,
        limits: httpx.Limits | None = None,
        http2: bool = False,
        **options: Unpack[TransportOptions],
    ) -> None:
        super().__init__(Settings.of(balancer, options), transport, Connections(limits, http2))


class AsyncLoadwiseTransport(AsyncTransport, httpx.AsyncBaseTransport):
    """Sends each request of a ``httpx.AsyncClient`` to a node that a balancer chooses.

    All is as with `LoadwiseTransport`; a cancelled request says nothing about its node. The options
    ``prepare``, ``classify`` and ``hash_key`` may be coroutine functions.
    """

    library = _LIBRARY

    def __init__(
        self,
        balancer: Balancer[Any],  # of whatever nodes
        transport: httpx.AsyncBaseTransport
        | Callable[[Any], httpx.AsyncBaseTransport]
        | None = None,
        *,
        limits: httpx.Limits | None = None,
        http2: bool = False,
        **options: Unpack[AsyncTransportOptions],
    ) -> None:
        super().__init__(
            Settings.of(balancer, options, awaits=True), transport, Connections(limits, http2)
        )
