"""The beginning of a response's body, read so that whoever comes after finds all of it."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from functools import lru_cache
from time import monotonic
from typing import Any

from loadwise.integrations._http.decoding import DecodingReader
from loadwise.integrations._http.iterating import iterating

__all__ = ["is_async", "is_readable", "peek", "peek_async"]

_MOST = 65_536
"""Bytes of a body that are read, as they come and unpacked."""
_PATIENCE = 1.0
"""Seconds after which no more is read of one that comes in pieces."""

# Responses and streams are Any: they are those of httpx2 or of httpx.


class _Head:
    """Beginning of a body, as far as it has been read."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.error: Exception | None = None
        self._room = _MOST
        self._until = monotonic() + _PATIENCE

    def takes_more(self, piece: bytes) -> bool:
        """Take in a piece; whether there is room and time for another."""
        self.pieces.append(piece)
        self._room -= len(piece)
        return self._room > 0 and monotonic() < self._until


class _SyncRest:
    """A body whose beginning has been read."""

    def __init__(self, head: _Head, rest: Iterator[bytes], stream: Any) -> None:
        self._head = head
        self._rest = rest
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        while self._head.pieces:
            yield self._head.pieces.pop(0)
        if self._head.error is not None:
            raise self._head.error
        yield from self._rest

    def close(self) -> None:
        """Give back the connection."""
        self._stream.close()


class _EitherRest(_SyncRest):
    """The same of a body that need not be awaited, but may be."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    async def aclose(self) -> None:
        """Give back the connection."""
        await self._stream.aclose()


class _AsyncRest:
    """A body whose beginning has been read."""

    def __init__(self, head: _Head, rest: AsyncIterator[bytes], stream: Any) -> None:
        self._head = head
        self._rest = rest
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._head.pieces:
            yield self._head.pieces.pop(0)
        if self._head.error is not None:
            raise self._head.error
        async with iterating(self._rest) as pieces:
            async for piece in pieces:
                yield piece

    async def aclose(self) -> None:
        """Give back the connection."""
        await self._stream.aclose()


def is_readable(response: Any) -> bool:
    """Tell whether a response has a body whose beginning may be read."""
    return isinstance(getattr(response, "stream", None), Iterable | AsyncIterable)


def is_async(response: Any) -> bool:
    """Tell whether the body of a response has to be awaited."""
    return not response.is_closed and not isinstance(response.stream, Iterable)


def peek(response: Any) -> bytes:
    """Return the beginning of a response's body, unpacked, at most 64 KiB of it.

    An error is left for whoever reads the body.
    """
    if response.is_closed:
        return _content_of(response)
    head, stream = _Head(), response.stream
    kind = _EitherRest if hasattr(stream, "__aiter__") else _SyncRest
    rest = iter(stream)
    try:
        for piece in rest:
            if not head.takes_more(piece):
                break
        else:
            stream.close()  # who waits for another node needs its connection no more
    except Exception as error:  # noqa: BLE001 - raised again where the body is read
        head.error = error
    response.stream = _kin(kind, stream.__class__)(head, rest, stream)
    return _unpacked(head, response)


async def peek_async(response: Any) -> bytes:
    """Return the beginning of a response's body as `peek` does, awaited."""
    head, stream = _Head(), response.stream
    rest = aiter(stream)
    try:
        async for piece in rest:
            if not head.takes_more(piece):
                break
        else:
            await stream.aclose()
    except Exception as error:  # noqa: BLE001 - raised again where the body is read
        head.error = error
    response.stream = _kin(_AsyncRest, stream.__class__)(head, rest, stream)
    return _unpacked(head, response)


@lru_cache(maxsize=64)
def _kin(kind: type[Any], stream: type[Any]) -> type[Any]:
    """Return a kind of stream as a subclass of the package's own bases, as far as it has those."""
    wanted = [
        name
        for name, method in (("SyncByteStream", "__iter__"), ("AsyncByteStream", "__aiter__"))
        if hasattr(kind, method)
    ]
    bases = tuple(each for each in stream.__mro__ if each.__name__ in wanted)
    return type(kind.__name__, (kind, *bases), {})


def _content_of(response: Any) -> bytes:
    """Return the beginning of a body that has been read; nothing where it has been thrown away."""
    try:
        content: bytes = response.content
    except RuntimeError:  # ResponseNotRead of either package is one
        return b""
    return content[:_MOST]


class _Start:
    """Keeps the beginning of what a decoder hands on."""

    def __init__(self) -> None:
        self.content = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Take in a piece."""
        self.content += chunk[: _MOST - len(self.content)]

    def amounts(self) -> None:
        """Return nothing: no usage is looked for."""


def _unpacked(head: _Head, response: Any) -> bytes:
    start = _Start()
    decoded = DecodingReader(start, response.headers.get("content-encoding", ""))
    for piece in head.pieces:
        decoded.feed(piece)
    return bytes(start.content)
