"""Rules by which a request may be sent again, and a response held back for its sake."""

from __future__ import annotations

from typing import Any

from loadwise.integrations._http.settings import Options, Settings
from loadwise.integrations._http.stale import frame_of
from loadwise.integrations._http.verdict import Verdict

__all__ = ["ReplayRules"]

_READ_AHEAD = 65_536
_WHOLE = 4_194_304
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})


class ReplayRules:
    """Rules by which one request may be sent again.

    Args:
        settings: What holds for all requests.
        options: What this one says for itself.
        request: The request itself, for its ``method`` and its ``headers``.
        has_stored_body: Whether its body can be sent more than once.
    """

    __slots__ = ("_has_stored_body", "_options", "_request", "_settings")

    def __init__(
        self,
        settings: Settings,
        options: Options,
        request: Any,
        *,
        has_stored_body: bool,
    ) -> None:
        self._settings = settings
        self._options = options
        self._request = request
        self._has_stored_body = has_stored_body

    def may_repeat(self) -> bool:
        """Tell whether the request may be sent again although a server may have acted on it.

        Source: RFC 9110, section 9.2.2, for the methods.
        """
        return self._has_stored_body and (
            self._request.method.upper() in _IDEMPOTENT
            or self._options.retry
            or self._settings.repeatable
            or "Idempotency-Key" in self._request.headers
        )

    def has_body_left(self, error: BaseException) -> bool:
        """Tell whether the body can be sent again after a server said that it was unread."""
        return self._has_stored_body or frame_of(error) is None

    def may_read_ahead(self, length: int | None) -> bool:
        """Tell whether a body is so small that it is better read before the response is handed on.

        A node may die between its headers and its last byte. As long as nobody has seen the
        response, a request that may be repeated can still be sent to another node.
        """
        return length is not None and length <= _READ_AHEAD and self.may_repeat()

    def may_read(self, length: int | None, verdict: Verdict) -> int:
        """Return how much of a body is better read before the response is handed on.

        Of small ones that is all, of others as much as the ``verdict`` wants.
        """
        if self.may_read_ahead(length):
            return _READ_AHEAD
        wanted = verdict.whole and self.may_repeat() and (length or 0) <= _WHOLE
        return _WHOLE if wanted else 0

    def may_open(self, verdict: Verdict) -> bool:
        """Tell whether a response is better held back until its body has begun."""
        return verdict.watch is not None and self._settings.max_attempts > 1 and self.may_repeat()
