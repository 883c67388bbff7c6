"""Watching over streams of a language model's answer: errors in them, and their ends.

It does no I/O.
"""

from __future__ import annotations

import json
from typing import Final, cast

from loadwise.integrations._http.verdict import Verdict
from loadwise.integrations._llm.cooldowns import LONG_REST
from loadwise.integrations._llm.errors import ErrorCause, Told, told_of
from loadwise.outcome import Outcome

__all__ = ["StreamWatch"]

_MOST = 65_536
"""Bytes of a line that are kept; its end is passed over."""

_HEAD = 256
"""Bytes of an event in which its type is."""

_END: Final = "[DONE]"
_MESSAGE_END: Final = "message_stop"
_RESPONSE_ENDS: Final = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled"}
)


class StreamWatch:
    """Watches over one stream of server-sent events.

    It objects to an error in the stream, and to a stream that comes to its end without saying that
    its answer does: ``[DONE]`` of OpenAI's chat completions, ``message_stop`` of Anthropic's
    messages, ``response.completed`` and the like of OpenAI's responses. Streams of other kinds have
    to have an event at least. Who leaves a stream early is no reason to object.

    An error that comes before all else, pings excepted, is retried where that can be.

    Source: the HTML standard, section 9.2.6: lines end in CR, LF or both.

    Not thread-safe: it belongs to one response.

    Cost: O(length); few events are parsed.
    """

    __slots__ = ("_after_cr", "_awaited", "_begun", "_ended", "_event", "_line", "_seen", "_told")

    def __init__(self) -> None:
        self._line = bytearray()
        self._after_cr = False
        self._event = b""
        self._seen = False
        self._begun = False
        self._ended = False
        self._awaited: str | None = None
        self._told: Told | None = None

    @staticmethod
    def opening() -> StreamWatch:
        """Return what watches over the beginning alone."""
        return StreamWatch()

    @property
    def has_begun(self) -> bool:
        """True if an event has come that is no ping."""
        return self._begun

    def feed(self, chunk: bytes) -> None:
        """Take in a piece of the stream."""
        if self._told is not None:
            return
        if self._after_cr:  # both characters of one end may come in two pieces
            chunk = chunk.removeprefix(b"\n")
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        elif chunk:
            self._after_cr = False
        first, *others = chunk.split(b"\n")
        self._extend(first)
        for line in others:
            self._take(bytes(self._line))
            self._line.clear()
            self._extend(line)

    def verdict(self, *, complete: bool) -> Verdict | None:
        """Judge what has been read; ``None`` if there is nothing to object to."""
        if self._line:
            self._take(bytes(self._line))  # the last line may lack its end
            self._line.clear()
        if self._told is not None:
            return _verdict_of(self._told)
        if self._ended or not complete or (self._seen and self._awaited is None):
            return None
        return Verdict(
            Outcome.FAILURE,
            retry=True,
            reason=f"the stream ended without {self._awaited or 'an event'}",
        )

    def _extend(self, piece: bytes) -> None:
        room = _MOST - len(self._line)
        if room > 0:
            self._line += piece[:room]

    def _take(self, line: bytes) -> None:
        """Take in a line."""
        if not line:
            self._event = b""
        elif line.startswith(b"event:"):
            self._event = line[6:].strip()
            if self._event == b"error":
                self._seen = True
        elif line.startswith(b"data:"):
            self._seen = True
            self._take_data(line[5:].strip())

    def _take_data(self, data: bytes) -> None:
        if data.startswith(b"[DONE]"):
            self._begun = self._ended = True
            return
        kind = self._event
        self._begun = self._begun or not _is(data, kind, "ping")
        if kind == b"error" or b'"error"' in data:
            found = _object(data)
            if kind == b"error" or found.get("type") == "error" or found.get("error"):
                self._told = told_of(found)
                return
        if self._awaited is None:
            self._recognise(data)
        if self._awaited == _MESSAGE_END:
            self._ended = self._ended or _is(data, kind, _MESSAGE_END)
        elif self._awaited is not None and self._awaited != _END:
            self._take_response(data, kind)

    def _recognise(self, data: bytes) -> None:
        """Learn what end there will be."""
        if b'"choices"' in data:
            self._awaited = _END
        elif _is(data, self._event, "message_start"):
            self._awaited = _MESSAGE_END
        elif _is(data, self._event, "response.created"):
            self._awaited = "response.completed"

    def _take_response(self, data: bytes, kind: bytes) -> None:
        for end in _RESPONSE_ENDS:
            if _is(data, kind, end):
                self._ended = True
                if end == "response.failed":
                    self._told = told_of(_object(data))


def _is(data: bytes, kind: bytes, name: str) -> bool:
    """Tell whether an event is of a kind, as its own line says, or its data."""
    if kind == name.encode():
        return True
    # Within a text its quotes would be escaped.
    return f'"type":"{name}"'.encode() in data[:_HEAD].replace(b" ", b"")


def _object(data: bytes) -> dict[str, object]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, object]", found) if isinstance(found, dict) else {}


def _verdict_of(told: Told) -> Verdict:
    reason = "error in the stream" + (f": {told.word}" if told.word else "")
    if told.fault == ErrorCause.REQUEST:
        return Verdict(Outcome.SUCCESS, reason=reason)
    if told.fault == ErrorCause.SERVER:
        return Verdict(Outcome.FAILURE, retry=True, reason=reason)
    rest = None if told.fault == ErrorCause.RATE else LONG_REST
    return Verdict(
        Outcome.RATE_LIMITED,
        retry=True,
        reason=reason,
        retry_after=rest,
        confirm=told.fault == ErrorCause.KEY,
    )
