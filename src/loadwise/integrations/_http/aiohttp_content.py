"""A response's content in aiohttp, read under the eyes of a meter, or of who watches it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from loadwise.integrations._http.lease_until_read import OpenResponse

__all__ = ["MeteredContent"]

T = TypeVar("T")


class MeteredContent:
    """Stands in for an ``aiohttp.StreamReader`` and shows what is read of it to an `OpenResponse`.

    The real one goes on being fed by the connection, so it cannot be replaced by one that watches;
    whatever takes bytes out of it has a twin here, and everything else is its own.
    """

    def __init__(self, content: Any, unread: OpenResponse) -> None:
        self._content = content
        self._unread = unread

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    def _seen(self, piece: bytes) -> bytes:
        self._unread.read(piece)
        if self._content.at_eof():
            self._unread.settle()
        return piece

    def look_ahead(self) -> None:
        """Show who watches all that is left to be read, once the end of the body has come.

        Of what is left aiohttp tells only by attributes that it keeps to itself. Should they go,
        the ends of bodies are watched over less well, and tests say so.
        """
        if not self._content.is_eof():
            return
        pieces: list[bytes] = list(getattr(self._content, "_buffer", ()))
        if pieces:
            pieces[0] = pieces[0][getattr(self._content, "_buffer_offset", 0) :]
        self._unread.show(pieces)
        self._unread.complete()

    async def read(self, n: int = -1) -> bytes:
        """Read at most ``n`` bytes, or all that will come."""
        return self._seen(await self._content.read(n))

    async def readany(self) -> bytes:
        """Read what has come, or wait for it."""
        return self._seen(await self._content.readany())

    async def readexactly(self, n: int) -> bytes:
        """Read ``n`` bytes."""
        return self._seen(await self._content.readexactly(n))

    async def readline(self, **limits: Any) -> bytes:
        """Read a line."""
        return self._seen(await self._content.readline(**limits))

    async def readuntil(self, separator: bytes = b"\n", **limits: Any) -> bytes:
        """Read up to a separator."""
        return self._seen(await self._content.readuntil(separator, **limits))

    async def readchunk(self) -> tuple[bytes, bool]:
        """Read a piece, and whether a chunk of the transfer ends with it."""
        piece, ends = await self._content.readchunk()
        return self._seen(piece), ends

    def read_nowait(self, n: int = -1) -> bytes:
        """Read what has come."""
        return self._seen(self._content.read_nowait(n))

    def __aiter__(self) -> _Pieces[bytes]:
        return _Pieces(self.readline, b"")

    def iter_any(self) -> _Pieces[bytes]:
        """Iterate over pieces as they come."""
        return _Pieces(self.readany, b"")

    def iter_chunked(self, n: int) -> _Pieces[bytes]:
        """Iterate over pieces of at most ``n`` bytes."""
        return _Pieces(lambda: self.read(n), b"")

    def iter_chunks(self) -> _Pieces[tuple[bytes, bool]]:
        """Iterate over pieces, each with whether a chunk of the transfer ends with it."""
        return _Pieces(self.readchunk, (b"", False))


class _Pieces(Generic[T]):
    """Reads until there is no more."""

    def __init__(self, read: Callable[[], Awaitable[T]], last: T) -> None:
        self._read = read
        self._last = last

    def __aiter__(self) -> _Pieces[T]:
        return self

    async def __anext__(self) -> T:
        piece = await self._read()
        if piece == self._last:
            raise StopAsyncIteration
        return piece
