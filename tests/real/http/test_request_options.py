"""Which nodes a request may go to, and how long it waits for one, in every HTTP client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from tests.real.http.conversing import AIOHTTP, ASYNC, REQUESTS, SYNC, Client, Scripted

from loadwise import Balancer, NoNodeAvailable, RoundRobin
from loadwise.integrations.aiohttp import LoadwiseMiddleware

pytestmark = pytest.mark.slow

Start = Callable[..., Scripted]

every_client = pytest.mark.parametrize("client", [*SYNC, *ASYNC, AIOHTTP, REQUESTS], ids=str)
every_async_client = pytest.mark.parametrize("client", [*ASYNC, AIOHTTP], ids=str)
GET = ("GET", "/")


@every_client
def test_where_holds_for_all_attempts(client: Client, scripted: Start) -> None:
    """A request goes to nodes that pass, and to no others when it is retried."""
    servers = scripted("plain", 3)
    balancer = Balancer(servers.nodes, RoundRobin())
    wanted = servers.nodes[1]
    said = {"where": lambda node: node == wanted}
    assert client.converse(balancer, [GET] * 5, said=said) == [200] * 5
    (came,) = client.converse(balancer, [("GET", "/busy-please")], said=said)
    assert came == 200
    (came,) = client.converse(balancer, [("GET", "/die")], said=said)
    assert isinstance(came, Exception)
    told = servers.told()
    assert [len(each["requests"]) for each in told] == [0, 7, 0]


@every_client
@pytest.mark.parametrize(
    ("said", "error"),
    [({"where": "eu"}, TypeError), ({"timeout": -1}, ValueError), ({"timeout": "1"}, TypeError)],
    ids=str,
)
def test_they_are_checked(client: Client, said: dict[str, Any], error: type[Exception]) -> None:
    """Before anything is chosen."""
    balancer = Balancer(["10.0.0.1:80"])
    (came,) = client.converse(balancer, [GET], said=said)
    assert isinstance(came, error)
    assert balancer.status()[0].picks == 0


@every_client
def test_a_request_waits_for_a_node_that_is_on_cooldown(client: Client, scripted: Start) -> None:
    """Without a timeout it is refused at once; with one it goes through."""
    balancer = Balancer(scripted("plain").nodes)
    balancer.acquire().rate_limited(0.3)
    (refused,) = client.converse(balancer, [GET])
    assert isinstance(refused, NoNodeAvailable)
    assert client.converse(balancer, [GET], said={"timeout": 20.0}) == [200]


@every_client
def test_the_deadline_bounds_the_wait_for_a_node(client: Client, scripted: Start) -> None:
    """However long it would wait."""
    balancer = Balancer(scripted("plain").nodes)
    balancer.acquire().rate_limited(3000)
    said = {"timeout": None, "deadline": 0.2}
    (refused,) = client.converse(balancer, [GET], said=said)
    assert isinstance(refused, NoNodeAvailable)


@every_async_client
def test_requests_wait_their_turn_at_a_full_node(client: Client, scripted: Start) -> None:
    """In an event loop, which goes on meanwhile."""
    servers = scripted("plain")
    balancer = Balancer(servers.nodes, max_in_flight=1)

    async def main() -> list[Any]:
        session, send = client.open(balancer, said={"timeout": 30.0})
        async with session:
            return await asyncio.gather(*(send(*GET) for _ in range(20)))

    assert asyncio.run(main()) == [200] * 20


@every_client
def test_an_auth_challenge_is_answered_to_who_gave_it(client: Client, scripted: Start) -> None:
    """What a node has given with it, such as a nonce, the others do not know."""
    servers = scripted("digest", 4)
    balancer = Balancer(servers.nodes, RoundRobin())

    def ask() -> list[int]:
        auth = client.module.DigestAuth("ada", "secret")
        transport = client.ours.LoadwiseTransport(balancer)
        with client.module.Client(transport=transport) as session:
            return [session.get(f"http://service/{n}", auth=auth).status_code for n in range(3)]

    async def ask_async() -> list[int]:
        auth = client.module.DigestAuth("ada", "secret")
        transport = client.ours.AsyncLoadwiseTransport(balancer)
        async with client.module.AsyncClient(transport=transport) as session:
            came = [await session.get(f"http://service/{n}", auth=auth) for n in range(3)]
            return [response.status_code for response in came]

    async def ask_aiohttp() -> list[int]:
        came = []
        for number in range(3):
            digest = aiohttp.DigestAuthMiddleware("ada", "secret", preemptive=False)
            middlewares = (digest, LoadwiseMiddleware(balancer))
            async with (
                aiohttp.ClientSession(middlewares=middlewares) as session,
                session.get(f"http://service/{number}") as response,
            ):
                came.append(response.status)
        return came

    def ask_requests() -> list[int]:
        with client.module.Session() as session:
            session.mount("http://service/", client.ours.LoadwiseAdapter(balancer))
            session.auth = client.module.auth.HTTPDigestAuth("ada", "secret")
            return [session.get(f"http://service/{n}").status_code for n in range(3)]

    if client is REQUESTS:
        came = ask_requests()
    elif client is AIOHTTP:
        came = asyncio.run(ask_aiohttp())
    else:
        came = asyncio.run(ask_async()) if client.waits else ask()
    # httpx brings the last nonce with the next request, to whichever node that goes, and is
    # challenged there anew.
    assert came == [200] * 3


@every_client
def test_the_latency_of_a_stream_of_events_is_the_time_to_the_first(
    client: Client, scripted: Start
) -> None:
    """A server sends its headers long before it has anything to say."""
    balancer = Balancer(scripted("plain").nodes)
    assert client.converse(balancer, [("GET", "/events")]) == [200]
    (status,) = balancer.status()
    assert status.latency is not None
    assert status.latency >= 0.3  # what the server waits, at least
