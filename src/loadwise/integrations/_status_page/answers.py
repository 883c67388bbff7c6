"""Requests and answers of a page, as ASGI and WSGI have them in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["PageAnswer", "PageRequest", "text_answer"]

_EVERYWHERE: Final = (
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Request to a page.

    Attributes:
        method: The method, in capitals.
        path: The path below the page's own, such as ``"/status.json"``; empty for the page's own
            without a slash at its end.
        mount: The page's own path, such as ``"/ops/status"``; empty at the root.
        query: The query string.
        headers: The headers, by name in small letters.
        body: The body, as far as it was read.
        client: Who asks, for the log.
    """

    method: str
    path: str
    mount: str = ""
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    client: str = ""


@dataclass(frozen=True, slots=True)
class PageAnswer:
    """Answer of a page.

    Attributes:
        status: The status.
        headers: The headers, with names in small letters.
        body: The body.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @classmethod
    def of(cls, status: int, kind: str, body: bytes, *headers: tuple[str, str]) -> PageAnswer:
        """Return an answer with the headers that all of them have."""
        always = (("content-type", kind), ("content-length", str(len(body))), *_EVERYWHERE)
        return cls(status, (*always, *headers), body)


def text_answer(status: int, text: str, *headers: tuple[str, str]) -> PageAnswer:
    """Return an answer of one line of text."""
    body = f"{text}\n".encode("utf-8", "backslashreplace")
    return PageAnswer.of(status, "text/plain; charset=utf-8", body, *headers)
