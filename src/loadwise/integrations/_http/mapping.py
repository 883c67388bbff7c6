"""Responses of nodes, told in terms of what was asked for.

A client asks for ``http://service/items`` and knows nothing of nodes and their base paths. A node
that answers "see /v1/items/" means its own URL. If that reached the client as it is, the client
would leave the fleet by it, or go on without its credentials and cookies. So it is mapped back:
what lies under the base URL of any member is the fleet's and gets the origin asked for; all else is
foreign, and is told by its full URL.

It works on strings, and is the same for every HTTP library. It does no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from loadwise._url_paths import confined
from loadwise.integrations._http.member_urls import (
    Base,
    Members,
    Origin,
    base_of,
    below,
    origin_of,
)

__all__ = ["Foreign", "Mapper", "Route"]

# Some clients follow the old name of a Location where there is none.
_REDIRECTS: Final = ("location", "uri")
_PLACES: Final = frozenset({*_REDIRECTS, "content-location"})


class Foreign(NamedTuple):
    """A redirect that leads out of the fleet, as a note for the request that follows it.

    Attributes:
        asked: The origin under which the fleet was asked.
        url: Where it leads, as the library spells it, without a fragment.
    """

    asked: str
    url: str

    def is_followed_by(self, origin: str, url: str) -> bool:
        """Tell whether a request that carries this note follows the redirect out of the fleet.

        Others may carry it, too: the same request again with credentials, or one after a later
        redirect back into the fleet. They have the origin that was asked.
        """
        return origin != self.asked or url == self.url


class Route(NamedTuple):
    """The way that a request has taken, for mapping its response back.

    Attributes:
        asked: The origin that was asked for.
        sent: The URL that the request was sent to.
        host: The ``Host`` that it was sent with.
        base: The base URL of the node that it was sent to; ``None`` if that was no node.
    """

    asked: str
    sent: str
    host: str
    base: str | None


class Mapper:
    """Maps responses back to what was asked for.

    Args:
        members: Where the nodes are.

    Thread-safety: full. Cost: O(length of the headers), and what `Members` says.
    """

    def __init__(self, members: Members) -> None:
        self._members = members

    def mapped(
        self, headers: Iterable[tuple[str, str]], route: Route
    ) -> tuple[list[tuple[str, str]], str | None]:
        """Return the headers of a response as the client is to see them.

        Returns:
            The headers, and the URL outside the fleet to which they redirect, if they do.
        """
        rows: list[tuple[str, str]] = []
        outside: dict[str, str | None] = {}
        for name, value in headers:
            key = name.lower()
            seen = value
            if key in _PLACES:
                seen, is_foreign = self._place(value, route)
                outside.setdefault(key, seen if is_foreign else None)
            elif key == "set-cookie" and route.base is not None:
                seen = self._cookie(value, route, base_of(route.base))
            rows.append((name, seen))
        followed = next((name for name in _REDIRECTS if name in outside), "")
        return rows, outside.get(followed)

    def _place(self, value: str, route: Route) -> tuple[str, bool]:
        """Return the URL that a header names, as the client is to see it, and if it is foreign.

        Source: RFC 9110, section 10.2.2.
        """
        try:
            found = _resolved(value, urlsplit(route.sent))
            origin = origin_of(found)
        except ValueError:  # brackets that hold no address, or a port that is no number
            return value, True
        if origin is None:
            return value, True
        inside = self._inside(origin, confined(found.path) or "/", route)
        if inside is not None:
            rest = found._replace(scheme="", netloc="", path="").geturl()
            return f"{route.asked}{inside}{rest}", False
        is_asked = origin == origin_of(urlsplit(route.asked)) and not self._members.has(origin)
        return found.geturl(), not is_asked

    def _inside(self, origin: Origin, path: str, route: Route) -> str | None:
        """Return where a path is within the fleet; ``None`` if it is not."""
        if route.base is not None:
            base = base_of(route.base)
            # A node goes by the name that it was called by, too.
            if origin in (base.origin, _origin_called(route.host, base.origin.scheme)):
                inside = below(base.segments, path)
                if inside is not None:
                    return inside
        return self._members.below(origin, path)

    def _cookie(self, value: str, route: Route, base: Base) -> str:
        """Return a ``Set-Cookie`` for the origin that was asked for.

        Source: RFC 6265, section 5.2, for the attributes; 5.1.3 and 5.1.4 for what they match.
        """
        pair, *attributes = value.split(";")
        kept = [pair]
        for attribute in attributes:
            name, _, given = attribute.partition("=")
            key, told = name.strip().lower(), given.strip(' \t"')
            if key == "path" and told.startswith("/"):
                kept.append(_path_attribute(attribute, told, base))
            elif not (
                (key == "domain" and self._is_the_nodes(told, route))
                or (key == "secure" and self._is_too_secure(route))
            ):
                kept.append(attribute)
        return ";".join(kept)

    def _is_the_nodes(self, domain: str, route: Route) -> bool:
        """Tell whether a cookie's domain is that of the node and not that of who was asked."""
        asked = urlsplit(route.asked).hostname or ""
        if _matches(asked, domain):
            return False
        called = _origin_called(route.host, "http")
        return _matches(urlsplit(route.sent).hostname or "", domain) or (
            called is not None and _matches(called.host, domain)
        )

    def _is_too_secure(self, route: Route) -> bool:
        """Tell whether a secure cookie would not be sent again, although it would go by TLS."""
        return route.asked.startswith("http:") and self._members.all_secure


def _path_attribute(attribute: str, path: str, base: Base) -> str:
    """Return a cookie's path without the base path; one above that stands for all below it."""
    segments = tuple(unquote(segment) for segment in path.split("/") if segment)
    is_above = segments == base.segments[: len(segments)]
    inside = "/" if is_above else below(base.segments, path)
    return attribute if inside in (None, path) else f" Path={inside}"


def _resolved(value: str, sent: SplitResult) -> SplitResult:
    """Return the full URL that a reference means in a response from a URL.

    Dot segments stay. Source: RFC 3986, section 5.2.2; "http:/path" is read as browsers do.
    """
    found = urlsplit(value)
    if found.netloc:
        return found._replace(scheme=found.scheme or sent.scheme)
    if found.scheme not in ("", sent.scheme):
        return found
    path, query = found.path, found.query
    if not path:
        path = sent.path
        query = query if "?" in value.partition("#")[0] else sent.query
    elif not path.startswith("/"):
        path = sent.path.rpartition("/")[0] + "/" + path
    return sent._replace(path=path, query=query, fragment=found.fragment)


def _origin_called(host: str, scheme: str) -> Origin | None:
    """Return the origin that a ``Host`` header names, if it is a sound one."""
    try:
        return origin_of(urlsplit(f"{scheme}://{host}"))
    except ValueError:
        return None


def _matches(host: str, domain: str) -> bool:
    """Tell whether a cookie of a domain is one of a host."""
    domain = domain.lower().removeprefix(".")
    return bool(domain) and (host == domain or host.endswith("." + domain))
