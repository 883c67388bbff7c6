"""Headers of aiohttp's responses, changed.

aiohttp keeps to itself what this needs: a response's headers, their copies, and its cookies. Should
they go, tests say so.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from typing import Any

from aiohttp import ClientResponse
from multidict import CIMultiDict, CIMultiDictProxy

__all__ = ["replace_headers"]


def replace_headers(response: Any, rows: Iterable[tuple[str, str]]) -> None:
    """Give a response other headers, and the cookies in them."""
    headers = CIMultiDict(rows)
    response._headers = CIMultiDictProxy(headers)  # noqa: SLF001 - see the module's docstring
    response._raw_headers = tuple(  # noqa: SLF001 - see the module's docstring
        (name.encode("utf-8", "surrogateescape"), value.encode("utf-8", "surrogateescape"))
        for name, value in headers.items()
    )
    for name in ("headers", "raw_headers"):
        response._cache.pop(name, None)  # noqa: SLF001 - see the module's docstring
    cookies = tuple(headers.getall("Set-Cookie", ()))
    # Older versions keep them parsed, and no raw ones.
    keeps_raw = hasattr(ClientResponse, "_raw_cookie_headers")
    response._cookies = None if keeps_raw else _parsed(cookies)  # noqa: SLF001 - see the module's docstring
    response._raw_cookie_headers = cookies or None  # noqa: SLF001 - see the module's docstring


def _parsed(values: Iterable[str]) -> SimpleCookie:
    cookies = SimpleCookie()
    for value in values:
        with suppress(CookieError):
            cookies.load(value)
    return cookies
