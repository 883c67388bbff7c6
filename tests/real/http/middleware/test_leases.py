"""Leases of the aiohttp middleware: held until the response ends, in whichever way."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import (
    ClientPayloadError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ServerDisconnectedError,
    TCPConnector,
)
from aiohttp.abc import AbstractResolver, ResolveResult
from tests.real.http.middleware.support import Recorder, Server, in_flight, told, turns_until

from loadwise import Balancer, Outcome, QuotaConfig, QuotaDimension, QuotaTracker, RoundRobin
from loadwise.integrations.aiohttp import LoadwiseMiddleware
from loadwise.integrations.llm import TokenMeter
from loadwise.testing import ManualClock


async def read_to_the_end(response: ClientResponse) -> None:
    """Read what is left of a response."""
    assert (await response.content.read()).endswith(b"last\n")


async def close(response: ClientResponse) -> None:
    """Close a response early."""
    response.close()


async def release(response: ClientResponse) -> None:
    """Release a response early."""
    response.release()


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (read_to_the_end, Outcome.SUCCESS),
        (close, Outcome.SUCCESS),
        (release, Outcome.SUCCESS),
        (None, Outcome.FAILURE),
    ],
    ids=["read", "closed", "released", "cut"],
)
def test_in_flight_until_the_response_ends(
    a: Server,
    end: Callable[[ClientResponse], Awaitable[None]] | None,
    outcome: Outcome,
    request: pytest.FixtureRequest,
) -> None:
    """A streamed response holds its slot to its end; its latency is the time to the headers."""
    clock, recorder = ManualClock(), Recorder()
    balancer = Balancer([a.address], clock=clock, metrics=recorder)
    identity = request.node.name.partition("[")[2].rstrip("]")

    async def main() -> None:
        manners = "stream" if end is not None else "cut"
        headers = {"Plan": f"a={manners}", "X-Request-Id": identity}
        async with ClientSession(middlewares=[LoadwiseMiddleware(balancer)]) as session:
            response = await session.get("http://service/", headers=headers)
            assert await response.content.readline() == b"first\n"
            assert in_flight(balancer) == 1
            clock.advance(5.0)
            if end is None or end is read_to_the_end:
                await (await session.get(f"http://{a.address}/_go_on/{identity}")).read()
            if end is not None:
                await end(response)
            else:
                with pytest.raises(ClientPayloadError):
                    await response.content.read()
                response.release()

    asyncio.run(main())
    assert in_flight(balancer) == 0
    assert recorder.outcomes[-1] is outcome
    assert recorder.latencies[-1] == 0.0


async def read(response: ClientResponse) -> None:
    """Read a response by its own method."""
    await response.read()


async def iterate(response: ClientResponse) -> None:
    """Read a response piece by piece."""
    async with response:
        async for _ in response.content.iter_any():
            pass


async def read_in_time(response: ClientResponse) -> None:
    """Read a response until the caller's own time is over."""
    async with response, asyncio.timeout(0.0):
        await response.content.read()


@pytest.mark.parametrize(
    ("way", "by", "outcome"),
    [
        (read, "cancellation", Outcome.CANCELLED),
        (iterate, "cancellation", Outcome.CANCELLED),
        (read_in_time, "the caller's timeout", Outcome.CANCELLED),
        (read, "the session's timeout", Outcome.FAILURE),
        (iterate, "the session's timeout", Outcome.FAILURE),
    ],
)
def test_a_body_that_is_given_up_while_it_is_awaited(
    a: Server,
    way: Callable[[ClientResponse], Awaitable[None]],
    by: str,
    outcome: Outcome,
    request: pytest.FixtureRequest,
) -> None:
    """Given up by the caller it says nothing; the session's timeout counts against the node."""
    recorder = Recorder()
    balancer = Balancer([a.address], metrics=recorder)
    headers = {"Plan": "a=stream", "X-Request-Id": request.node.name}

    async def main() -> None:
        async with ClientSession(middlewares=[LoadwiseMiddleware(balancer)]) as session:
            response: Any = await session.get("http://service/", headers=headers)
            assert await response.content.readline() == b"first\n"
            reading = asyncio.ensure_future(way(response))
            await asyncio.sleep(0)  # it waits for the rest by then
            if by == "cancellation":
                reading.cancel()
            elif by == "the session's timeout":
                response._timer.timeout()  # what aiohttp calls in five minutes
            with pytest.raises((asyncio.CancelledError, TimeoutError)):
                await reading
            assert recorder.outcomes == [outcome]

    asyncio.run(main())
    assert in_flight(balancer) == 0


@pytest.mark.parametrize("length", [2, 3], ids=["read", "left-early"])
def test_an_answer_that_comes_before_the_whole_body_was_sent_is_a_success(length: int) -> None:
    """What aiohttp stops to send then is its own business, and nobody's cancellation."""
    recorder = Recorder()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: %d\r\n\r\nno" % length)
        await reader.read()
        writer.close()

    async def endless() -> AsyncIterator[bytes]:
        yield b"so"
        await asyncio.Event().wait()

    async def main() -> None:
        async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            balancer = Balancer([f"127.0.0.1:{port}"], metrics=recorder)
            async with (
                ClientSession(middlewares=[LoadwiseMiddleware(balancer)]) as session,
                session.put("http://service/", data=endless()) as response,
            ):
                assert await response.content.readexactly(2) == b"no"
            await turns_until(lambda: in_flight(balancer) == 0)

    asyncio.run(main())
    assert recorder.outcomes == [Outcome.SUCCESS]


def test_what_breaks_because_the_session_is_closed_says_nothing_about_its_node(
    a: Server, b: Server, request: pytest.FixtureRequest
) -> None:
    """Closing a session ends its requests; they are not sent again, and their node is well."""
    recorder = Recorder()
    balancer = Balancer([a.address, b.address], RoundRobin(), metrics=recorder)

    async def main() -> None:
        session = ClientSession(middlewares=[LoadwiseMiddleware(balancer)])
        headers = {"Plan": "a=hang", "X-Request-Id": request.node.name}
        asked = asyncio.ensure_future(told(session, headers=headers))
        await asyncio.to_thread(a.until_acted_on, request.node.name)
        await session.close()
        with pytest.raises(ServerDisconnectedError):
            await asked

    asyncio.run(main())
    assert recorder.outcomes == [Outcome.CANCELLED]
    assert in_flight(balancer) == 0


@pytest.mark.parametrize("ends", ["by-the-server", "with-the-session"])
def test_a_dropped_response_is_released_when_its_connection_ends(
    a: Server, ends: str, request: pytest.FixtureRequest
) -> None:
    """Its last byte ends it as ever; a connection lost before that leaves a warning."""
    recorder = Recorder()
    balancer = Balancer([a.address], metrics=recorder)

    async def main() -> None:
        identity = request.node.name.partition("[")[2].rstrip("]")
        headers = {"Plan": "a=stream", "X-Request-Id": identity}
        async with ClientSession(middlewares=[LoadwiseMiddleware(balancer)]) as session:
            await session.get("http://service/", headers=headers)
            gc.collect()
            assert in_flight(balancer) == 1
            if ends == "by-the-server":
                await (await session.get(f"http://{a.address}/_go_on/{identity}")).read()
                await turns_until(lambda: in_flight(balancer) == 0)

    asyncio.run(main())
    if ends == "with-the-session":
        with pytest.warns(ResourceWarning, match=r"a lease on node .* was dropped"):
            gc.collect()
        balancer.pick()
    assert in_flight(balancer) == 0
    expected = Outcome.SUCCESS if ends == "by-the-server" else Outcome.CANCELLED
    assert recorder.outcomes[-1] is expected


def test_a_websocket_is_in_flight_until_it_is_closed(a: Server) -> None:
    """A websocket goes to a node and holds its slot as long as it is open."""
    balancer = Balancer([a.address])

    async def main() -> None:
        async with ClientSession(middlewares=[LoadwiseMiddleware(balancer)]) as session:
            async with session.ws_connect("ws://service/chat") as websocket:
                await websocket.send_str("hello")
                assert await websocket.receive_str() == "a: hello"
                assert in_flight(balancer) == 1
            assert in_flight(balancer) == 0

    asyncio.run(main())


class NoAnswer(AbstractResolver):
    """A resolver that never finds a name."""

    async def resolve(self, *_: Any, **__: Any) -> list[ResolveResult]:
        """Wait for ever."""
        await asyncio.Event().wait()
        return []

    async def close(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize("timeout", [{"connect": 0.05}, {"total": 0.05}], ids=str)
def test_a_connection_not_made_in_time_is_the_nodes_fault(timeout: dict[str, float]) -> None:
    """A node that cannot be reached in time has failed, by whichever timeout; nothing was sent."""
    recorder, quota = Recorder(), QuotaTracker()
    quota.register("http://nowhere.invalid", QuotaConfig([QuotaDimension("rpm", limit=10)]))
    balancer = Balancer(["http://nowhere.invalid"], quota=quota, metrics=recorder)

    async def main() -> None:
        async with ClientSession(
            middlewares=[LoadwiseMiddleware(balancer)],
            connector=TCPConnector(resolver=NoAnswer()),
            timeout=ClientTimeout(**timeout),
        ) as session:
            with pytest.raises(TimeoutError):
                await told(session)

    asyncio.run(main())
    assert recorder.outcomes == [Outcome.FAILURE]
    assert quota.remaining("http://nowhere.invalid", "rpm") == 10


@pytest.mark.parametrize("timeout", [{"connect": 0.05}, {"total": 0.05}], ids=str)
def test_waiting_for_the_sessions_own_pool_is_not_the_nodes_fault(
    a: Server, timeout: dict[str, float], request: pytest.FixtureRequest
) -> None:
    """A timeout while all connections of the session are busy says nothing about the node."""
    recorder = Recorder()
    balancer = Balancer([a.address], metrics=recorder)

    async def main() -> None:
        middleware = LoadwiseMiddleware(balancer)
        async with ClientSession(
            middlewares=[middleware], connector=TCPConnector(limit=1)
        ) as session:
            headers = {"Plan": "a=stream", "X-Request-Id": request.node.name}
            async with session.get("http://service/", headers=headers):
                with pytest.raises(TimeoutError):
                    await told(session, timeout=ClientTimeout(**timeout))

    asyncio.run(main())
    assert recorder.outcomes == [Outcome.CANCELLED, Outcome.SUCCESS]


async def _iterate(response: ClientResponse, how: str) -> None:
    content = response.content
    if how == "chunks":
        assert b"".join([piece async for piece, _ in content.iter_chunks()])
    elif how == "lines":
        assert [line async for line in content]
    elif how == "any":
        assert [piece async for piece in content.iter_any()]
    else:
        assert all([len(piece) <= 5 async for piece in content.iter_chunked(5)])


@pytest.mark.parametrize(
    "how", ["json", "read", "chunks", "lines", "any", "chunked", "exactly", "nowait", "unread"]
)
def test_a_meter_settles_however_the_body_is_read(a: Server, how: str) -> None:
    """An estimate is reserved, and settled once the body has been read to its end."""
    quota = QuotaTracker(ManualClock())
    tokens = QuotaDimension("tpm", limit=1_000, default_cost=0)
    quota.register(a.address, QuotaConfig([QuotaDimension("rpm", limit=10), tokens]))
    balancer = Balancer([a.address], quota=quota)

    async def main() -> None:
        middleware = LoadwiseMiddleware(balancer, meter=TokenMeter())
        headers = {"Plan": "a=usage"}
        prompt = {"messages": [], "max_tokens": 300}
        async with (
            ClientSession(middlewares=[middleware]) as session,
            session.post("http://service/", json=prompt, headers=headers) as response,
        ):
            assert quota.remaining(a.address, "tpm") == 700
            if how == "json":
                await response.json()
            elif how == "read":
                await response.read()
            elif how == "exactly":
                await response.content.readexactly(response.content_length or 0)
            elif how == "nowait":
                await response.content.readline()
                response.content.read_nowait()
            elif how != "unread":
                await _iterate(response, how)

    asyncio.run(main())
    assert in_flight(balancer) == 0
    assert quota.remaining(a.address, "tpm") == (700 if how == "unread" else 958)
    assert quota.remaining(a.address, "rpm") == 9
