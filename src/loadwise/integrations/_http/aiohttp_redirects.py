"""Redirects and cookies of nodes in aiohttp, mapped back to what was asked for.

aiohttp keeps to itself the timer that tells the requests of one call of a session. Should it go,
tests say so.
"""

from __future__ import annotations

from threading import Lock
from typing import NamedTuple
from weakref import WeakKeyDictionary

from aiohttp import ClientRequest, ClientResponse, ClientSession
from aiohttp.hdrs import AUTHORIZATION, HOST
from yarl import URL

from loadwise.integrations._http.aiohttp_headers import replace_headers
from loadwise.integrations._http.aiohttp_twins import twin_of
from loadwise.integrations._http.mapping import Foreign, Mapper, Route

__all__ = ["AiohttpRedirects", "RedirectNote"]

_PLACES = ("Location", "Content-Location", "Set-Cookie", "URI")
_FOLLOWED = frozenset({301, 302, 303, 307, 308})


class RedirectNote(NamedTuple):
    """A redirect out of the fleet, for the requests that the same call of a session sends next.

    Attributes:
        timer: The timer of that call, which is kept so that no other one has its address.
        foreign: Where it leads.
        credentials: The ``Authorization`` that the fleet was asked with.
    """

    timer: object
    foreign: Foreign
    credentials: str | None


# Nobody tells when a call is over. But a session follows a redirect at once, so never are so many
# calls at that point together.
_MOST_NOTES = 4096


class AiohttpRedirects:
    """Maps responses back, and knows the requests that follow a redirect out of the fleet.

    Args:
        mapper: Who maps; ``None`` to leave all as it is.

    Thread-safety: full; what belongs to a session is touched in its event loop alone.
    """

    def __init__(self, mapper: Mapper | None) -> None:
        self._mapper = mapper
        # By session, and there by the address of the timer in memory, the oldest first.
        self._notes: WeakKeyDictionary[ClientSession, dict[int, RedirectNote]] = WeakKeyDictionary()
        self._has_notes = False
        self._lock = Lock()

    def note_of(self, request: ClientRequest) -> RedirectNote | None:
        """Return the note that a request follows out of the fleet; ``None`` if it stays."""
        if not self._has_notes:
            return None
        timer = request._timer  # noqa: SLF001 - see the module's docstring
        note = self._notes.get(request.session, {}).get(id(timer))
        if note is None:
            return None
        follows = note.foreign.is_followed_by(_origin(request.url), str(request.url))
        return note if follows else None

    def outbound(self, request: ClientRequest, note: RedirectNote) -> ClientRequest:
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
        note: RedirectNote | None = None,
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
            timer = request._timer  # noqa: SLF001 - see the module's docstring
            self._take_note(request.session, RedirectNote(timer, foreign, given))

    def _take_note(self, session: ClientSession, note: RedirectNote) -> None:
        with self._lock:
            notes = self._notes.setdefault(session, {})
            self._has_notes = True
        notes.pop(id(note.timer), None)
        notes[id(note.timer)] = note
        if len(notes) > _MOST_NOTES:
            del notes[next(iter(notes))]


def _spelled(url: str, request: ClientRequest) -> str:
    """Return a URL as the session will spell it, without a fragment."""
    quoted = getattr(request.session, "_requote_redirect_url", True)
    try:
        return str(URL(url, encoded=not quoted).with_fragment(None))
    except ValueError:
        return url  # the session will refuse it


def _origin(url: URL) -> str:
    return str(url.origin())
