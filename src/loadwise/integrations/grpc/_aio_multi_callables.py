"""Methods of a service as stubs call them in an event loop, one class for each kind of calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

from loadwise.integrations.grpc._aio_calls import (
    AioStreamStream,
    AioStreamUnary,
    AioUnaryStream,
    AioUnaryUnary,
)
from loadwise.integrations.grpc._aio_connections import AioConnection
from loadwise.integrations.grpc._aio_under_way import AioCallUnderWay
from loadwise.integrations.grpc._attempts import CallArguments
from loadwise.integrations.grpc._bases import (
    AioStreamStreamBase,
    AioStreamUnaryBase,
    AioUnaryStreamBase,
    AioUnaryUnaryBase,
)
from loadwise.integrations.grpc._methods import Method
from loadwise.integrations.grpc._requests import is_repeatable

__all__ = [
    "StreamStreamMethod",
    "StreamUnaryMethod",
    "UnaryStreamMethod",
    "UnaryUnaryMethod",
]


AnyMetadata = grpc.aio.Metadata | Sequence[tuple[str, str | bytes]]


class _AioMethod:
    """A method, as it is called in an event loop."""

    def __init__(self, method: Method[AioConnection]) -> None:
        self._method = method

    def _one(self, request: Any, arguments: CallArguments, *, single: bool) -> AioCallUnderWay:
        attempts = self._method.attempts(arguments, request, repeatable=True)
        return AioCallUnderWay(self._method, attempts, arguments, request, single=single)

    def _many(self, requests: Any, arguments: CallArguments, *, single: bool) -> AioCallUnderWay:
        attempts = self._method.attempts(arguments, None, repeatable=is_repeatable(requests))
        return AioCallUnderWay(self._method, attempts, arguments, requests, single=single)


class UnaryUnaryMethod(_AioMethod, AioUnaryUnaryBase):
    """A method with one request and one response. It serves all event loops."""

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: AnyMetadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Call it; return the call."""
        arguments = CallArguments(timeout, metadata, credentials, wait_for_ready, compression)
        return AioUnaryUnary(self._one(request, arguments, single=True))


class UnaryStreamMethod(_AioMethod, AioUnaryStreamBase):
    """A method with one request and a stream of responses. It serves all event loops."""

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: AnyMetadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Call it; return the call."""
        arguments = CallArguments(timeout, metadata, credentials, wait_for_ready, compression)
        return AioUnaryStream(self._one(request, arguments, single=False))


class StreamUnaryMethod(_AioMethod, AioStreamUnaryBase):
    """A method with a stream of requests and one response. It serves all event loops."""

    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: AnyMetadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,  # noqa: FBT001 - as gRPC has it
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Call it; return the call."""
        arguments = CallArguments(timeout, metadata, credentials, wait_for_ready, compression)
        return AioStreamUnary(self._many(request_iterator, arguments, single=True))


class StreamStreamMethod(_AioMethod, AioStreamStreamBase):
    """A method with a stream of requests and one of responses. It serves all event loops."""

    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: AnyMetadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,  # noqa: FBT001 - as gRPC has it
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Call it; return the call."""
        arguments = CallArguments(timeout, metadata, credentials, wait_for_ready, compression)
        return AioStreamStream(self._many(request_iterator, arguments, single=False))
