"""Headers that are read off each request and response, and the one that is changed.

The ``Headers`` of httpx and httpx2 decode themselves as a whole for every look-up by name, and
look through themselves again for a change; that would be an eighth of what a balanced request costs
beyond a bare one. The rows they keep to themselves, ``_list``, tell the same at a glance: the name
as it came, the name in lower case, the value, all bytes. `ByRow` uses them; `ByName` does the same
by public methods, for a version that keeps no such rows.
"""

from __future__ import annotations

from typing import Any

__all__ = ["ByName", "ByRow", "access_to"]

# Headers are Any: they are those of either package.

_PLACES = ("location", "content-location", "set-cookie")
_RAW_PLACES = frozenset(name.encode("ascii") for name in _PLACES)


class ByName:
    """Access by public methods."""

    @staticmethod
    def length(headers: Any) -> int | None:
        """Return the ``Content-Length``; ``None`` if there is none, or it is no number."""
        value = headers.get("content-length", "")
        return int(value) if value.isdecimal() else None

    @staticmethod
    def has_places(headers: Any) -> bool:
        """Tell whether some tell of URLs or set cookies."""
        return any(name in headers for name in _PLACES)

    @staticmethod
    def readdress(headers: Any, asked: bytes, target: bytes) -> None:
        """Let the ``Host`` be the target's, unless it is not what was asked for by the URL."""
        if headers.get("host", "") == asked.decode("ascii"):
            headers["host"] = target.decode("ascii")


class ByRow:
    """Access to the rows themselves."""

    @staticmethod
    def length(headers: Any) -> int | None:
        """Return the ``Content-Length``; ``None`` if there is none, or it is no number."""
        for _, name, value in headers._list:  # noqa: SLF001 - see the module's docstring
            if name == b"content-length":
                return int(value) if value.isdigit() else None
        return None

    @staticmethod
    def has_places(headers: Any) -> bool:
        """Tell whether some tell of URLs or set cookies."""
        rows = headers._list  # noqa: SLF001 - see the module's docstring
        return not _RAW_PLACES.isdisjoint([row[1] for row in rows])

    @staticmethod
    def readdress(headers: Any, asked: bytes, target: bytes) -> None:
        """Let the ``Host`` be the target's, unless it is not what was asked for by the URL."""
        rows = headers._list  # noqa: SLF001 - see the module's docstring
        # A client puts the Host that it derives from the URL first.
        if rows and rows[0][1] == b"host" and rows[0][2] == asked:
            rows[0] = (b"Host", b"host", target)
        else:
            ByName.readdress(headers, asked, target)


def access_to(headers: type[Any]) -> type[ByName | ByRow]:
    """Return the quickest access that a class of headers allows."""
    rows = getattr(headers([(b"Host", b"a")]), "_list", None)
    return ByRow if rows == [(b"Host", b"host", b"a")] else ByName
