"""Health checks by gRPC's own protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import grpc
import grpc.aio

from loadwise._callables import refuse_async
from loadwise._numbers import shown
from loadwise.health_checks.probe import TimedProbe, no_answer
from loadwise.integrations.grpc._settings import target_of
from loadwise.integrations.grpc._wire import fields

__all__ = ["GrpcProbe"]

_METHOD: Final = "/grpc.health.v1.Health/Check"
_SERVING: Final = 1
_STATES: Final[dict[int, str]] = {0: "UNKNOWN", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_STRING: Final = b"\x0a"


class GrpcProbe(TimedProbe):
    """Passes when a node says SERVING to ``grpc.health.v1.Health/Check``.

    For `HealthChecker` and `AsyncHealthChecker` (with asyncio). Each check makes a connection of
    its own, so that it notices a node that accepts none, and no pause of a channel that could not
    connect before delays it.

    Args:
        service: Which service is asked about; ``""`` for the server as a whole.
        target: Returns the address of a node, as for the channels; by default its id.
        credentials: As for the channels; ``None`` for a connection without encryption.
        options: Options of the channel, such as ``grpc.ssl_target_name_override``.

    Raises:
        TypeError: An argument is of the wrong kind.

    Thread-safety: of any number of threads.

    Source: ``grpc/health/v1/health.proto`` and "GRPC Health Checking Protocol".

    Example:
        >>> probe = GrpcProbe("shop.Cart")
        >>> probe.check_node("10.0.0.1:50051")
    """

    def __init__(
        self,
        service: str = "",
        *,
        target: Callable[[Any], str] | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        if not isinstance(service, str):
            raise TypeError(f"service is {shown(service)}; it must be a str, such as 'shop.Cart'")
        if target is not None and not callable(target):
            raise TypeError(f"target is {shown(target)}; it must be a function of a node")
        refuse_async("target", target, "give a plain function of a node")
        if not isinstance(credentials, grpc.ChannelCredentials | None):
            raise TypeError(f"credentials is {shown(credentials)}; it must be ChannelCredentials")
        name = service.encode()
        self._request = _STRING + _varint(len(name)) + name if name else b""
        self._target = target
        self._credentials = credentials
        self._options = (*options, ("grpc.use_local_subchannel_pool", 1))

    def check_node(self, node: object) -> None:
        """Raise ``ValueError`` if the node has no address."""
        target_of(node, self._target)

    def probe(self, node: object, timeout: float) -> str | None:
        """Ask the node; return what is wrong, if anything."""
        answer: bytes
        target, options = target_of(node, self._target), self._options
        channel = (
            grpc.insecure_channel(target, options)
            if self._credentials is None
            else grpc.secure_channel(target, self._credentials, options)
        )
        with channel:
            try:
                answer = _check_on(channel)(self._request, timeout=timeout)
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    return no_answer(timeout)
                return f"{error.code().name}: {error.details()}"
        return _fault_in(answer)

    async def probe_async(self, node: object) -> str | None:
        """Ask the node; return what is wrong, if anything."""
        answer: bytes
        target, options = target_of(node, self._target), self._options
        channel = (
            grpc.aio.insecure_channel(target, options)
            if self._credentials is None
            else grpc.aio.secure_channel(target, self._credentials, options)
        )
        async with channel:
            try:
                answer = await _check_on(channel)(self._request)
            except grpc.aio.AioRpcError as error:
                return f"{error.code().name}: {error.details()}"
        return _fault_in(answer)


def _check_on(channel: Any) -> Any:
    """Return the method that checks, with bytes for messages."""
    return channel.unary_unary(_METHOD)


def _fault_in(answer: bytes) -> str | None:
    """Return what is wrong by a ``HealthCheckResponse``; ``None`` where it is SERVING."""
    try:
        status = dict(fields(answer)).get(1, 0)
    except ValueError as error:
        return f"what answered does not speak grpc.health.v1: {error}"
    if isinstance(status, bytes):
        return "what answered does not speak grpc.health.v1: its status is no number"
    return None if status == _SERVING else _STATES.get(status, f"status {status}")


def _varint(number: int) -> bytes:
    """Return a number as protobuf writes it."""
    written = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)
