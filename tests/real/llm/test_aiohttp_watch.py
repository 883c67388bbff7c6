"""Streams over aiohttp, watched over to their ends, however they are read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from loadwise import Balancer
from loadwise.integrations.aiohttp import LoadwiseMiddleware
from loadwise.integrations.llm import classify_llm

WORD = b'data: {"choices": [{"delta": {"content": "hi"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
Read = Callable[[aiohttp.ClientResponse], Awaitable[bytes]]
ERROR = b'data: {"error": {"code": "server_error"}}\n\n'
LIMIT = b'event: error\ndata: {"type": "error", "error": {"type": "rate_limit_error"}}\n\n'
STREAMS = {
    "well": [WORD, WORD, DONE],
    "cut": [WORD],
    "error": [WORD, ERROR],
    "limit": [WORD, LIMIT],
}


async def serve(request: web.Request) -> web.StreamResponse:
    """Send a stream as the path says: in chunks, packed, or with its length."""
    name, how = request.path.strip("/").split("/")
    pieces = STREAMS[name]
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    if how == "packed":
        response.enable_compression(web.ContentCoding.gzip)
    if how == "length":
        response.content_length = sum(map(len, pieces))
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
    await response.write_eof()
    return response


@asynccontextmanager
async def served() -> AsyncIterator[str]:
    """Run the server; return its URL."""
    app = web.Application()
    app.router.add_post("/{name}/{how}", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def read_late(response: aiohttp.ClientResponse) -> bytes:
    """Read a body of which all has come."""
    while not response.content.is_eof():  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(0.001)
    return await response.read()


async def read_lines(response: aiohttp.ClientResponse) -> bytes:
    """Read a body by lines."""
    return b"".join([line async for line in response.content])


async def read_bit_by_bit(response: aiohttp.ClientResponse) -> bytes:
    """Read a few bytes first, and the rest when all has come."""
    return await response.content.readexactly(9) + await read_late(response)


@pytest.mark.parametrize("how", ["chunked", "packed", "raw", "length"])
@pytest.mark.parametrize("read", [read_late, read_lines, read_bit_by_bit])
@pytest.mark.parametrize(
    ("stream", "why"),
    [
        ("well", None),
        ("cut", "the stream ended without [DONE]"),
        ("error", "error in the stream"),
        ("limit", "error in the stream: rate_limit_error"),
    ],
)
def test_ends_of_streams(how: str, read: Read, stream: str, why: str | None) -> None:
    """The verdict is the same whether they are read as they come or later, packed or not."""

    async def main() -> None:
        async with served() as url:
            balancer = Balancer([url])
            middleware = LoadwiseMiddleware(balancer, classify=classify_llm, max_attempts=1)
            async with aiohttp.ClientSession(
                middlewares=[middleware], auto_decompress=how != "raw"
            ) as session:
                path = f"http://llm/{stream}/{'packed' if how == 'raw' else how}"
                for _ in range(2):
                    response = await session.post(path)
                    body = await read(response)
                    assert how == "raw" or body == b"".join(STREAMS[stream])
                    response.release()
                    if stream == "limit":
                        balancer.lift(url)
            status = balancer.status()[0]
            assert status.in_flight == 0
            if why is None:
                assert (status.recent_successes, status.recent_failures) == (2, 0)
            elif stream == "limit":
                assert (status.recent_successes, status.recent_failures) == (0, 0)
            else:
                assert (status.recent_successes, status.recent_failures) == (0, 2)
                assert why in str(status.health_reason)

    asyncio.run(main())


def test_who_leaves_a_stream_blames_nobody() -> None:
    """What has been read of it was good."""

    async def main() -> None:
        gone = asyncio.Event()

        async def hang(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            await response.write(WORD)
            await asyncio.wait_for(gone.wait(), 20)
            return response

        app = web.Application()
        app.router.add_post("/", hang)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        balancer = Balancer([f"http://127.0.0.1:{runner.addresses[0][1]}"])
        middleware = LoadwiseMiddleware(balancer, classify=classify_llm)
        try:
            async with aiohttp.ClientSession(middlewares=[middleware]) as session:
                response = await session.post("http://llm/")
                assert await response.content.readline() == WORD[:-1]
                response.close()
        finally:
            gone.set()
            await runner.cleanup()
        status = balancer.status()[0]
        assert (status.recent_successes, status.recent_failures, status.in_flight) == (1, 0, 0)

    asyncio.run(main())
