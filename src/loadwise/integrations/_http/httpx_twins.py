"""Copies of requests of httpx and httpx2, each with a state of its own."""

from __future__ import annotations

from typing import Any

__all__ = ["give_body", "twin_of"]


def twin_of(request: Any) -> Any:
    """Return a copy of a request; what changes one does not change the other.

    Its body is the same object, because bodies do not change. The constructor would lose the
    content that has been read, and ``copy.copy`` would pickle, and lose the stream.
    """
    twin: Any = object.__new__(request.__class__)
    twin.__dict__.update(request.__dict__)
    twin.headers = request.headers.__class__(request.headers)
    twin.extensions = {name: _own(value) for name, value in request.extensions.items()}
    return twin


def _own(value: Any) -> Any:
    return value.copy() if value.__class__ is dict else value


def give_body(request: Any, body: bytes) -> None:
    """Give a request another body, and the length of it. The old one has been read."""
    request.stream = request.stream.__class__(body)
    request._content = body  # noqa: SLF001 - who reads it again is to find this one
    request.headers["content-length"] = str(len(body))
