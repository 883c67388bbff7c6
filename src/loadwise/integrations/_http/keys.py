"""What a request belongs to, read off its headers."""

from __future__ import annotations

from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any

__all__ = ["by_cookie", "by_header"]


def by_header(name: str) -> Callable[[Any], str | None]:
    """Return a ``hash_key`` that is the value of a header; ``None`` for requests without it."""
    return lambda request: request.headers.get(name)


def by_cookie(name: str) -> Callable[[Any], str | None]:
    """Return a ``hash_key`` that is the value of a cookie; ``None`` for requests without it."""

    def read(request: Any) -> str | None:  # a request of whichever package
        try:
            morsel = SimpleCookie(request.headers.get("cookie", "")).get(name)
        except CookieError:
            return None
        return None if morsel is None else morsel.value

    return read
