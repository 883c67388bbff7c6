"""loadwise for gRPC in an event loop: a channel that sends each call to a node of a balancer.

channel = loadwise.integrations.grpc.aio.Channel(Balancer(["10.0.0.1:50051", ...]))
stub = GreeterStub(channel)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Self, cast

import grpc
import grpc.aio

from loadwise._numbers import shown
from loadwise.balancer.per_node import PerNode
from loadwise.integrations._http.client_life import ClientLife
from loadwise.integrations.grpc._aio_connections import AioConnection
from loadwise.integrations.grpc._aio_errors import NoNodeError
from loadwise.integrations.grpc._aio_multi_callables import (
    StreamStreamMethod,
    StreamUnaryMethod,
    UnaryStreamMethod,
    UnaryUnaryMethod,
)
from loadwise.integrations.grpc._connections import GrpcNode
from loadwise.integrations.grpc._methods import Method, NodeChannels
from loadwise.integrations.grpc._settings import ChannelOptions, GrpcSettings, target_of

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Unpack

    from loadwise.balancer import Balancer

__all__ = ["Channel", "NoNodeError"]

_Function = Callable[[Any], Any]


class Channel(grpc.aio.Channel):
    """Sends each call to a node that a balancer chooses, over a channel for each node.

    As `loadwise.integrations.grpc.Channel`, for event loops of asyncio. Each loop has channels of
    its own. To cancel the call, or the task that awaits it, cancels it at its node.

    Args:
        balancer: Who chooses.
        credentials: Of the nodes' channels; ``None`` for channels without encryption.
        options: Of the nodes' channels, as pairs of name and value.
        max_attempts: Attempts per call, the first included, >= 1.
        idempotent: Methods that may be sent again after they were sent.
        interceptors: Of the nodes' channels: each attempt of a call passes through them.
        more: See `ChannelOptions`.

    Raises:
        TypeError: An argument is of the wrong kind or not known.
        ValueError: A node's address cannot be told, or a number is out of range.

    Thread-safety: it may serve event loops in several threads. A call belongs to its loop.

    Cost: as of the other channel, and a task for each call.

    Example:
        >>> from loadwise import Balancer
        >>> async def show(request):
        ...     balancer = Balancer(["10.0.0.1:50051", "10.0.0.2:50051"])
        ...     async with Channel(balancer, idempotent={"/shop.Cart/Show"}) as channel:
        ...         return await channel.unary_unary("/shop.Cart/Show")(request, timeout=1.0)
    """

    def __init__(
        self,
        balancer: Balancer[Any],  # of whatever nodes
        credentials: grpc.ChannelCredentials | None = None,
        options: Sequence[tuple[str, Any]] | None = None,
        max_attempts: int = 3,
        idempotent: Collection[str] = (),
        *,
        interceptors: Sequence[grpc.aio.ClientInterceptor] | None = None,
        **more: Unpack[ChannelOptions],
    ) -> None:
        settings = GrpcSettings.of(balancer, credentials, options, max_attempts, idempotent, more)
        self._life = life = ClientLife()
        self._grace: float | None = None
        passed = _as_interceptors(interceptors)

        def node_of(node: object) -> GrpcNode[AioConnection]:
            return GrpcNode(lambda failed: AioConnection(_channel(settings, node, passed), failed))

        async def close(node: GrpcNode[AioConnection]) -> None:
            connection = node.present if life.closed else None
            if connection is None:
                node.retire()
            else:
                await connection.close(self._grace)

        self._nodes = PerNode(node_of, close)
        self._fleet = NodeChannels(settings, self._nodes, life)

    def unary_unary(
        self,
        method: str,
        request_serializer: _Function | None = None,
        response_deserializer: _Function | None = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 - as gRPC has it
    ) -> grpc.aio.UnaryUnaryMultiCallable[Any, Any]:
        """Return a method with one request and one response."""
        functions = request_serializer, response_deserializer
        return UnaryUnaryMethod(self._method("unary_unary", method, functions, _registered_method))

    def unary_stream(
        self,
        method: str,
        request_serializer: _Function | None = None,
        response_deserializer: _Function | None = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 - as gRPC has it
    ) -> grpc.aio.UnaryStreamMultiCallable[Any, Any]:
        """Return a method with one request and a stream of responses."""
        functions = request_serializer, response_deserializer
        return UnaryStreamMethod(
            self._method("unary_stream", method, functions, _registered_method)
        )

    def stream_unary(
        self,
        method: str,
        request_serializer: _Function | None = None,
        response_deserializer: _Function | None = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 - as gRPC has it
    ) -> grpc.aio.StreamUnaryMultiCallable[Any, Any]:
        """Return a method with a stream of requests and one response."""
        functions = request_serializer, response_deserializer
        return StreamUnaryMethod(
            self._method("stream_unary", method, functions, _registered_method)
        )

    def stream_stream(
        self,
        method: str,
        request_serializer: _Function | None = None,
        response_deserializer: _Function | None = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 - as gRPC has it
    ) -> grpc.aio.StreamStreamMultiCallable[Any, Any]:
        """Return a method with a stream of requests and one of responses."""
        functions = request_serializer, response_deserializer
        return StreamStreamMethod(
            self._method("stream_stream", method, functions, _registered_method)
        )

    def _method(
        self,
        kind: str,
        name: str,
        functions: tuple[_Function | None, _Function | None],
        registered: object,
    ) -> Method[AioConnection]:
        # The older releases do not know the last argument, nor do stubs made for them give it.
        more = {"_registered_method": True} if registered else {}
        return Method(
            self._fleet,
            name,
            lambda connection: getattr(connection.channel, kind)(name, *functions, **more),
        )

    async def close(self, grace: float | None = None) -> None:
        """Close the channels of all nodes; calls under way are cancelled, and blame nobody.

        Args:
            grace: Seconds that the calls under way are given to end by themselves.
        """
        self._grace = grace
        self._life.end()
        await self._nodes.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool | None:
        await self.close()
        return None

    def get_state(self, try_to_connect: bool = False) -> NoReturn:  # noqa: FBT001, FBT002
        """Raise ``NotImplementedError``: there is no one connection whose state could be told.

        Which nodes are up tell `Balancer.status` and the health checks.
        """
        raise NotImplementedError(_NO_STATE)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Raise ``NotImplementedError``, as `get_state` does."""
        raise NotImplementedError(_NO_STATE)

    async def channel_ready(self) -> None:
        """Raise ``NotImplementedError``, as `get_state` does."""
        raise NotImplementedError(_NO_STATE)


_NO_STATE = (
    "a balanced channel has no one connection whose state could be told; ask balancer.status() "
    "which nodes are up, and give calls wait_for_ready=True"
)


def _as_interceptors(given: object) -> list[grpc.aio.ClientInterceptor]:
    if given is None:
        return []
    if not isinstance(given, Sequence):
        raise TypeError(f"interceptors is {shown(given)}; it must be a list of interceptors")
    interceptors = cast("Sequence[object]", given)
    for each in interceptors:
        if not isinstance(each, grpc.aio.ClientInterceptor):
            raise TypeError(
                f"interceptors has {shown(each)}; each must be one of grpc.aio's, such as a "
                f"UnaryUnaryClientInterceptor"
            )
    return cast("list[grpc.aio.ClientInterceptor]", list(interceptors))


def _channel(
    settings: GrpcSettings, node: object, interceptors: Sequence[grpc.aio.ClientInterceptor]
) -> grpc.aio.Channel:
    """Return a channel to a node."""
    target, options = target_of(node, settings.target), settings.options
    compression = settings.compression
    if settings.credentials is None:
        return grpc.aio.insecure_channel(target, options, compression, interceptors)
    return grpc.aio.secure_channel(target, settings.credentials, options, compression, interceptors)
