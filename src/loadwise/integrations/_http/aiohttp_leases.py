"""Leases of aiohttp's responses, held until a response has been read."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, cast

from loadwise.integrations._http.aiohttp_content import MeteredContent
from loadwise.integrations._http.aiohttp_session import what_broke
from loadwise.integrations._http.decoding import DecodedWatch, DecodingReader
from loadwise.integrations._http.lease_until_read import OpenResponse
from loadwise.outcome import Outcome

if TYPE_CHECKING:
    import aiohttp
    from aiohttp import ClientResponse

    from loadwise.integrations._http.retrying import RetryLoop
    from loadwise.integrations._http.verdict import Verdict

__all__ = ["hold_until_read", "is_of_events"]


def hold_until_read(
    response: ClientResponse, retries: RetryLoop, verdict: Verdict, coding: str
) -> None:
    """Keep the lease until the response is done with; its content comes in a coding."""
    lease, account = retries.lease, retries.account
    reader = None
    if account is not None and retries.used is None and verdict.outcome is Outcome.SUCCESS:
        reader = account.reader(response.headers.get("Content-Type", ""))
    decoded = None if reader is None else DecodingReader(reader, coding)
    watch = None
    if verdict.watch is not None and verdict.outcome is Outcome.SUCCESS:
        watch = DecodedWatch(verdict.watch, coding)
    events = is_of_events(response)
    unread = OpenResponse(retries, lease, verdict, decoded, events=events, watch=watch)
    content = MeteredContent(response.content, unread)
    if account is not None or events or watch is not None:
        response.content = cast("aiohttp.StreamReader", content)
    if response.connection is None:
        content.look_ahead()
        unread.end()
        return
    reference = weakref.ref(response)

    def done() -> None:
        alive = reference()
        if alive is None or not alive.closed:
            # It is being collected, where no lock may be taken: the lease sees to itself.
            return
        broken = what_broke(alive)
        if broken is not None:
            unread.broke(broken)
        else:
            content.look_ahead()
        unread.end()
        if not alive.content.is_eof():  # nobody will read on
            unread.settle()

    response.connection.add_callback(done)


def is_of_events(response: ClientResponse) -> bool:
    """Tell whether a response is a stream of events, which begins long after its headers."""
    return response.content_length is None and response.content_type == "text/event-stream"
