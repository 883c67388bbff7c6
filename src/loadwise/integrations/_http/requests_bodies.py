"""Bodies of responses in requests, and the leases that are held until they have been read."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any, TypeVar

from requests import Response
from urllib3.response import HTTPResponse

from loadwise.integrations._http.decoding import DecodedWatch, DecodingReader
from loadwise.integrations._http.lease_until_read import OpenResponse
from loadwise.integrations._http.retrying import RetryLoop
from loadwise.integrations._http.verdict import Verdict
from loadwise.outcome import Outcome

__all__ = ["end_read", "hold_until_read", "is_of_events"]


T = TypeVar("T")


class LeasedBody(HTTPResponse):
    """A response of urllib3 that shows what is read of it to an `OpenResponse`.

    It is made by giving a response this class, for urllib3 has made it by then.
    """

    _unread: OpenResponse | None
    _is_watched: bool
    _is_reading = False

    def lease(self, unread: OpenResponse, *, is_watched: bool) -> None:
        """Begin.

        Args:
            unread: Holds the lease.
            is_watched: Whether it wants to see all that is read; else it wants its end alone.
        """
        self._unread = unread
        self._is_watched = is_watched

    def read(self, *args: Any, **kwargs: Any) -> bytes:
        """Read a part, or all."""
        piece = self._taken(partial(super().read, *args, **kwargs))
        everything = kwargs.get("amt", args[0] if args else None) is None
        self._seen(piece, decoded=kwargs.get("decode_content", args[1] if len(args) > 1 else None))
        if everything or not piece:
            self._complete()
        return piece

    def read1(self, *args: Any, **kwargs: Any) -> bytes:
        """Read what has come."""
        piece = self._taken(partial(super().read1, *args, **kwargs))
        self._seen(piece, decoded=kwargs.get("decode_content", args[1] if len(args) > 1 else None))
        if not piece:
            self._complete()
        return piece

    def read_chunked(
        self,
        amt: int | None = None,
        decode_content: bool | None = None,  # noqa: FBT001 - urllib3's
    ) -> Generator[bytes, None, None]:
        """Read chunk by chunk."""
        pieces = super().read_chunked(amt, decode_content)
        while (piece := self._taken(partial(next, pieces, None))) is not None:
            self._seen(piece, decoded=decode_content)
            yield piece
        self._complete()

    def stream(
        self,
        amt: int | None = 65_536,
        decode_content: bool | None = None,  # noqa: FBT001 - urllib3's
    ) -> Generator[bytes, None, None]:
        """Read piece by piece."""
        yield from super().stream(amt, decode_content)
        self._complete()

    def close(self) -> None:
        """Give back the connection and the lease."""
        try:
            super().close()
        finally:
            if not self._is_reading:  # else urllib3 closes what has broken off, and will say so
                self._end()

    def __del__(self) -> None:
        # Where it is collected no lock may be taken: the lease sees to itself.
        self._unread = None
        super().__del__()

    def _seen(self, piece: bytes, *, decoded: bool | None) -> None:
        unread = self._unread
        if unread is None:
            return
        is_legible = decoded or "content-encoding" not in self.headers
        if piece and self._is_watched and is_legible:
            unread.read(piece)
        if not self._is_watched and self.closed:
            self._complete()

    def _taken(self, read: Callable[[], T]) -> T:
        self._is_reading = True
        try:
            return read()
        except BaseException as error:
            if self._unread is not None:
                self._unread.broke(error)
            raise
        finally:
            self._is_reading = False

    def _complete(self) -> None:
        if self._unread is not None:
            self._unread.complete()
        self._end()

    def _end(self) -> None:
        unread, self._unread = self._unread, None
        if unread is not None:
            unread.close()


def hold_until_read(response: Response, retries: RetryLoop, verdict: Verdict) -> None:
    """Keep the lease until a response that is streamed is done with."""
    events = is_of_events(response)
    unread = _opened(response, retries, verdict, events=events)
    is_watched = events or retries.account is not None or verdict.watch is not None
    body: Any = response.raw
    body.__class__ = LeasedBody
    body.lease(unread, is_watched=is_watched)


def end_read(response: Response, retries: RetryLoop, verdict: Verdict, content: bytes) -> None:
    """End the lease on a response whose every byte has come: the node is done with it."""
    if retries.account is None and verdict.watch is None:
        retries.end(retries.lease, verdict)
        return
    unread = _opened(response, retries, verdict, events=False)
    unread.read(content)
    unread.complete()
    unread.close()


def is_of_events(response: Response) -> bool:
    """Tell whether a response is a stream of events, which begins long after its headers."""
    if "content-length" in response.headers:
        return False
    told = response.headers.get("content-type", "")
    return told.partition(";")[0].strip().lower() == "text/event-stream"


def _opened(
    response: Response, retries: RetryLoop, verdict: Verdict, *, events: bool
) -> OpenResponse:
    account, reader, watch = retries.account, None, None
    if verdict.outcome is Outcome.SUCCESS:
        if account is not None and retries.used is None:
            inner = account.reader(response.headers.get("content-type", ""))
            reader = None if inner is None else DecodingReader(inner, "")
        if verdict.watch is not None:
            watch = DecodedWatch(verdict.watch, "")
    return OpenResponse(retries, retries.lease, verdict, reader, events=events, watch=watch)
