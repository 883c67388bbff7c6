"""Connections for one short conversation, by the event loop that runs."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from loadwise._event_loops import running_trio

__all__ = ["AsyncioConnection", "TrioConnection", "connect"]

_LONGEST_LINE = 65_536
_PIECE = 4096


async def connect(
    host: str, port: int, tls: ssl.SSLContext | None = None
) -> AsyncioConnection | TrioConnection:
    """Return a connection.

    Raises:
        OSError: It could not be made.
    """
    trio = running_trio()
    if trio is None:
        return AsyncioConnection(*await asyncio.open_connection(host, port, ssl=tls))
    try:
        tcp = await trio.open_tcp_stream(host, port)
    except OSError as error:
        raise _first(error) from None
    stream = tcp if tls is None else trio.SSLStream(tcp, tls, server_hostname=host)
    return TrioConnection(trio, tcp, stream)


def _first(error: BaseException) -> BaseException:
    """Return what trio's error for all addresses of a name comes from at the first of them."""
    cause: Any = error.__cause__
    while hasattr(cause, "exceptions"):
        cause = cause.exceptions[0]
    return error if cause is None else cause


class AsyncioConnection:
    """A connection in asyncio."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send a little."""
        self._writer.write(data)

    async def readline(self) -> bytes:
        """Return the next line with its end; what there is of it where nothing more comes."""
        return await self._reader.readline()

    async def abort(self) -> None:
        """Hang up, without waiting for what the other side may still want to say."""
        self._writer.transport.abort()


class TrioConnection:
    """A connection in trio. The streams are those of trio."""

    def __init__(self, trio: Any, tcp: Any, stream: Any) -> None:
        self._trio = trio
        self._tcp = tcp
        self._stream = stream
        self._come = b""

    async def send(self, data: bytes) -> None:
        """Send a little."""
        try:
            await self._stream.send_all(data)
        except self._trio.BrokenResourceError as error:
            raise ConnectionError("the connection was lost") from error

    async def readline(self) -> bytes:
        """Return the next line with its end; what there is of it where nothing more comes."""
        while b"\n" not in self._come:
            if len(self._come) > _LONGEST_LINE:
                raise ValueError(f"a line is longer than {_LONGEST_LINE} bytes")
            try:
                piece = await self._stream.receive_some(_PIECE)
            except self._trio.BrokenResourceError as error:
                raise ConnectionError("the connection was lost") from error
            if not piece:
                rest, self._come = self._come, b""
                return rest
            self._come += piece
        line, _, self._come = self._come.partition(b"\n")
        return line + b"\n"

    async def abort(self) -> None:
        """Hang up, without waiting for what the other side may still want to say."""
        await self._trio.aclose_forcefully(self._tcp)
