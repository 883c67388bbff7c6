"""Hash keys of requests, read off their headers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["by_cookie", "by_header"]


def by_header(name: str) -> Callable[[Any], str | None]:
    """Return a ``hash_key`` that is the value of a header; ``None`` for requests without it."""
    return lambda request: request.headers.get(name)


def by_cookie(name: str) -> Callable[[Any], str | None]:
    """Return a ``hash_key`` that is the value of a cookie; ``None`` for requests without it.

    Source: RFC 6265, section 4.2.1, for the header; 5.4 has the most specific of a name come first.
    """

    def read(request: Any) -> str | None:  # a request of whichever package
        # http.cookies gives up at the first cookie that is not to its taste, such as one of JSON,
        # and this one would be lost for what others have set.
        for pair in request.headers.get("cookie", "").split(";"):
            known, equals, value = pair.partition("=")
            if equals and known.strip() == name:
                return str(value.strip(' \t"'))
        return None

    return read
