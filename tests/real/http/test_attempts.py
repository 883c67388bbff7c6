"""Attempts of one request, which share nothing that one of them may change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDict
from tests.integrations.http.clients import AIOHTTP, ASYNC, SYNC, Ask, Client, every_client
from yarl import URL

from loadwise import Balancer, RoundRobin
from loadwise.integrations._http.aiohttp_twins import twin_of
from loadwise.integrations._http.node_cookies import NodeCookies
from loadwise.integrations.aiohttp import LoadwiseMiddleware

every_httpx_client = pytest.mark.parametrize(
    "client", [*SYNC, *(client for client in ASYNC if client is not AIOHTTP)], ids=str
)
pytestmark = pytest.mark.slow

Start = Callable[[int], list[Any]]


@pytest.fixture
def balancer(upstreams: Start) -> Balancer[str]:
    """Two servers, asked in turn, of which the first fails."""
    bad, good = upstreams(2)
    bad.behave("fail")
    return Balancer([bad.address, good.address], RoundRobin(start=0))


def test_expect_100_is_waited_for_anew(balancer: Balancer[str]) -> None:
    """A server that refuses at once ends the wait of its attempt, and of no other one."""

    async def main() -> Any:
        middleware = LoadwiseMiddleware(balancer)
        async with (
            aiohttp.ClientSession(middlewares=[middleware]) as session,
            session.put("http://service/", data=b"body", expect100=True) as response,
        ):
            return await response.json()

    told = asyncio.run(main())
    assert (told["body"], told["headers"]["expect"]) == ("body", "100-continue")


@every_httpx_client
def test_what_prepare_changes_is_gone_in_the_next_attempt(
    client: Client, balancer: Balancer[str]
) -> None:
    """Headers, timeouts and extensions are those that were asked for, each time."""
    seen: list[tuple[dict[str, Any], dict[str, str]]] = []

    def prepare(request: Any, node: str) -> None:
        seen.append((deepcopy(request.extensions), dict(request.headers)))
        request.extensions["timeout"]["read"] = 1.0
        request.extensions["own"]["node"] = node
        request.headers["Accept"] = request.headers["X-Node"] = node

    more = {"extensions": {"own": {"a": 1}}}
    (answer,) = client.send(balancer, Ask("http://service/", more=more), prepare=prepare)
    assert json.loads(answer.body)["headers"]["x-node"] == balancer.nodes[1]
    (extensions, headers), (others, other_headers) = seen
    assert extensions == others
    assert extensions["own"] == {"a": 1}
    assert {**headers, "host": other_headers["host"]} == other_headers
    assert more == {"extensions": {"own": {"a": 1}}}


def test_what_prepare_changes_in_aiohttp_is_gone_in_the_next_attempt(
    balancer: Balancer[str],
) -> None:
    """So it is with what aiohttp keeps beside the headers, and with the body."""
    seen: list[Any] = []

    async def prepare(request: aiohttp.ClientRequest, node: str) -> None:
        body = await request.body.as_bytes() if request.body else b""
        seen.append((list(request._traces), dict(request.headers), body))
        request._traces.clear()
        request.headers["Accept"] = node
        await request.update_body(node.encode())

    async def main() -> Any:
        traces = aiohttp.TraceConfig()
        async with (
            aiohttp.ClientSession(
                middlewares=[LoadwiseMiddleware(balancer, prepare=prepare)], trace_configs=[traces]
            ) as session,
            session.put("http://service/", json={"n": 1}) as response,
        ):
            return await response.json()

    told = asyncio.run(main())
    assert told["body"] == balancer.nodes[1]
    first, second = seen
    assert len(first[0]) == len(second[0]) == 1
    assert (first[2], second[2]) == (b'{"n": 1}', b'{"n": 1}')
    assert {**first[1], "Host": second[1]["Host"]} == second[1]


def test_a_proxys_headers_are_those_of_each_attempt() -> None:
    """What is set for one node is not sent for another."""

    async def main() -> None:
        headers = CIMultiDict({"A": "b"})
        async with aiohttp.ClientSession() as session:
            request = aiohttp.ClientRequest(
                "GET",
                URL("http://service/"),
                proxy=URL("http://proxy/"),
                proxy_headers=headers,
                loop=asyncio.get_running_loop(),
                session=session,
            )
            twin: Any = twin_of(request)
            assert twin.proxy_headers == headers
            twin.proxy_headers["X-Node"] = "first"
            assert twin_of(request).proxy_headers == headers

    asyncio.run(main())


def test_traces_see_each_attempt(balancer: Balancer[str]) -> None:
    """Each with the headers that it was sent with."""
    sent: list[str] = []

    async def note(_: Any, __: Any, parameters: aiohttp.TraceRequestHeadersSentParams) -> None:
        sent.append(parameters.headers["Host"])

    async def main() -> None:
        traces = aiohttp.TraceConfig()
        traces.on_request_headers_sent.append(note)
        async with (
            aiohttp.ClientSession(
                middlewares=[LoadwiseMiddleware(balancer)], trace_configs=[traces]
            ) as session,
            session.get("http://service/") as response,
        ):
            assert response.status == 200

    asyncio.run(main())
    assert sent == list(balancer.nodes)


COOKIE = "/?cookie=sid%3D{}%3B%20Path%3D/"


@every_client
@pytest.mark.parametrize("base", ["", "/v1"])
def test_a_nodes_cookies_may_be_its_own(client: Client, upstreams: Start, base: str) -> None:
    """With ``node_cookies=True`` what one node sets is sent to that node alone, and unseen."""
    balancer = Balancer(
        [f"http://{server.address}{base}" for server in upstreams(2)], RoundRobin(start=0)
    )
    asks: list[Ask | str] = [
        f"http://service{COOKIE.format('first')}",
        f"http://service{COOKIE.format('second')}",
        "http://service/",
        Ask("http://service/", more={"headers": {"Cookie": "own=1"}}),
    ]
    answers = client.send(balancer, *asks, node_cookies=True)
    assert [answer.cookies for answer in answers] == [[]] * 4
    sent = [json.loads(answer.body)["headers"].get("cookie") for answer in answers]
    assert sent == [None, None, "sid=first", "own=1; sid=second"]


@every_client
def test_cookies_are_those_of_the_service_by_default(client: Client, upstreams: Start) -> None:
    """Servers of one service share a session."""
    balancer = Balancer([server.address for server in upstreams(2)], RoundRobin(start=0))
    asks = (f"http://service.example{COOKIE.format('first')}", "http://service.example/")
    answers = client.send(balancer, *asks)
    assert json.loads(answers[1].body)["headers"]["cookie"] == "sid=first"
    with pytest.raises(TypeError, match="node_cookies is 'yes'; it must be True or False"):
        client.send(balancer, node_cookies="yes")


def test_a_node_that_has_left_is_forgotten() -> None:
    """Jars do not pile up where nodes come and go."""
    balancer = Balancer(["a"])
    jars = NodeCookies(balancer)
    for number in range(100):
        jars.take(f"node-{number}", "http://10.0.0.1/", ["sid=1", "b=2; Path=/v1", "c=3; Secure"])
        balancer.replace([f"node-{number}"])
    assert jars.header("node-99", "http://10.0.0.1/v1/x", None) == "b=2; sid=1"
    assert jars.header("node-99", "https://10.0.0.1/", "own=1") == "own=1; sid=1; c=3"
    assert jars.header("node-0", "http://10.0.0.1/", None) is None
    assert jars.header("node-0", "http://10.0.0.1/", "own=1") == "own=1"
    assert (
        sum(jars.header(f"node-{n}", "http://10.0.0.1/", None) is not None for n in range(100)) < 20
    )
