"""Costs of requests, by quota dimension: what meters are asked, and when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from loadwise._callables import refuse_async_methods, refuse_awaitable
from loadwise.quota import Left

__all__ = ["Amounts", "Left", "Meter", "Metering", "RequestAccount", "UsageReader"]

Amounts = Mapping[str, float]

_REMEDY = "a meter does not wait: make it a plain method"
_TOO_MANY_REQUESTS = 429


class UsageReader(Protocol):
    """Reads from a response's body what the request has used."""

    def feed(self, chunk: bytes) -> None:
        """Take in a piece of the body, content encoding undone."""

    def amounts(self) -> Amounts | None:
        """Return what was used, by quota dimension; ``None`` if the body did not say."""
        ...


class Meter(Protocol):
    """Knows what requests cost, by quota dimension.

    It may have a ``refused()``, too: what a request has used that a rate limit refused. If it has
    an ``account(path, body, length)``, that returns the `RequestAccount` of each request instead.
    """

    def estimate(self, body: bytes) -> Amounts | None:
        """Return what a request with this body is expected to use; ``None`` for the default."""
        ...

    def reader(self, content_type: str) -> UsageReader | None:
        """Return a reader for a response of this type, or ``None`` if there is nothing to read."""
        ...


class RequestAccount(Protocol):
    """Account of one request: the amounts that it is charged."""

    @property
    def amounts(self) -> Amounts | None:
        """Amounts that it is expected to use; ``None`` for the default."""
        ...

    def used_by(self, status: int) -> Amounts | None:
        """Return what an answer with this status has used; ``None`` if its body is to tell."""
        ...

    def reader(self, content_type: str) -> UsageReader | None:
        """Return a reader for a response of this type, or ``None`` if there is nothing to read."""
        ...

    def left(self, headers: Mapping[str, str]) -> Mapping[str, Left]:
        """Return what remains of the limits, as an answer's headers say."""
        ...


class Metering:
    """Asks a meter.

    Args:
        meter: The meter.

    Raises:
        TypeError: It is none, or one that waits.
    """

    def __init__(self, meter: Meter) -> None:
        methods = (getattr(meter, name, None) for name in ("estimate", "reader"))
        if not all(map(callable, methods)) or isinstance(meter, type):
            raise TypeError(f"meter is {meter!r}; it must be a meter, such as TokenMeter()")
        refuse_async_methods("meter", meter, ("estimate", "reader", "refused", "account"), _REMEDY)
        self._meter = meter
        opened: Callable[..., RequestAccount] | None = getattr(meter, "account", None)
        self._open = opened or self._plain

    def open(self, path: str, body: bytes | None, length: int | None) -> RequestAccount:
        """Return the account of a request.

        Args:
            path: Where it goes.
            body: Its body; ``None`` if that is not known before it is sent.
            length: The length of that, if it is known.
        """
        return self._open(path, body, length)

    def _plain(self, _path: str, body: bytes | None, _length: int | None) -> RequestAccount:
        amounts = None
        if body is not None:
            amounts = self._meter.estimate(body)
            refuse_awaitable("estimate() of the meter", amounts, _REMEDY)
        return _PlainAccount(self._meter, amounts)


class _PlainAccount:
    """Account of one request by a meter that has none."""

    def __init__(self, meter: Meter, amounts: Amounts | None) -> None:
        self._meter = meter
        self.amounts = amounts

    def used_by(self, status: int) -> Amounts | None:
        tell: Callable[[], Amounts] | None = getattr(self._meter, "refused", None)
        if tell is None or status != _TOO_MANY_REQUESTS:
            return None
        amounts = tell()
        refuse_awaitable("refused() of the meter", amounts, _REMEDY)
        return amounts

    def reader(self, content_type: str) -> UsageReader | None:
        found = self._meter.reader(content_type)
        refuse_awaitable("reader() of the meter", found, _REMEDY)
        return found

    def left(self, headers: Mapping[str, str]) -> Mapping[str, Left]:  # noqa: ARG002 - as it is called
        return {}
