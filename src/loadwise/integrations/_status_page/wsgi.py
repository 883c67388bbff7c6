"""Status page as a WSGI application."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any, Final

from loadwise._fork import ForkAware, reset_in_child
from loadwise.integrations._status_page.actions import MOST_BODY
from loadwise.integrations._status_page.answers import PageRequest
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

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

__all__ = ["STREAMS", "WsgiPage"]

STREAMS: Final = "loadwise.status_page.streams"
"""Name in the environment by which a server says that a request may keep its thread for long."""
_LEAST_WAIT: Final = 0.02


class WsgiPage(ForkAware):
    """Serves a site by WSGI.

    A stream would keep a worker of the server for one viewer. So a viewer is given one event, and
    asks for the next after a second. Only this page's own server, which has a thread for each
    connection, streams.

    Args:
        site: The site.

    Thread-safety: full.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._after_fork()
        reset_in_child(self)

    def _after_fork(self) -> None:
        self._streams = BoundedSemaphore(MOST_STREAMS)

    def serve(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, as the server asks for it."""
        request = _request_of(environ)
        if wants_body(request):
            request = _request_of(environ, _body(environ))
        if (
            request.path == EVENTS
            and request.method == "GET"
            and environ.get(STREAMS)
            and self._streams.acquire(blocking=False)
        ):
            start_response("200 OK", list(EVENT_HEADERS))
            return self._stream(PageQuery.of(request.query))
        answer = self._site.answer(request)
        reason = HTTPStatus(answer.status).phrase
        start_response(f"{answer.status} {reason}", list(answer.headers))
        return [b"" if request.method == "HEAD" else answer.body]

    def _stream(self, query: PageQuery) -> Iterator[bytes]:
        end = time.monotonic() + STREAM_SECONDS
        shown = 0
        try:
            yield RETRY_SOON
            while True:
                number, event = self._site.event(query)
                if number != shown:
                    shown = number
                    yield event
                wait = max(_LEAST_WAIT, self._site.feed.due_in())
                if time.monotonic() + wait > end:
                    return
                time.sleep(wait)
        finally:
            self._streams.release()


def _request_of(environ: dict[str, Any], body: bytes = b"") -> PageRequest:
    headers = {
        name[5:].replace("_", "-").lower(): str(value)
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    headers["content-type"] = environ.get("CONTENT_TYPE", "")
    return PageRequest(
        method=environ["REQUEST_METHOD"].upper(),
        path=environ.get("PATH_INFO", ""),
        mount=environ.get("SCRIPT_NAME", "").rstrip("/"),
        query=environ.get("QUERY_STRING", ""),
        headers=headers,
        body=body,
        client=environ.get("REMOTE_ADDR", ""),
    )


def _body(environ: dict[str, Any]) -> bytes:
    """Return the body, as far as a form may be long and a byte more."""
    length = environ.get("CONTENT_LENGTH") or "0"
    if not (length.isascii() and length.isdigit()):
        return b""
    body: bytes = environ["wsgi.input"].read(min(int(length[:9]), MOST_BODY + 1))
    return body
