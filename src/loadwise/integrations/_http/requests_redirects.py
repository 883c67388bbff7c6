"""Redirects and cookies of nodes in requests, mapped back to what was asked for.

Responses keep the cookies that a session takes from them in the message of http.client, which
requests and urllib3 know under names of their own. Should they go, tests say so.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Iterable
from http.client import HTTPMessage
from operator import methodcaller
from typing import Any
from urllib.parse import urldefrag, urlsplit

from requests import PreparedRequest, Response
from requests.cookies import RequestsCookieJar, extract_cookies_to_jar
from requests.structures import CaseInsensitiveDict
from requests.utils import requote_uri
from urllib3 import HTTPHeaderDict

from loadwise.integrations._http.mapping import Foreign, Mapper, Route

__all__ = [
    "RequestNote",
    "RequestsRedirects",
    "attribute",
    "host_of",
    "names_places",
    "note_of",
    "noted",
    "replace_headers",
    "take_cookies",
]

_PLACES = frozenset({"location", "content-location", "set-cookie", "set-cookie2", "uri"})
_LOWER = methodcaller("lower")


class RequestNote:
    """Note on a request, for those that a session makes of it.

    A copy of a request has its hooks, so it is one that does nothing. By a redirect, or with
    credentials after a challenge, a session sends such a copy.

    Attributes:
        ends: The deadline of the request; ``None`` without one.
        challenger: The node that has asked for credentials.
        foreign: Where a redirect has led out of the fleet.
    """

    def __init__(self) -> None:
        self._first: weakref.ref[PreparedRequest] | None = None
        self.ends: float | None = None
        self.challenger: Hashable = None
        self.foreign: Foreign | None = None

    def __call__(self, response: Response, **_kwargs: object) -> None:
        """Leave a response as it is."""

    def __reduce__(self) -> tuple[type[RequestNote], tuple[()]]:
        # A response takes its request along when it is pickled, and is sent no more.
        return (RequestNote, ())

    def deadline_of(self, request: PreparedRequest) -> float | None:
        """Return the deadline of the request that this one was made of, if there is one."""
        return None if self._first is not None and self._first() is request else self.ends

    def begin(self, request: PreparedRequest, ends: float | None) -> None:
        """Have requests that are made of this one end when it does."""
        self._first = weakref.ref(request)
        self.ends = ends


def note_of(request: PreparedRequest) -> RequestNote | None:
    """Return the note on a request, if there is one."""
    hooks: Any = request.hooks
    for hook in hooks["response"]:
        if isinstance(hook, RequestNote):
            return hook
    return None


def noted(request: PreparedRequest) -> RequestNote:
    """Return the note on a request, which may be new."""
    found = note_of(request)
    if found is None:
        found = RequestNote()
        hooks: Any = request.hooks
        hooks["response"].append(found)
    return found


class RequestsRedirects:
    """Maps responses back, and knows the requests that follow a redirect out of the fleet.

    Args:
        mapper: Who maps; ``None`` to leave all as it is.

    Thread-safety: full.
    """

    def __init__(self, mapper: Mapper | None) -> None:
        self._mapper = mapper

    @staticmethod
    def foreign_of(request: PreparedRequest, note: RequestNote) -> Foreign | None:
        """Return the redirect out of the fleet that a request follows, if it does."""
        foreign = note.foreign
        if foreign is None:
            return None
        url = urldefrag(str(request.url)).url
        return foreign if foreign.is_followed_by(_origin(url), url) else None

    def map_back(
        self,
        response: Response,
        request: PreparedRequest,
        outbound: PreparedRequest,
        base: str | None,
        asked: str | None = None,
    ) -> None:
        """Change a response to what it means for who asked.

        Args:
            response: The response.
            request: The request; it is noted there if a redirect leads out.
            outbound: The request as it was sent.
            base: The base URL of the node; ``None`` for a response from outside.
            asked: The origin that was asked for, if that is not the request's.
        """
        headers = response.raw.headers
        if self._mapper is not None:
            asked = asked or _origin(str(request.url))
            sent = str(outbound.url)
            host = outbound.headers.get("Host") or host_of(sent)
            route = Route(asked, sent, str(host), base)
            rows, outside = self._mapper.mapped(headers.iteritems(), route)
            replace_headers(response, rows)
            if outside is not None and response.is_redirect:
                # A session takes the header for UTF-8.
                told = outside.encode("latin-1", "replace").decode("utf-8", "replace")
                noted(request).foreign = Foreign(asked, urldefrag(requote_uri(told)).url)


def names_places(response: Response) -> bool:
    """Tell whether the headers of a response name places, to be mapped, or set cookies there."""
    return not _PLACES.isdisjoint(map(_LOWER, response.raw.headers))


def attribute(response: Any, request: PreparedRequest, adapter: object) -> None:
    """Have a response be one to what was asked for."""
    response.url = request.url
    response.request = request
    response.connection = adapter


def take_cookies(response: Response, request: PreparedRequest) -> None:
    """Have a response set its cookies where it was asked for, and not at its node."""
    response.cookies = RequestsCookieJar()
    extract_cookies_to_jar(response.cookies, request, response.raw)


def replace_headers(response: Response, rows: Iterable[tuple[str, str]]) -> None:
    """Give a response other headers, and the cookies in them."""
    raw: Any = response.raw
    raw.headers = HTTPHeaderDict(rows)
    response.headers = CaseInsensitiveDict(raw.headers)
    message = HTTPMessage()
    for name, value in raw.headers.iteritems():
        message[name] = value
    original = getattr(raw, "_original_response", None)
    if original is not None:
        original.msg = message


def host_of(url: str) -> str:
    """Return host and port of a URL as they stand there."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _origin(url: str) -> str:
    return f"{urlsplit(url).scheme}://{host_of(url)}"
