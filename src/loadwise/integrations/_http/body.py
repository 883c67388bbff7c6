"""Bodies of responses: while one is read the lease is held, and the usage is read."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

from loadwise.balancer import Lease
from loadwise.integrations._http.exchange import Exchange
from loadwise.integrations._http.metering import Amounts, UsageReader
from loadwise.integrations._http.verdict import BodyWatch, Verdict
from loadwise.outcome import Outcome

__all__ = ["Decoded", "Hold", "Watch"]

_PIECE = 65_536


class Hold:
    """Open end of a response while its body is read: the lease, and what it used."""

    def __init__(
        self,
        exchange: Exchange,
        lease: Lease[Any],
        verdict: Verdict,
        reader: Decoded | None,
        *,
        events: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self._exchange = exchange
        self._lease = lease
        self._verdict = verdict
        self._reader = reader
        self._awaits_event = events
        self._watch = watch
        exchange.tell_span()

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
        """Show who watches what has come and will be read later."""
        if self._watch is not None:
            for piece in pieces:
                self._watch.feed(piece)

    def complete(self) -> None:
        """The body has come to its end."""
        self._ask_watch(complete=True)

    def broke(self, error: BaseException) -> None:
        """The body did not come to its end."""
        # Who leaves a loop over the body early has had what was wanted: that is for `close`.
        if not isinstance(error, GeneratorExit):
            self._exchange.broke(self._lease, self._verdict, error)

    def close(self) -> None:
        """The response is done with."""
        self.end()
        self.settle()

    def end(self) -> None:
        """The connection is done with; the body may still be read, where all of it has come."""
        self._ask_watch(complete=False)
        self._exchange.end(self._lease, self._verdict, used=self._exchange.used)

    def _ask_watch(self, *, complete: bool) -> None:
        """Have who watches say the last word, if that has not been said."""
        watch, self._watch = self._watch, None
        verdict = None if watch is None else watch.verdict(complete=complete)
        if verdict is not None:
            self._verdict = verdict
            # The headers were those of a success: the request was sound.
            self._lease.blame = None
            if verdict.outcome is Outcome.RATE_LIMITED:
                self._reader = None  # what it has used is settled by that

    def settle(self) -> None:
        """All of the body that will be read has been."""
        reader, self._reader = self._reader, None
        if reader is not None:
            amounts = reader.amounts()
            if amounts is not None:
                self._lease.settle(amounts)
        self._exchange.correct(self._lease)


class Watch:
    """Last judge of a response, shown its body with the content encoding undone."""

    def __init__(self, watch: BodyWatch, encoding: str) -> None:
        self._watch = watch
        self._decoded = Decoded(_Feeding(watch), encoding)

    def feed(self, chunk: bytes) -> None:
        """Take in a piece of the body as it came."""
        self._decoded.feed(chunk)

    @property
    def is_legible(self) -> bool:
        """True if all that has come could be unpacked."""
        return self._decoded.is_legible

    def verdict(self, *, complete: bool) -> Verdict | None:
        """Judge what has been read; of what could not be unpacked nothing is said."""
        return self._watch.verdict(complete=complete) if self.is_legible else None


class _Feeding:
    """Feeds who watches, as a reader is fed."""

    def __init__(self, watch: BodyWatch) -> None:
        self.feed = watch.feed

    def amounts(self) -> None:
        """Return nothing: no usage is looked for."""


class Decoded:
    """Feeds a reader with a body whose content encoding is undone."""

    def __init__(self, reader: UsageReader, encoding: str) -> None:
        self._reader: UsageReader | None = reader
        self._inflate: Any = None
        coding = encoding.strip().lower()
        if coding in ("gzip", "deflate"):
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
        elif coding not in ("", "identity"):
            self._reader = None

    def feed(self, chunk: bytes) -> None:
        """Take in a piece of the body as it came."""
        if self._reader is None or (self._inflate is not None and self._inflate.eof):
            return  # what comes after the end is nobody's
        if self._inflate is None:
            self._reader.feed(chunk)
            return
        piece = b""
        # By pieces, for little may unpack to very much. A full one may have left something behind.
        while (chunk or len(piece) == _PIECE) and not self._inflate.eof:
            try:
                piece = self._inflate.decompress(chunk, _PIECE)
            except zlib.error:
                self._reader = None
                return
            self._reader.feed(piece)
            chunk = self._inflate.unconsumed_tail

    @property
    def is_legible(self) -> bool:
        """True if all that has come could be unpacked."""
        return self._reader is not None

    def amounts(self) -> Amounts | None:
        """Return what the reader found, if it could read the body."""
        return None if self._reader is None else self._reader.amounts()
