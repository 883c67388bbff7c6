"""Redirects and cookies of nodes in aiohttp, mapped back to what was asked for.

aiohttp keeps to itself the timer that tells the requests of one call of a session. Should it go,
tests say so.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple

from aiohttp import ClientRequest, ClientResponse
from aiohttp.hdrs import AUTHORIZATION, HOST
from yarl import URL

from loadwise.integrations._http.aiohttp_headers import replace_headers
from loadwise.integrations._http.aiohttp_twins import twin_of
from loadwise.integrations._http.mapping import Foreign, Mapper, Route

__all__ = ["Note", "Redirects"]

_PLACES = ("Location", "Content-Location", "Set-Cookie", "URI")
_FOLLOWED = frozenset({301, 302, 303, 307, 308})


class Note(NamedTuple):
    """A redirect out of the fleet, for the requests that the same call of a session sends next.

    Attributes:
        timer: The timer of that call.
        foreign: Where it leads.
        credentials: The ``Authorization`` that the fleet was asked with.
    """

    timer: object
    foreign: Foreign
    credentials: str | None


# A session follows redirects in the task of its call.
_NOTE: ContextVar[Note | None] = ContextVar("loadwise_foreign", default=None)


class Redirects:
    """Maps responses back, and knows the requests that follow a redirect out of the fleet.

    Args:
        mapper: Who maps; ``None`` to leave all as it is.

    Thread-safety: full.
    """

    def __init__(self, mapper: Mapper | None) -> None:
        self._mapper = mapper

    def note_of(self, request: ClientRequest) -> Note | None:
        """Return the note that a request follows out of the fleet; ``None`` if it stays."""
        note = _NOTE.get()
        if note is None or note.timer is not request._timer:  # noqa: SLF001 - see the module's docstring
            return None
        follows = note.foreign.is_followed_by(_origin(request.url), str(request.url))
        return note if follows else None

    def outbound(self, request: ClientRequest, note: Note) -> ClientRequest:
        """Return a request out of the fleet as it is sent.

        A session with credentials of its own gives them to each request, wherever it goes.
        """
        outbound = twin_of(request)
        if outbound.headers.get(AUTHORIZATION) == note.credentials:
            outbound.headers.pop(AUTHORIZATION, None)
        return outbound

    def map_back(
        self,
        response: ClientResponse,
        request: ClientRequest,
        outbound: ClientRequest,
        base: str | None,
        note: Note | None = None,
    ) -> None:
        """Change a response to what it means for who asked.

        Args:
            response: The response.
            request: The request.
            outbound: The request as it was sent.
            base: The base URL of the node; ``None`` for a response from outside.
            note: What a request to the outside has followed.
        """
        headers = response.headers
        if self._mapper is None or not any(name in headers for name in _PLACES):
            return
        asked = _origin(request.url) if note is None else note.foreign.asked
        route = Route(asked, str(outbound.url), outbound.headers.get(HOST, ""), base)
        rows, outside = self._mapper.mapped(headers.items(), route)
        replace_headers(response, rows)
        if outside is not None and response.status in _FOLLOWED:
            given = request.headers.get(AUTHORIZATION) if note is None else note.credentials
            foreign = Foreign(asked, _spelled(outside, request))
            _NOTE.set(Note(request._timer, foreign, given))  # noqa: SLF001 - see the module's docstring


def _spelled(url: str, request: ClientRequest) -> str:
    """Return a URL as the session will spell it, without a fragment."""
    quoted = getattr(request.session, "_requote_redirect_url", True)
    try:
        return str(URL(url, encoded=not quoted).with_fragment(None))
    except ValueError:
        return url  # the session will refuse it


def _origin(url: URL) -> str:
    return str(url.origin())
