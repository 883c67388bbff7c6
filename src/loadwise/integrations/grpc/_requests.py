"""Requests of a call, serialized here: what goes wrong with them is no node's doing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Self

from grpc import StatusCode

from loadwise.integrations.grpc._errors import CallError

__all__ = [
    "MessageSource",
    "Messages",
    "is_repeatable",
    "payload_of",
    "serialized",
]

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


class MessageSource:
    """Source of request messages, which every attempt begins anew, as far as that can be done.

    Args:
        requests: The caller's messages.
        serializer: Makes one bytes; ``None`` if they are.
    """

    def __init__(self, requests: Iterable[Any], serializer: Serializer | None) -> None:
        self._requests = requests
        self._serializer = serializer

    def begin(self) -> Messages:
        """Return a stream of them."""
        return Messages(self._requests, self._serializer)


def payload_of(requests: Any) -> Any:
    """Return what one attempt sends: bytes as they are, or a stream of messages."""
    return requests.begin() if requests.__class__ is MessageSource else requests


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
