"""The default sender of the asynchronous transports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable
from importlib import import_module
from typing import Any

from loadwise.balancer import Balancer
from loadwise.integrations._http.iterating import iterating
from loadwise.integrations._http.pooled import MOST_CONNECTIONS, Pooled
from loadwise.integrations._http.pools import Key, Link, PoolWaiter
from loadwise.integrations._http.stale import Trail, was_unsent
from loadwise.integrations._http.wires import AsyncWire

__all__ = ["AsyncPooled"]


class AsyncPooled(Pooled):
    """Sends requests by connections that it keeps for each origin apart. For one event loop."""

    connection_type = "AsyncHTTPConnection"
    backend_type = "AnyIOBackend"
    wire_type = AsyncWire

    def __init__(self, module: Any, balancer: Balancer[Any], limits: Any, *, http2: bool) -> None:
        super().__init__(module, balancer, limits, http2=http2)
        # The packages bring it along, for asynchronous clients alone.
        self._anyio: Any = import_module("anyio")
        self._stream = type("PooledStream", (_AsyncPooledStream, module.AsyncByteStream), {})

    async def send(self, request: Any, way: Hashable, *, fresh: bool = False) -> Any:
        """Send a request; raise an error of the package where there is no response."""
        self._look_around()
        key, translated, trail = self._translated(request, request.url)
        timeouts = translated.extensions.get("timeout", {})
        left: Exception | None = None
        for _ in range(MOST_CONNECTIONS):
            link = await self._link(key, way, timeouts, fresh=fresh)
            try:
                link.wire.begin(None if link.shared else timeouts)
                response = await link.connection.handle_async_request(translated)
            except self._core.ConnectionNotAvailable:
                # A server has ended it by a GOAWAY, or it does not speak HTTP/2 after all.
                self._was_unavailable(link)
                await self._end(link)
            except Exception as error:
                made = self._unanswered(error, link, trail)
                await self._end(link)
                if made is None:
                    raise
                if not was_unsent(made):
                    raise made from made.__cause__
                left = made
            except BaseException:
                await self._end(link)
                raise
            else:
                return self._answer(response, link)
        raise left or self._module.ConnectError(
            f"{request.url.netloc.decode()} has ended {MOST_CONNECTIONS} connections, one after "
            f"another, before it answered"
        )

    async def elsewhere(self, request: Any) -> Any:
        """Send a request that is for no node."""
        return await self.send(request, None)

    async def aclose(self) -> None:
        """Close all connections."""
        self._pool.clear()
        await self._close_doomed()

    def _seen_by(self, trail: Trail) -> Any:
        return trail.see_async

    async def _link(self, key: Key, owner: Hashable, timeouts: Any, *, fresh: bool) -> Link:
        found = self._pool.take(key, owner, None, fresh=fresh)
        if found is None:
            event = self._anyio.Event()
            found = self._pool.take(key, owner, event.set, fresh=fresh)
            if isinstance(found, PoolWaiter):
                found = await self._wait(found, event, timeouts.get("pool"))
        try:
            await self._close_doomed()
        except BaseException:
            if isinstance(found, Link):
                self._pool.give_back(found)
            raise
        if not isinstance(found, Link):
            raise self._module.PoolTimeout("all connections are in use (max_connections)")
        return found

    async def _wait(self, waiter: PoolWaiter, event: Any, seconds: float | None) -> Link | None:
        try:
            with self._anyio.move_on_after(seconds):
                await event.wait()
                return waiter.link
        except BaseException:
            self._pool.leave(waiter)
            await self._close_doomed()
            raise
        self._pool.leave(waiter)
        return None

    async def _end(self, link: Link) -> None:
        self._pool.give_back(link)
        self._look_around()
        await self._close_doomed()

    async def _close_doomed(self) -> None:
        doomed = self._pool.doomed
        if doomed:
            with self._anyio.CancelScope(shield=True):
                while doomed:
                    await doomed.popleft().aclose()


class _AsyncPooledStream:
    """A response's body, whose connection is given back at its end."""

    def __init__(self, stream: Any, link: Link, pooled: AsyncPooled) -> None:
        self._stream = stream
        self._link = link
        self._pooled = pooled
        self._open = [None]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async with iterating(self._stream) as pieces:
                async for piece in pieces:
                    yield piece
        except Exception as error:
            made = self._pooled.error_for(error)
            if made is None:
                raise
            raise made from made.__cause__

    async def aclose(self) -> None:
        """Give the connection back."""
        try:
            await self._stream.aclose()
        finally:
            if self._open:
                self._open.pop()
                await self._pooled._end(self._link)  # noqa: SLF001 - its other half
