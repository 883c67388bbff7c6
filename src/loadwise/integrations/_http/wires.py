"""Network streams of httpcore's connections, watched by their pool.

It tells whether anything of a request was sent and of an answer received, and holds every wait to
the deadline of the request, which httpcore itself would begin again with each piece that comes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["AsyncWire", "SyncWire", "TimeLeft", "Wire"]

_SHORTEST_WAIT = 0.001
_PHASES = ("connect", "read", "write", "pool")

# Streams and backends are Any: they are those of either of two packages.


class TimeLeft(dict[str, float | None]):
    """The timeouts of a request, none of which outlasts its deadline.

    Args:
        timeouts: The timeouts by phase, in seconds.
        left: Returns the seconds until the deadline.

    Read as a whole it tells what was left when it was made; asked for one phase, what is left now.
    """

    def __init__(self, timeouts: Mapping[str, float | None], left: Callable[[], float]) -> None:
        self._own = dict(timeouts)
        self._left: Callable[[], float] | None = left
        super().__init__((phase, self.cap(timeouts.get(phase))) for phase in _PHASES)

    def cap(self, timeout: float | None) -> float | None:
        """Return a timeout, or what is left to the deadline if that is less."""
        if self._left is None:
            return timeout
        # Whatever came before may have used it up by now, and sockets refuse less than nothing.
        left = max(self._left(), _SHORTEST_WAIT)
        return left if timeout is None else min(timeout, left)

    def get(self, phase: str, default: Any = None) -> Any:
        """Return the timeout of a phase that begins now."""
        return self.cap(self._own.get(phase, default))

    def __getitem__(self, phase: str) -> float | None:
        return self.cap(self._own.get(phase))

    def lift(self) -> None:
        """Forget the deadline: what comes now is not held to it."""
        self._left = None
        self.update(self._own)


class Wire:
    """Base of the sync and the async wire.

    Attributes:
        sent: Whether anything of the present request has been sent.
        received: Whether anything of its answer has come.
    """

    __slots__ = ("_backend", "_stream", "_time", "received", "sent")

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._stream: Any = None
        self._time: TimeLeft | None = None
        self.sent = False
        self.received = False

    def begin(self, timeouts: object) -> None:
        """Record that a request begins, with these timeouts."""
        self.sent = self.received = False
        self._time = timeouts if isinstance(timeouts, TimeLeft) else None

    def _capped(self, timeout: float | None) -> float | None:
        return timeout if self._time is None else self._time.cap(timeout)

    def get_extra_info(self, info: str) -> Any:
        """Return what the stream tells of itself; ``None`` before there is one."""
        return None if self._stream is None else self._stream.get_extra_info(info)


class SyncWire(Wire):
    """A network backend for one connection, and its stream."""

    __slots__ = ()

    def connect_tcp(self, *args: Any, **kwargs: Any) -> SyncWire:
        """Connect."""
        self._stream = self._backend.connect_tcp(*args, **kwargs)
        return self

    def start_tls(self, *args: Any, **kwargs: Any) -> SyncWire:
        """Go on by TLS."""
        self._stream = self._stream.start_tls(*args, **kwargs)
        return self

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what comes."""
        data: bytes = self._stream.read(max_bytes, self._capped(timeout))
        if data:
            self.received = True
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all."""
        self._stream.write(buffer, self._capped(timeout))
        self.sent = True

    def close(self) -> None:
        """Hang up."""
        self._stream.close()


class AsyncWire(Wire):
    """A network backend for one connection, and its stream."""

    __slots__ = ()

    async def connect_tcp(self, *args: Any, **kwargs: Any) -> AsyncWire:
        """Connect."""
        self._stream = await self._backend.connect_tcp(*args, **kwargs)
        return self

    async def start_tls(self, *args: Any, **kwargs: Any) -> AsyncWire:
        """Go on by TLS."""
        stream = self._stream
        try:
            self._stream = await stream.start_tls(*args, **kwargs)
        except BaseException:
            # Whoever is cancelled here would leave it open: it is no part of a connection yet.
            with import_module("anyio").CancelScope(shield=True):
                await stream.aclose()
            raise
        return self

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's
        """Read what comes."""
        data: bytes = await self._stream.read(max_bytes, self._capped(timeout))
        if data:
            self.received = True
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's
        """Send all."""
        await self._stream.write(buffer, self._capped(timeout))
        self.sent = True

    async def aclose(self) -> None:
        """Hang up."""
        await self._stream.aclose()
