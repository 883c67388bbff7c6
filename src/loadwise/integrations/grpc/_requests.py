"""Requests of a call, serialized here: what goes wrong with them is no node's doing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Self

from grpc import StatusCode

from loadwise.integrations.grpc._errors import CallError

__all__ = ["Messages", "is_repeatable", "serialized"]

Serializer = Callable[[Any], bytes]


def serialized(request: Any, serializer: Serializer | None) -> Any:
    """Return a request message as bytes.

    Raises:
        CallError: It cannot be made bytes; with the words that gRPC has for it.
    """
    if serializer is None:
        return request
    try:
        return serializer(request)
    except Exception as error:
        raise CallError(StatusCode.INTERNAL, "Exception serializing request!") from error


def is_repeatable(requests: Any) -> bool:
    """Tell whether a stream of requests can be begun again, as a list can and a generator not."""
    return hasattr(requests, "__len__") and hasattr(requests, "__iter__")


class Messages:
    """Stream of request messages, as bytes, that tells whether its source has failed.

    Args:
        source: The caller's messages.
        serializer: Makes one bytes; ``None`` if they are.

    Attributes:
        failed: Whether the source has raised something, or a message could not be made bytes.
    """

    def __init__(self, source: Iterable[Any], serializer: Serializer | None) -> None:
        self._source = iter(source)
        self._serializer = serializer
        self.failed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return serialized(next(self._source), self._serializer)
        except StopIteration:
            raise
        except BaseException:
            self.failed = True
            raise
