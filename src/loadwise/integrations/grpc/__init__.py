"""loadwise for gRPC: a channel that sends each call to a node of a balancer.

channel = loadwise.integrations.grpc.Channel(Balancer(["10.0.0.1:50051", ...]))
stub = GreeterStub(channel)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Self

from loadwise.balancer.per_node import PerNode
from loadwise.integrations._http.block_options import request_options
from loadwise.integrations._http.client_life import ClientLife

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Unpack

    from loadwise.balancer import Balancer

try:
    import grpc
except ImportError as error:
    raise ImportError(
        "loadwise.integrations.grpc needs grpcio: pip install 'loadwise[grpc]'"
    ) from error

from loadwise.integrations.grpc._connections import GrpcNode, SyncConnection
from loadwise.integrations.grpc._errors import NoNodeError
from loadwise.integrations.grpc._load_reports import LoadReport, ReportedLoad
from loadwise.integrations.grpc._methods import Method, NodeChannels
from loadwise.integrations.grpc._multi_callables import (
    StreamStream,
    StreamUnary,
    UnaryStream,
    UnaryUnary,
)
from loadwise.integrations.grpc._probe import GrpcProbe
from loadwise.integrations.grpc._settings import (
    CallDetails,
    ChannelOptions,
    GrpcSettings,
    by_metadata,
    target_of,
)

__all__ = [
    "CallDetails",
    "Channel",
    "ChannelOptions",
    "GrpcProbe",
    "LoadReport",
    "NoNodeError",
    "ReportedLoad",
    "by_metadata",
    "request_options",
]

_Function = Callable[[Any], Any]


class Channel(grpc.Channel):
    """Sends each call to a node that a balancer chooses, over a channel for each node.

    Stubs made by protoc take it as any channel, and so does `grpc.intercept_channel`. A call is in
    flight until its status has come: a stream until its end, or until nobody holds it any more.

    UNAVAILABLE, INTERNAL, DEADLINE_EXCEEDED and DATA_LOSS are failures of the node. A
    RESOURCE_EXHAUSTED whose trailers have a ``google.rpc.RetryInfo`` or a
    ``grpc-retry-pushback-ms`` puts it on cooldown for that long, ``max_cooldown`` at most. A call
    that is cancelled here says nothing; all other statuses are answers of a node that works.

    A failed call is tried on another node: always when there was no connection to the first, so
    that nothing was sent; else only if its method is in ``idempotent``, or within
    ``request_options(retry=True)``. A stream of requests can be sent again if it is a list or the
    like; a stream of responses is begun again only as long as nothing of it has been read. The
    caller's ``timeout`` holds for all attempts together. When attempts, time, nodes or the retry
    budget are used up, the last error is raised. Where there is no node at all, that is
    `NoNodeError`.

    Args:
        balancer: Who chooses.
        credentials: Of the nodes' channels; ``None`` for channels without encryption.
        options: Of the nodes' channels, as pairs of name and value. By default an attempt to
            connect may take 5 seconds (``grpc.min_reconnect_backoff_ms``).
        max_attempts: Attempts per call, the first included, >= 1.
        idempotent: Methods that may be sent again after they were sent, by their full names, such
            as ``"/pkg.Service/Method"``.
        more: See `ChannelOptions`.

    Raises:
        TypeError: An argument is of the wrong kind or not known.
        ValueError: A node's address cannot be told, or a number is out of range.

    The channel of a node is made with its first call, and closed when the node has left the
    balancer and its last call has ended. One that cannot connect gives way to a new one, so that no
    pause of gRPC's own delays the next attempt.

    Thread-safety: full; one for all threads. In a forked child the nodes get channels of their own,
    as far as gRPC itself supports that.

    Cost: some microseconds a call, whatever the number of nodes.

    Example:
        >>> from loadwise import Balancer
        >>> balancer = Balancer(["10.0.0.1:50051", "10.0.0.2:50051"])
        >>> with Channel(balancer, idempotent={"/shop.Cart/Show"}) as channel:
        ...     show = channel.unary_unary("/shop.Cart/Show")
    """

    def __init__(
        self,
        balancer: Balancer[Any],  # of whatever nodes
        credentials: grpc.ChannelCredentials | None = None,
        options: Sequence[tuple[str, Any]] | None = None,
        max_attempts: int = 3,
        idempotent: Collection[str] = (),
        **more: Unpack[ChannelOptions],
    ) -> None:
        settings = GrpcSettings.of(balancer, credentials, options, max_attempts, idempotent, more)
        self._life = life = ClientLife()

        def node_of(node: object) -> GrpcNode[SyncConnection]:
            return GrpcNode(lambda failed: SyncConnection(_channel(settings, node), failed))

        def close(node: GrpcNode[SyncConnection]) -> None:
            connection = node.present if life.closed else None
            if connection is None:
                node.retire()
            else:
                connection.close()

        self._nodes = PerNode(node_of, close)
        self._fleet = NodeChannels(settings, self._nodes, life)

    def unary_unary(
        self,
        method: str,
        request_serializer: _Function | None = None,
        response_deserializer: _Function | None = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 - as gRPC has it
    ) -> grpc.UnaryUnaryMultiCallable[Any, Any]:
        """Return a method with one request and one response."""
        return UnaryUnary(
            self._method("unary_unary", method, response_deserializer, _registered_method),
            request_serializer,
        )

    def unary_stream(
        self,
        method: str,
        request_serializer: _Function | None = None,
        response_deserializer: _Function | None = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 - as gRPC has it
    ) -> grpc.UnaryStreamMultiCallable[Any, Any]:
        """Return a method with one request and a stream of responses."""
        return UnaryStream(
            self._method("unary_stream", method, response_deserializer, _registered_method),
            request_serializer,
        )

    def stream_unary(
        self,
        method: str,
        request_serializer: _Function | None = None,
        response_deserializer: _Function | None = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 - as gRPC has it
    ) -> grpc.StreamUnaryMultiCallable[Any, Any]:
        """Return a method with a stream of requests and one response."""
        return StreamUnary(
            self._method("stream_unary", method, response_deserializer, _registered_method),
            request_serializer,
        )

    def stream_stream(
        self,
        method: str,
        request_serializer: _Function | None = None,
        response_deserializer: _Function | None = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 - as gRPC has it
    ) -> grpc.StreamStreamMultiCallable[Any, Any]:
        """Return a method with a stream of requests and one of responses."""
        return StreamStream(
            self._method("stream_stream", method, response_deserializer, _registered_method),
            request_serializer,
        )

    def _method(
        self, kind: str, name: str, deserializer: _Function | None, registered: object
    ) -> Method[SyncConnection]:
        # The older releases do not know the last argument, nor do stubs made for them give it.
        more = {"_registered_method": True} if registered else {}
        return Method(
            self._fleet,
            name,
            lambda connection: getattr(connection.channel, kind)(name, None, deserializer, **more),
        )

    def subscribe(
        self,
        callback: Callable[[grpc.ChannelConnectivity], None],
        try_to_connect: bool | None = False,  # noqa: FBT001, FBT002 - as gRPC has it
    ) -> None:
        """Raise ``NotImplementedError``: there is no one connection whose state could be told.

        Which nodes are up tell `Balancer.status` and the health checks.
        """
        raise NotImplementedError(_NO_STATE)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """Do nothing: nobody can have subscribed."""

    def close(self) -> None:
        """Close the channels of all nodes; calls under way are cancelled, and blame nobody."""
        self._life.end()
        self._nodes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool | None:
        self.close()
        return None


_NO_STATE = (
    "a balanced channel has no one connection whose state could be told; ask balancer.status() "
    "which nodes are up, and give calls wait_for_ready=True instead of channel_ready_future"
)


def _channel(settings: GrpcSettings, node: object) -> grpc.Channel:
    """Return a channel to a node."""
    target = target_of(node, settings.target)
    if settings.credentials is None:
        return grpc.insecure_channel(target, settings.options, settings.compression)
    return grpc.secure_channel(target, settings.credentials, settings.options, settings.compression)
