"""Leases of responses, held until the body has been read, and its usage with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from loadwise.balancer import Lease
from loadwise.integrations._http.decoding import DecodedWatch, DecodingReader
from loadwise.integrations._http.retrying import RetryLoop
from loadwise.integrations._http.verdict import Verdict
from loadwise.outcome import Outcome

__all__ = ["OpenResponse"]


class OpenResponse:
    """Response whose body is still read: its lease, and what it has used.

    Args:
        retries: The attempts of its request.
        lease: The lease of the one that it answers.
        verdict: What its headers say of the node.
        reader: Reads what the request has used; ``None`` if that is not metered.
        events: Whether it is a stream of events, which begins with the first of them.
        watch: Has the last word on it; ``None``: the verdict stands.
    """

    def __init__(
        self,
        retries: RetryLoop,
        lease: Lease[Any],
        verdict: Verdict,
        reader: DecodingReader | None,
        *,
        events: bool = False,
        watch: DecodedWatch | None = None,
    ) -> None:
        self._retries = retries
        self._lease = lease
        self._verdict = verdict
        self._reader = reader
        self._awaits_event = events
        self._watch = watch
        retries.tell_span()

    def read(self, chunk: bytes) -> None:
        """Take in a piece of the body."""
        if self._awaits_event:
            self._awaits_event = False
            self._lease.first_byte()
        if self._reader is not None:
            try:
                self._reader.feed(chunk)
            except BaseException:
                # The meter's fault is nobody's that serves.
                self._reader = None
                self._lease.cancel()
                raise
        if self._watch is not None:
            self._watch.feed(chunk)

    def show(self, pieces: Iterable[bytes]) -> None:
        """Show the watch pieces that have come and will be read later."""
        if self._watch is not None:
            for piece in pieces:
                self._watch.feed(piece)

    def complete(self) -> None:
        """Report that the body has come to its end."""
        self._ask_watch(complete=True)

    def broke(self, error: BaseException) -> None:
        """Report that the body did not come to its end."""
        # Who leaves a loop over the body early has had what was wanted: that is for `close`.
        if not isinstance(error, GeneratorExit):
            self._retries.broke(self._lease, self._verdict, error)

    def close(self) -> None:
        """End and settle the attempt: nobody reads any more."""
        self.end()
        self.settle()

    def end(self) -> None:
        """End the attempt; the body may still be read, where all of it has come."""
        self._ask_watch(complete=False)
        self._retries.end(self._lease, self._verdict, used=self._retries.used)

    def _ask_watch(self, *, complete: bool) -> None:
        """Let the watch have the last word, once."""
        watch, self._watch = self._watch, None
        verdict = None if watch is None else watch.verdict(complete=complete)
        if verdict is not None:
            self._verdict = verdict
            # The headers were those of a success: the request was sound.
            self._lease.blame = None
            if verdict.outcome is Outcome.RATE_LIMITED:
                self._reader = None  # what it has used is settled by that

    def settle(self) -> None:
        """Settle what the attempt has used: no more of the body will be read."""
        reader, self._reader = self._reader, None
        if reader is not None:
            amounts = reader.amounts()
            if amounts is not None:
                self._lease.settle(amounts)
        self._retries.correct(self._lease)
