"""Calls as callers of an event loop's channel hold them, of the four kinds that gRPC has."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import grpc
import grpc.aio

from loadwise.integrations.grpc._aio_under_way import AioCallUnderWay
from loadwise.integrations.grpc._bases import (
    AioStreamStreamCallBase,
    AioStreamUnaryCallBase,
    AioUnaryStreamCallBase,
    AioUnaryUnaryCallBase,
)

__all__ = ["AioStreamStream", "AioStreamUnary", "AioUnaryStream", "AioUnaryUnary"]


class _AioCall:
    """A call; it is cancelled when nobody holds it any more.

    Args:
        under_way: Its attempts.

    It belongs to its event loop.
    """

    def __init__(self, under_way: AioCallUnderWay) -> None:
        self._under_way = under_way

    def __del__(self) -> None:
        under_way = getattr(self, "_under_way", None)
        if under_way is not None and not under_way.over:
            under_way.drop()

    def cancel(self) -> bool:
        """Cancel the call; return whether there was something to cancel."""
        return self._under_way.cancel()

    def cancelled(self) -> bool:
        """Tell whether the call was cancelled here."""
        return self._under_way.was_cancelled

    def done(self) -> bool:
        """Tell whether the call is over."""
        self._under_way.make()
        return self._under_way.over

    def time_remaining(self) -> float | None:
        """Return the seconds that the call has left; ``None`` for any time."""
        return self._under_way.time_remaining()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Have a function called with this object at the end."""
        self._under_way.make()
        self._under_way.ended.add_done_callback(lambda _: callback(self))

    async def _told(self, what: str, where_cancelled: Any) -> Any:
        """Wait for the end; return what the last attempt, or the error, tells of it."""
        inner = await self._under_way.last()
        if inner is None:
            return where_cancelled
        answer = getattr(inner, what)()
        return answer if isinstance(inner, grpc.aio.AioRpcError) else await answer

    async def initial_metadata(self) -> Any:
        """Return the metadata that came first; wait for it. Nothing is sent again after that."""
        return await self._under_way.initial_metadata()

    async def trailing_metadata(self) -> Any:
        """Return the trailers; wait for the end."""
        return await self._told("trailing_metadata", grpc.aio.Metadata())

    async def code(self) -> grpc.StatusCode:
        """Return the status code; wait for the end."""
        code: grpc.StatusCode = await self._told("code", grpc.StatusCode.CANCELLED)
        return code

    async def details(self) -> str:
        """Return the details of the status; wait for the end."""
        return str(await self._told("details", "Locally cancelled by application!"))

    async def debug_error_string(self) -> str:
        """Return what gRPC says for those who search for a fault; wait for the end."""
        return str(await self._told("debug_error_string", ""))

    async def wait_for_connection(self) -> None:
        """Wait until the call is on its way to a node; raise what prevents that."""
        await self._under_way.sent()


class _OneResponse(_AioCall):
    """A call with one response."""

    def __await__(self) -> Generator[Any, None, Any]:
        return (yield from self._under_way.response().__await__())


class _Responses(_AioCall):
    """A call with a stream of responses."""

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        message = await self._under_way.read()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return message

    async def read(self) -> Any:
        """Return the next message, or ``grpc.aio.EOF`` at the end."""
        return await self._under_way.read()


class _Writing(_AioCall):
    """A call with a stream of requests."""

    async def write(self, request: Any) -> None:
        """Send a message."""
        await (await self._under_way.sent()).write(request)

    async def done_writing(self) -> None:
        """Tell the server that there are no more messages."""
        await (await self._under_way.sent()).done_writing()


class AioUnaryUnary(_OneResponse, AioUnaryUnaryCallBase):
    """A call with one request and one response."""


class AioUnaryStream(_Responses, AioUnaryStreamCallBase):
    """A call with one request and a stream of responses."""


class AioStreamUnary(_Writing, _OneResponse, AioStreamUnaryCallBase):
    """A call with a stream of requests and one response."""


class AioStreamStream(_Writing, _Responses, AioStreamStreamCallBase):
    """A call with a stream of requests and one of responses."""
