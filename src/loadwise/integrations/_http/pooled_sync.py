"""The default sender of the synchronous transports."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from threading import Event
from typing import Any

from loadwise.balancer import Balancer
from loadwise.integrations._http.pooled import MOST_CONNECTIONS, Pooled
from loadwise.integrations._http.pools import Key, Link, PoolWaiter
from loadwise.integrations._http.stale import Trail, was_unsent
from loadwise.integrations._http.wires import SyncWire

__all__ = ["SyncPooled"]


class SyncPooled(Pooled):
    """Sends requests by connections that it keeps for each origin apart. Thread-safe."""

    connection_type = "HTTPConnection"
    backend_type = "SyncBackend"
    wire_type = SyncWire

    def __init__(self, module: Any, balancer: Balancer[Any], limits: Any, *, http2: bool) -> None:
        super().__init__(module, balancer, limits, http2=http2)
        self._stream = type("PooledStream", (_SyncPooledStream, module.SyncByteStream), {})

    def send(self, request: Any, way: Hashable, *, fresh: bool = False) -> Any:
        """Send a request; raise an error of the package where there is no response."""
        self._look_around()
        key, translated, trail = self._translated(request, request.url)
        timeouts = translated.extensions.get("timeout", {})
        left: Exception | None = None
        for _ in range(MOST_CONNECTIONS):
            link = self._link(key, way, timeouts, fresh=fresh)
            try:
                link.wire.begin(None if link.shared else timeouts)
                response = link.connection.handle_request(translated)
            except self._core.ConnectionNotAvailable:
                # A server has ended it by a GOAWAY, or it does not speak HTTP/2 after all.
                self._was_unavailable(link)
                self._end(link)
            except Exception as error:
                made = self._unanswered(error, link, trail)
                self._end(link)
                if made is None:
                    raise
                if not was_unsent(made):
                    raise made from made.__cause__
                left = made
            except BaseException:
                self._end(link)
                raise
            else:
                return self._answer(response, link)
        raise left or self._module.ConnectError(
            f"{request.url.netloc.decode()} has ended {MOST_CONNECTIONS} connections, one after "
            f"another, before it answered"
        )

    def elsewhere(self, request: Any) -> Any:
        """Send a request that is for no node."""
        return self.send(request, None)

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()
        self._close_doomed()

    def _seen_by(self, trail: Trail) -> Any:
        return trail.see

    def _link(self, key: Key, owner: Hashable, timeouts: Any, *, fresh: bool) -> Link:
        found = self._pool.take(key, owner, None, fresh=fresh)
        if found is None:
            event = Event()
            found = self._pool.take(key, owner, event.set, fresh=fresh)
            if isinstance(found, PoolWaiter):
                found = self._wait(found, event, timeouts.get("pool"))
        try:
            self._close_doomed()
        except BaseException:
            if isinstance(found, Link):
                self._pool.give_back(found)
            raise
        if not isinstance(found, Link):
            raise self._module.PoolTimeout("all connections are in use (max_connections)")
        return found

    def _wait(self, waiter: PoolWaiter, event: Event, timeout: float | None) -> Link | None:
        try:
            if event.wait(timeout):
                return waiter.link
        except BaseException:
            self._pool.leave(waiter)
            raise
        self._pool.leave(waiter)
        return None

    def _end(self, link: Link) -> None:
        self._pool.give_back(link)
        self._look_around()
        self._close_doomed()

    def _close_doomed(self) -> None:
        doomed = self._pool.doomed
        while doomed:
            try:
                connection = doomed.popleft()
            except IndexError:  # another thread was quicker
                return
            connection.close()


class _SyncPooledStream:
    """A response's body, whose connection is given back at its end."""

    def __init__(self, stream: Any, link: Link, pooled: SyncPooled) -> None:
        self._stream = stream
        self._link = link
        self._pooled = pooled
        self._open = [None]

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except Exception as error:
            made = self._pooled.error_for(error)
            if made is None:
                raise
            raise made from made.__cause__

    def close(self) -> None:
        """Give the connection back."""
        try:
            self._stream.close()
        finally:
            if self._open:
                self._open.pop()
                self._pooled._end(self._link)  # noqa: SLF001 - its other half
