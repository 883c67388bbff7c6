"""Redirects and cookies of nodes in httpx and httpx2, mapped back to what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loadwise.integrations._http.httpx_twins import twin_of
from loadwise.integrations._http.mapping import Foreign, Mapper, Route
from loadwise.integrations._http.reading_limits import deadline_of
from loadwise.integrations._http.wires import TimeLeft

__all__ = ["HttpxRedirects"]

# A client gives a request's extensions to the request by which it follows a redirect.
_NOTE = "loadwise.foreign"


class HttpxRedirects:
    """Maps responses back, and knows the requests that follow a redirect out of the fleet.

    Args:
        module: The package.
        access: How to read headers.
        mapper: Who maps; ``None`` to leave all as it is.

    Thread-safety: full.
    """

    def __init__(self, module: Any, access: Any, mapper: Mapper | None) -> None:
        self._module = module
        self._access = access
        self._mapper = mapper

    def lead_out(self, request: Any) -> bool:
        """Tell whether a request follows a redirect out of the fleet."""
        note: Foreign | None = request.extensions.get(_NOTE)
        return note is not None and note.is_followed_by(
            _origin(request.url), str(_without_fragment(request.url))
        )

    def outbound(self, request: Any, clock: Callable[[], float]) -> Any:
        """Return a request out of the fleet as it is sent, by the deadline of the first."""
        outbound = twin_of(request)
        extensions = outbound.extensions
        del extensions[_NOTE]
        extensions.pop("loadwise", None)
        ends = deadline_of(request)
        if ends is not None:
            given = extensions.get("timeout", {})
            extensions["timeout"] = TimeLeft(given, lambda: ends - clock())
        return outbound

    def arrived(self, response: Any, request: Any, outbound: Any) -> None:
        """Complete a response from outside, which may lead back in, or further away."""
        response.extensions["loadwise"] = {"node": None, "attempts": 1}
        self.map_back(response, request, outbound, None, request.extensions[_NOTE].asked)

    def map_back(
        self, response: Any, request: Any, outbound: Any, base: str | None, asked: str | None = None
    ) -> None:
        """Change a response to what it means for who asked.

        Args:
            response: The response.
            request: The request, with an absolute URL; it is noted there if a redirect leads out.
            outbound: The request as it was sent.
            base: The base URL of the node; ``None`` for a response from outside.
            asked: The origin that was asked for, if that is not the request's.
        """
        if self._mapper is None or not self._access.has_places(response.headers):
            return
        asked = asked or _origin(request.url)
        host = outbound.headers.get("host", "")
        route = Route(asked, str(outbound.url), host, base)
        raw = response.headers.raw
        rows, outside = self._mapper.mapped(
            ((name.decode("latin-1"), value.decode("latin-1")) for name, value in raw), route
        )
        response.headers = self._module.Headers(
            [(name.encode("latin-1"), value.encode("latin-1")) for name, value in rows]
        )
        if outside is not None and response.has_redirect_location:
            try:
                url = str(_without_fragment(self._module.URL(outside)))
            except self._module.InvalidURL:
                url = outside  # the client will refuse it
            request.extensions = {**request.extensions, _NOTE: Foreign(asked, url)}


def _origin(url: Any) -> str:
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _without_fragment(url: Any) -> Any:
    return url.copy_with(fragment=None) if url.fragment else url
