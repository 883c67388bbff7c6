"""Methods of a service as stubs call them: one class for each of the four kinds of calls."""

from __future__ import annotations

from typing import Any

import grpc

from loadwise.integrations.grpc._attempts import CallArguments, CallAttempts
from loadwise.integrations.grpc._bases import (
    StreamStreamBase,
    StreamUnaryBase,
    UnaryStreamBase,
    UnaryUnaryBase,
)
from loadwise.integrations.grpc._blocking import answer_of
from loadwise.integrations.grpc._connections import SyncConnection
from loadwise.integrations.grpc._live_calls import LiveCall
from loadwise.integrations.grpc._methods import Metadata, Method
from loadwise.integrations.grpc._requests import (
    MessageSource,
    Serializer,
    is_repeatable,
    serialized,
)
from loadwise.integrations.grpc._under_way import CallUnderWay

__all__ = ["StreamStream", "StreamUnary", "UnaryStream", "UnaryUnary"]


class _RequestSender:
    """A method, and how its requests are sent."""

    def __init__(self, method: Method[SyncConnection], serializer: Serializer | None) -> None:
        self._method = method
        self._serializer = serializer

    def _one(self, request: Any, arguments: CallArguments) -> tuple[CallAttempts, Any]:
        """Return the attempts of a call with one request, and that as bytes."""
        payload = serialized(request, self._serializer)
        return self._method.attempts(arguments, request, repeatable=True), payload

    def _many(self, requests: Any, arguments: CallArguments) -> tuple[CallAttempts, Any]:
        """Return the attempts of a call with a stream of requests, and the source of those."""
        repeatable = is_repeatable(requests)
        attempts = self._method.attempts(arguments, None, repeatable=repeatable)
        return attempts, MessageSource(requests, self._serializer)

    def _start(
        self, call: tuple[CallAttempts, Any], arguments: CallArguments, *, single: bool
    ) -> LiveCall:
        return LiveCall(CallUnderWay(self._method, *call, arguments, single=single))


class UnaryUnary(_RequestSender, UnaryUnaryBase):
    """A method with one request and one response. Thread-safe."""

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,  # noqa: FBT001 - as gRPC has it
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Call it, and return the response."""
        arguments = CallArguments(timeout, metadata, credentials, wait_for_ready, compression)
        attempts, payload = self._one(request, arguments)
        return answer_of(self._method, attempts, payload, arguments, with_call=False)

    def with_call(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,  # noqa: FBT001 - as gRPC has it
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Call it, and return the response and the call."""
        arguments = CallArguments(timeout, metadata, credentials, wait_for_ready, compression)
        attempts, payload = self._one(request, arguments)
        return answer_of(self._method, attempts, payload, arguments, with_call=True)

    def future(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,  # noqa: FBT001 - as gRPC has it
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Call it, and return a future of the response."""
        arguments = CallArguments(timeout, metadata, credentials, wait_for_ready, compression)
        return self._start(self._one(request, arguments), arguments, single=True)


class UnaryStream(_RequestSender, UnaryStreamBase):
    """A method with one request and a stream of responses. Thread-safe."""

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,  # noqa: FBT001 - as gRPC has it
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Call it, and return an iterator over the responses."""
        arguments = CallArguments(timeout, metadata, credentials, wait_for_ready, compression)
        return self._start(self._one(request, arguments), arguments, single=False)


class StreamUnary(_RequestSender, StreamUnaryBase):
    """A method with a stream of requests and one response. Thread-safe."""

    def __call__(
        self,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,  # noqa: FBT001 - as gRPC has it
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Call it, and return the response."""
        arguments = CallArguments(timeout, metadata, credentials, wait_for_ready, compression)
        attempts, payload = self._many(request_iterator, arguments)
        return answer_of(self._method, attempts, payload, arguments, with_call=False)

    def with_call(
        self,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,  # noqa: FBT001 - as gRPC has it
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Call it, and return the response and the call."""
        arguments = CallArguments(timeout, metadata, credentials, wait_for_ready, compression)
        attempts, payload = self._many(request_iterator, arguments)
        return answer_of(self._method, attempts, payload, arguments, with_call=True)

    def future(
        self,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,  # noqa: FBT001 - as gRPC has it
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Call it, and return a future of the response."""
        arguments = CallArguments(timeout, metadata, credentials, wait_for_ready, compression)
        return self._start(self._many(request_iterator, arguments), arguments, single=True)


class StreamStream(_RequestSender, StreamStreamBase):
    """A method with a stream of requests and one of responses. Thread-safe."""

    def __call__(
        self,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,  # noqa: FBT001 - as gRPC has it
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Call it, and return an iterator over the responses."""
        arguments = CallArguments(timeout, metadata, credentials, wait_for_ready, compression)
        return self._start(self._many(request_iterator, arguments), arguments, single=False)
