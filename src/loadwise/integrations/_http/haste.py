"""Time limits for what nobody may need: bodies read ahead, and those nobody will read."""

from __future__ import annotations

from collections.abc import Hashable
from time import monotonic
from typing import Any

from loadwise.integrations._http.exchange import Exchange
from loadwise.integrations._http.wires import TimeLeft

__all__ = [
    "CHALLENGES",
    "Rest",
    "Spare",
    "challenger_of",
    "deadline_of",
    "note_challenger",
    "note_deadline",
]

_PATIENCE = 1.0
_SPARE_TIME = 0.1
_SPARE_BYTES = 65_536
_ENDS = "loadwise.ends"

# Requests and responses are Any: they are those of either package.


class Rest:
    """The body of a response that comes so slowly that it is no longer read ahead.

    Args:
        exchange: The request's way through the fleet. Without a deadline it is read for a second;
            with one, until then.
    """

    __slots__ = ("_began", "_exchange", "pieces")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._began = monotonic()
        self.pieces: list[bytes] = []

    def is_slow(self) -> bool:
        """Whether it is time to stop."""
        if self._exchange.ends is None:
            return monotonic() - self._began > _PATIENCE
        return self._exchange.seconds_left() <= 0


class Spare:
    """What is left of a response that nobody will read: a little of it keeps its connection.

    Args:
        response: The response.
        outbound: Its request.
    """

    __slots__ = ("_left", "_until", "is_worth_it")

    def __init__(self, response: Any, outbound: Any) -> None:
        self._left = _SPARE_BYTES
        self._until = monotonic() + _SPARE_TIME
        # A stream of HTTP/2 is given up without its connection.
        self.is_worth_it = (
            not response.is_closed and response.extensions.get("http_version") != b"HTTP/2"
        )
        if self.is_worth_it:
            outbound.extensions["timeout"] = TimeLeft({}, lambda: self._until - monotonic())

    def is_used_up(self, piece: bytes) -> bool:
        """Take note of a piece; whether that was enough."""
        self._left -= len(piece)
        return self._left < 0 or monotonic() > self._until


def note_deadline(request: Any, ends: float) -> None:
    """Have requests that a client makes of this one, as after a redirect, end when it does."""
    request.extensions[_ENDS] = (id(request), ends)


def deadline_of(request: Any) -> float | None:
    """Return the deadline of the request that this one was made of, if there is one."""
    noted = request.extensions.get(_ENDS)
    return None if noted is None or noted[0] == id(request) else noted[1]


CHALLENGES = frozenset({401, 407})
_CHALLENGER = "loadwise.challenger"


def note_challenger(request: Any, identity: Hashable) -> None:
    """Have a request go to the same node, should it be sent again with credentials."""
    request.extensions[_CHALLENGER] = (id(request), identity)


def challenger_of(request: Any) -> Hashable | None:
    """Return the node that has asked a request for credentials, if one has."""
    noted = request.extensions.pop(_CHALLENGER, None)
    return noted[1] if noted is not None and noted[0] == id(request) else None
