"""Time limits for what nobody may need: bodies read ahead, and those nobody will read."""

from __future__ import annotations

from collections.abc import Hashable
from time import monotonic
from typing import Any

from loadwise.integrations._http.deadline import Deadline
from loadwise.integrations._http.decoding import DecodedWatch
from loadwise.integrations._http.verdict import OpeningWatch, Verdict
from loadwise.integrations._http.wires import TimeLeft

__all__ = [
    "CHALLENGES",
    "Opening",
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
_OPENING = 65_536
_ENDS = "loadwise.ends"

# Requests and responses are Any: they are those of either package.


class Rest:
    """The body of a response that is read ahead, as long as it is not too long or too slow.

    Args:
        deadline: When the request has to end. Without one a small body is read for a second; with
            one, until then.
        most: Bytes to read.
        is_small: Whether it is known to be no longer. Else it may take any time to begin, blanks by
            which a server keeps the connection excepted, and a second from then on: what comes more
            slowly may be meant to be read as it comes.

    Attributes:
        is_small: Whether it is known to be no longer.
        pieces: What has been read.
    """

    __slots__ = ("_began", "_deadline", "_has_begun", "_room", "is_small", "pieces")

    def __init__(self, deadline: Deadline, most: int, *, is_small: bool) -> None:
        self._deadline = deadline
        self._room = most
        self.is_small = is_small
        self._has_begun = False
        self._began = monotonic()
        self.pieces: list[bytes] = []

    def is_enough(self, piece: bytes) -> bool:
        """Take in a piece; tell whether it is time to stop."""
        self.pieces.append(piece)
        self._room -= len(piece)
        if not self.is_small:
            if not self._has_begun:
                self._has_begun = bool(piece.strip())
                self._began = self._deadline.clock()
            return self._room < 0 or self._deadline.clock() - self._began > _PATIENCE
        if self._deadline.ends is None:
            return monotonic() - self._began > _PATIENCE
        return self._deadline.has_passed

    @property
    def is_late(self) -> bool:
        """True if it ends where it stops, because its deadline has passed."""
        return self.is_small and self._deadline.ends is not None


class Opening:
    """The beginning of a body, read before the response is handed on.

    Args:
        watch: Reads it.
        coding: Its content encoding.

    Attributes:
        pieces: What has been read.
        is_complete: Whether that is all.
    """

    __slots__ = ("_room", "_watch", "_watching", "is_complete", "pieces")

    def __init__(self, watch: OpeningWatch, coding: str) -> None:
        self._watch = watch
        self._watching = DecodedWatch(watch, coding)
        self._room = _OPENING
        self.pieces: list[bytes] = []
        self.is_complete = False

    def is_enough(self, piece: bytes) -> bool:
        """Take in a piece; tell whether the body has begun, or cannot be read."""
        self.pieces.append(piece)
        self._watching.feed(piece)
        self._room -= len(piece)
        return self._watch.has_begun or not self._watching.is_legible or self._room < 0

    def verdict(self) -> Verdict | None:
        """Judge what has been read; ``None`` if there is nothing to object to."""
        return self._watching.verdict(complete=self.is_complete)


class Spare:
    """Rest of a response that nobody will read: a little of it keeps its connection.

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
        """Count a piece; tell whether that was enough."""
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
