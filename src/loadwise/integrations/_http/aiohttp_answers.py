"""Responses of aiohttp that no server has sent."""

from __future__ import annotations

from inspect import signature
from typing import Any

from aiohttp import ClientRequest, ClientResponse, StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpVersion11, RawResponseMessage
from multidict import CIMultiDict, CIMultiDictProxy

from loadwise.integrations._http.no_node_response import Refusal

__all__ = ["answer"]

_ROOM = 65_536


class _Nothing:
    """Stands in for the connection, its protocol and what writes to it."""

    output_size = 0
    upgraded = False

    def __init__(self, message: RawResponseMessage, payload: StreamReader) -> None:
        self._come = message, payload

    @property
    def protocol(self) -> _Nothing:
        """Connection that the response is read from."""
        return self

    async def read(self) -> tuple[RawResponseMessage, StreamReader]:
        """Return the response."""
        return self._come

    def release(self) -> None:
        """Give nothing back."""


# Newer versions want to know how much has been sent.
_HAS_WRITER = "stream_writer" in signature(ClientResponse.__init__).parameters


async def answer(request: ClientRequest, refusal: Refusal) -> ClientResponse:
    """Return a response to a request that is not sent."""
    headers = CIMultiDictProxy(CIMultiDict(refusal.headers))
    raw = tuple((name.encode(), value.encode()) for name, value in refusal.headers)
    message = RawResponseMessage(
        version=HttpVersion11,
        code=refusal.status,
        reason=refusal.reason,
        headers=headers,
        raw_headers=raw,
        should_close=False,
        compression=None,
        upgrade=False,
        chunked=False,
    )
    payload = StreamReader(BaseProtocol(request.loop), _ROOM, loop=request.loop)
    if request.method != "HEAD":
        payload.feed_data(refusal.body)
    payload.feed_eof()
    nothing: Any = _Nothing(message, payload)
    response = request.response_class(
        request.method,
        request.original_url,
        writer=None,
        continue100=None,
        timer=request._timer,  # noqa: SLF001 - as a request does that is sent
        request_info=request.request_info,
        traces=request._traces,  # noqa: SLF001 - as a request does that is sent
        loop=request.loop,
        session=request.session,
        **({"stream_writer": nothing} if _HAS_WRITER else {}),
    )
    return await response.start(nothing)
