"""Deadlines and what is read of bodies, in every HTTP client, against real servers."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import pytest
from tests.real.http.conversing import AIOHTTP, ASYNC, REQUESTS, SYNC, Client, Scripted

from loadwise import Balancer, RoundRobin
from loadwise.integrations._http import aiohttp_urls, requests_urls
from loadwise.integrations._http.decoding import DecodingReader
from loadwise.integrations.aiohttp import LoadwiseMiddleware, request_options

pytestmark = pytest.mark.slow

Start = Callable[..., Scripted]

every_client = pytest.mark.parametrize("client", [*SYNC, *ASYNC, AIOHTTP, REQUESTS], ids=str)
every_httpx = pytest.mark.parametrize("client", [*SYNC, *ASYNC], ids=str)
GET = ("GET", "/")


@pytest.fixture(scope="module")
def plain() -> Iterator[list[str]]:
    """Two servers without manners, for all of these tests."""
    servers = Scripted("plain", 2)
    yield servers.nodes
    servers.stop()


def timed_out(client: Client) -> Any:
    """Return what a client raises when its time is up."""
    if client is REQUESTS:  # of a body that does not come it says the latter
        return client.module.Timeout, client.module.ConnectionError
    return TimeoutError if client is AIOHTTP else client.module.TimeoutException


def following(client: Client) -> dict[str, Any]:
    """Arguments with which a client follows redirects."""
    return {} if client in (AIOHTTP, REQUESTS) else {"follow_redirects": True}


@every_client
@pytest.mark.parametrize(("path", "where"), [("/slow-head", "request"), ("/drip", "transport")])
def test_a_deadline_holds_whatever_comes_bit_by_bit(
    client: Client, plain: list[str], path: str, where: str
) -> None:
    """Each byte begins the client's own timeouts anew, but not the deadline."""
    balancer = Balancer(plain[:1])
    deadline = {"deadline": 0.3}
    (came,) = client.converse(
        balancer,
        [("GET", path)],
        options=deadline if where == "transport" else {},
        said=deadline if where == "request" else {},
    )
    assert isinstance(came, timed_out(client))
    assert sum(status.in_flight for status in balancer.status()) == 0


@pytest.mark.parametrize("client", ASYNC, ids=str)
def test_a_deadline_holds_for_transports_of_ones_own(client: Client, plain: list[str]) -> None:
    """In an event loop whatever sends can be interrupted."""
    balancer = Balancer(plain[:1])
    options = {"deadline": 0.3, "transport": client.module.AsyncHTTPTransport()}
    (came,) = client.converse(balancer, [("GET", "/slow-head")], options=options)
    assert isinstance(came, timed_out(client))


@every_client
def test_a_deadline_holds_through_redirects(client: Client, plain: list[str]) -> None:
    """What a client asks on its own behalf belongs to the request that began it."""
    balancer = Balancer(plain[:1])
    came = client.converse(
        balancer, [("GET", "/wander"), GET], options={"deadline": 0.5}, client=following(client)
    )
    assert isinstance(came[0], timed_out(client))
    assert came[1] == 200


@pytest.mark.parametrize(
    ("client", "given"),
    [
        *((client, False) for client in (*SYNC, *ASYNC, AIOHTTP, REQUESTS)),
        *((client, True) for client in ASYNC),  # others cannot be interrupted, or have their own
    ],
    ids=str,
)
def test_a_deadline_holds_outside_the_fleet(
    client: Client,
    plain: list[str],
    given: bool,  # noqa: FBT001 - from pytest
) -> None:
    """A redirect that leaves it is part of the request; what is left holds for that, too."""
    balancer = Balancer(plain[:1])
    outside = plain[1]
    options: dict[str, Any] = {"deadline": 0.4}
    if given:
        options["transport"] = client.module.AsyncHTTPTransport()
    calls = [("GET", f"/to?{outside}/slow-head"), ("GET", f"/to?{outside}/drip6")]
    came = client.converse(balancer, calls, options=options, client=following(client))
    assert isinstance(came[0], timed_out(client))
    if client is REQUESTS:  # which is not streamed, and a part of the request
        assert isinstance(came[1], timed_out(client))
    else:
        assert came[1] == 200, "a body takes as long as it does"


@every_client
def test_a_request_that_is_sent_again_begins_anew(client: Client, plain: list[str]) -> None:
    """Its deadline is for each time."""
    balancer = Balancer(plain[:1])
    if client in (AIOHTTP, REQUESTS):
        assert client.converse(balancer, [GET] * 3, options={"deadline": 20.0}) == [200] * 3
        return
    ends: list[float] = []
    ours, module = client.ours, client.module

    def prepare(request: Any, node: str) -> None:
        ends.append(request.extensions["timeout"].cap(None))

    def ask() -> None:
        transport = ours.LoadwiseTransport(balancer, deadline=20.0, prepare=prepare)
        with module.Client(transport=transport) as session:
            request = session.build_request("GET", "http://service/")
            assert [session.send(request).status_code for _ in "123"] == [200] * 3

    async def ask_async() -> None:
        transport = ours.AsyncLoadwiseTransport(balancer, deadline=20.0, prepare=prepare)
        async with module.AsyncClient(transport=transport) as session:
            request = session.build_request("GET", "http://service/")
            assert [(await session.send(request)).status_code for _ in "123"] == [200] * 3

    asyncio.run(ask_async()) if client.waits else ask()
    assert len(ends) == 3


@every_client
def test_a_small_body_that_comes_slowly_is_handed_on(client: Client, plain: list[str]) -> None:
    """Nobody waits for all of it to see the headers; it is read as it comes, and is complete."""
    balancer = Balancer(plain[:1])

    def in_flight() -> int:
        return sum(status.in_flight for status in balancer.status())

    def ask() -> bytes:
        transport = client.ours.LoadwiseTransport(balancer)
        with (
            client.module.Client(transport=transport) as session,
            session.stream("GET", "http://service/drip13") as response,
        ):
            assert in_flight() == 1
            return b"".join(response.iter_raw())

    async def ask_async() -> bytes:
        transport = client.ours.AsyncLoadwiseTransport(balancer)
        async with (
            client.module.AsyncClient(transport=transport) as session,
            session.stream("GET", "http://service/drip13") as response,
        ):
            assert in_flight() == 1
            return b"".join([piece async for piece in response.aiter_raw()])

    async def ask_aiohttp() -> bytes:
        async with (
            aiohttp.ClientSession(middlewares=[LoadwiseMiddleware(balancer)]) as session,
            session.get("http://service/drip13") as response,
        ):
            assert in_flight() == 1
            return await response.read()

    def ask_requests() -> bytes:
        with client.module.Session() as session:
            session.mount("http://service/", client.ours.LoadwiseAdapter(balancer))
            response = session.get("http://service/drip13", stream=True)
            assert in_flight() == 1
            return b"".join(response.iter_content(None))

    if client is REQUESTS:
        body = ask_requests()
    elif client is AIOHTTP:
        body = asyncio.run(ask_aiohttp())
    else:
        body = asyncio.run(ask_async()) if client.waits else ask()
    assert body == b"x" * 13
    assert in_flight() == 0


@every_client
def test_an_answer_that_is_retried_keeps_its_connection(client: Client, scripted: Start) -> None:
    """Its small body is read by nobody else, so it is read to keep the connection."""
    busy, other = scripted("busy"), scripted("plain")
    balancer = Balancer([*busy.nodes, *other.nodes], RoundRobin())
    assert client.converse(balancer, [GET] * 12) == [200] * 12
    assert len(busy.told()[0]["requests"]) > 4
    assert [each["connections"] for each in (*busy.told(), *other.told())] == [1, 1]


@every_client
def test_a_large_answer_that_is_retried_is_not_read(client: Client, scripted: Start) -> None:
    """Another connection is cheaper."""
    servers = scripted("plain", 2)
    balancer = Balancer(servers.nodes, RoundRobin())
    assert client.converse(balancer, [("GET", "/large/busy"), GET]) == [503, 200]
    assert sum(each["connections"] for each in servers.told()) <= 3


@every_client
def test_a_small_body_that_breaks_off_is_had_from_another_node(
    client: Client, scripted: Start
) -> None:
    """Where the request may be repeated, also with aiohttp."""
    broken, other = scripted("cut"), scripted("plain")
    balancer = Balancer([*broken.nodes, *other.nodes], RoundRobin())
    assert client.converse(balancer, [GET] * 4) == [200] * 4
    balancer = Balancer([*broken.nodes, *other.nodes], RoundRobin())
    came = client.converse(balancer, [("POST", "/")] * 2)
    assert [answer == 200 for answer in came].count(False) == 1


@every_client
def test_long_urls_are_not_kept(client: Client, plain: list[str]) -> None:
    """What is kept of thousands of them would be hundreds of megabytes."""
    balancer = Balancer(plain[:1])
    own = {AIOHTTP: aiohttp_urls, REQUESTS: requests_urls}
    known = own[client].known if client in own else client.ours._LIBRARY._known
    client.converse(balancer, [GET])
    before = known.cache_info().currsize
    calls = [("GET", f"/{number}{'x' * 3000}") for number in range(5)]
    assert client.converse(balancer, calls) == [200] * 5
    assert known.cache_info().currsize == before


def test_bytes_after_the_end_of_a_compressed_body_cost_nothing() -> None:
    """They are nobody's, and are neither unpacked nor kept."""
    pieces: list[bytes] = []

    class Reader:
        def feed(self, chunk: bytes) -> None:
            pieces.append(chunk)

        def amounts(self) -> None:
            return None

    decoded = DecodingReader(Reader(), "gzip")
    decoded.feed(gzip.compress(b"all of it") + b"more")
    for _ in range(100):
        decoded.feed(b"x" * 10_000)
    assert b"".join(pieces) == b"all of it"
    assert len(decoded._inflate.unused_data) < 10_000


def test_options_of_one_block_do_not_outlast_it(plain: list[str]) -> None:
    """A deadline that has passed in one request does not reach into the next of the same task."""
    balancer = Balancer(plain[:1])

    async def main() -> int:
        async with aiohttp.ClientSession(middlewares=[LoadwiseMiddleware(balancer)]) as session:
            with request_options(deadline=0.2), pytest.raises(TimeoutError):
                await session.get("http://service/slow-head")
            async with session.get("http://service/") as response:
                return response.status

    assert asyncio.run(main()) == 200
