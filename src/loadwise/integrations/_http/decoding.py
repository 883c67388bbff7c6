"""Bodies with their content encoding undone, for those who read them on the way."""

from __future__ import annotations

import zlib
from typing import Any

from loadwise.integrations._http.metering import Amounts, UsageReader
from loadwise.integrations._http.verdict import BodyWatch, Verdict

__all__ = ["DecodedWatch", "DecodingReader"]

_PIECE = 65_536


class DecodedWatch:
    """Last judge of a response, shown its body with the content encoding undone."""

    def __init__(self, watch: BodyWatch, encoding: str) -> None:
        self._watch = watch
        self._decoded = DecodingReader(_Feeding(watch), encoding)

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


class DecodingReader:
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
        # By pieces, because little may unpack to very much. A full one may have left something
        # behind.
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
