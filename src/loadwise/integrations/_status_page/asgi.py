"""Status page as an ASGI application."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from weakref import WeakKeyDictionary

from loadwise._fork import ForkAware, reset_in_child
from loadwise.integrations._status_page.actions import MOST_BODY
from loadwise.integrations._status_page.answers import PageAnswer, PageRequest
from loadwise.integrations._status_page.query import PageQuery
from loadwise.integrations._status_page.site import (
    EVENT_HEADERS,
    EVENTS,
    MOST_STREAMS,
    RETRY_SOON,
    STREAM_SECONDS,
    Site,
    wants_body,
)

__all__ = ["AsgiPage", "Receive", "Scope", "Send"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
_Event = tuple[int, bytes]

_LEAST_WAIT: Final = 0.02
_LONGEST_WAIT: Final = 0.5
"""Seconds after which a stream looks again whether the server stops."""


class AsgiPage(ForkAware):
    """Serves a site by ASGI.

    Snapshots and HTML are made in a thread of its own, one at a time: the event loop never waits
    for them, nor does anybody else's thread pool. Viewers of the same nodes share what was made.

    Args:
        site: The site.

    Thread-safety: it may serve several event loops.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._after_fork()
        reset_in_child(self)

    def _after_fork(self) -> None:
        self._thread = ThreadPoolExecutor(1, "loadwise-status-page")
        self._streams = 0
        self._making: WeakKeyDictionary[
            asyncio.AbstractEventLoop, dict[PageQuery, asyncio.Future[_Event]]
        ] = WeakKeyDictionary()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as the server asks for it."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
        elif scope["type"] == "http":
            await self._serve_http(scope, receive, send)

    async def _serve_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = _request_of(scope)
        if wants_body(request):
            body = await _body(receive)
            if body is None:  # the client has gone
                return
            request = _request_of(scope, body)
        if request.path == EVENTS and request.method == "GET" and self._streams < MOST_STREAMS:
            self._streams += 1
            try:
                await self._stream(PageQuery.of(request.query), receive, send)
            finally:
                self._streams -= 1
            return
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._thread, self._site.answer, request)
        await _send(answer, send, with_body=request.method != "HEAD")

    async def _stream(self, query: PageQuery, receive: Receive, send: Send) -> None:
        """Send an event for each snapshot, until the viewer has gone or it is time."""
        loop = asyncio.get_running_loop()
        end = loop.time() + STREAM_SECONDS
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await send(_start(200, EVENT_HEADERS))
            await send({"type": "http.response.body", "body": RETRY_SOON, "more_body": True})
            shown = 0
            while not gone.done() and not _server_stops():
                if not self._site.feed.due_in() or not shown:
                    number, event = await self._event(loop, query)
                    if number != shown:
                        shown = number
                        message = {"type": "http.response.body", "body": event, "more_body": True}
                        # Whoever reads nothing for so long is given up.
                        await asyncio.wait_for(send(message), STREAM_SECONDS)
                wait = max(_LEAST_WAIT, self._site.feed.due_in())
                if loop.time() + wait > end:
                    break
                await asyncio.wait([gone], timeout=min(wait, _LONGEST_WAIT))
            if not gone.done():
                await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            return
        finally:
            gone.cancel()

    async def _event(self, loop: asyncio.AbstractEventLoop, query: PageQuery) -> _Event:
        """Return the event for a choice of nodes; those who ask at once get the same."""
        making = self._making.setdefault(loop, {})
        future = making.get(query)
        if future is None:
            future = loop.run_in_executor(self._thread, self._site.event, query)
            making[query] = future
            future.add_done_callback(lambda _: making.pop(query, None))
        # A viewer that leaves takes it from nobody else.
        return await asyncio.shield(future)


def _request_of(scope: Scope, body: bytes = b"") -> PageRequest:
    mount: str = scope.get("root_path", "").rstrip("/")
    path: str = scope["path"]
    # Servers differ in whether the path has the part that belongs to the mount.
    if mount and (path == mount or path.startswith(f"{mount}/")):
        path = path[len(mount) :]
    client = scope.get("client")
    return PageRequest(
        method=scope["method"].upper(),
        path=path,
        mount=mount,
        query=scope.get("query_string", b"").decode("latin-1"),
        headers={
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        },
        body=body,
        client=str(client[0]) if client else "",
    )


async def _body(receive: Receive) -> bytes | None:
    """Return the body, as far as a form may be long and a byte more; ``None`` if it broke off."""
    parts, length, more = list[bytes](), 0, True
    while more and length <= MOST_BODY:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part: bytes = message.get("body", b"")
        parts.append(part)
        length += len(part)
        more = bool(message.get("more_body"))
    return b"".join(parts)[: MOST_BODY + 1]


def _server_stops() -> bool:
    """Tell whether the server is about to stop, as far as it lets on.

    uvicorn waits for all streams before it tells applications of its end. The handler of signals
    is a method of the server, which has ``should_exit`` from then on.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        server = getattr(signal.getsignal(number), "__self__", None)
        if getattr(server, "should_exit", False) is True:
            return True
    return False


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(answer: PageAnswer, send: Send, *, with_body: bool) -> None:
    await send(_start(answer.status, answer.headers))
    await send({"type": "http.response.body", "body": answer.body if with_body else b""})


def _start(status: int, headers: tuple[tuple[str, str], ...]) -> Message:
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return {"type": "http.response.start", "status": status, "headers": encoded}


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
