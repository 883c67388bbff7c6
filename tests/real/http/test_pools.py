"""Each node has connections of its own, in httpx and httpx2, against real servers."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from tests.real.http.conversing import AIOHTTP, ASYNC, SYNC, Client, Scripted, failures

from loadwise import Balancer, RoundRobin

pytestmark = pytest.mark.slow

Start = Callable[..., Scripted]
Certificate = tuple[Path, Path]

every_client = pytest.mark.parametrize("client", [*SYNC, *ASYNC], ids=str)
every_async_client = pytest.mark.parametrize("client", ASYNC, ids=str)
GET = ("GET", "/")


def connections(told: list[dict[str, Any]]) -> list[int]:
    """Connections made to each server."""
    return [each["connections"] for each in told]


@pytest.mark.parametrize("client", [*SYNC, *ASYNC, AIOHTTP], ids=str)
def test_nodes_asked_in_turn_keep_their_connections(client: Client, scripted: Start) -> None:
    """However many nodes there are, none costs another its connection."""
    servers = scripted("plain", 64)
    balancer = Balancer(servers.nodes, RoundRobin())
    assert client.converse(balancer, [GET] * 192) == [200] * 192
    assert connections(servers.told()) == [1] * 64


@every_client
def test_nodes_asked_in_turn_by_http2_keep_their_connections(
    client: Client, scripted: Start, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default connections speak HTTP/2 where that is asked for, and TLS knows the nodes."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    servers = scripted("h2", 64, certificate)
    balancer = Balancer(servers.nodes, RoundRobin())
    assert client.converse(balancer, [GET] * 192, options={"http2": True}) == [200] * 192
    assert connections(servers.told()) == [1] * 64


@every_client
def test_a_server_that_speaks_no_http2_is_asked_by_http1(
    client: Client, scripted: Start, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS tells; its connections are kept like others, one request at a time."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    servers = scripted("plain", 2, certificate)
    balancer = Balancer(servers.nodes, RoundRobin())
    assert client.converse(balancer, [GET] * 6, options={"http2": True}) == [200] * 6
    assert connections(servers.told()) == [1, 1]


@every_async_client
def test_concurrent_requests_share_connections_of_http2(
    client: Client, scripted: Start, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One connection per node carries them all."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    servers = scripted("h2", 2, certificate)
    balancer = Balancer(servers.nodes, RoundRobin())

    async def main() -> list[Any]:
        session, send = client.open(balancer, {"http2": True})
        async with session:
            return await asyncio.gather(*(send(*GET) for _ in range(40)))

    assert asyncio.run(main()) == [200] * 40
    assert connections(servers.told()) == [1, 1]


@every_client
def test_max_connections_holds_over_all_nodes(client: Client, scripted: Start) -> None:
    """An idle connection of another node gives way."""
    servers = scripted("plain", 4)
    balancer = Balancer(servers.nodes, RoundRobin())
    limits = client.module.Limits(max_connections=2)

    def check() -> None:
        assert sum(each["open"] for each in servers.until(lambda told: _open(told) <= 2)) == 2

    came = client.converse(
        balancer, [GET, GET, GET, GET, check, *[GET] * 4, check], options={"limits": limits}
    )
    assert came == [200] * 8
    assert connections(servers.told()) == [2] * 4


def _open(told: list[dict[str, Any]]) -> int:
    return sum(each["open"] for each in told)


@every_client
def test_idle_connections_are_limited_by_node(client: Client, scripted: Start) -> None:
    """With none kept, each request has a new one."""
    servers = scripted("plain", 2)
    balancer = Balancer(servers.nodes, RoundRobin())
    limits = client.module.Limits(max_keepalive_connections=0)
    assert client.converse(balancer, [GET] * 6, options={"limits": limits}) == [200] * 6
    assert connections(servers.until(lambda told: not _open(told))) == [3, 3]


@every_async_client
def test_who_waits_gets_the_connection_that_is_given_back(client: Client, scripted: Start) -> None:
    """All go through, in turn, and never by more than there may be."""
    servers = scripted("plain", 3)
    balancer = Balancer(servers.nodes, RoundRobin())

    async def main() -> list[Any]:
        limits = client.module.Limits(max_connections=2)
        session, send = client.open(balancer, {"limits": limits})
        async with session:
            return await asyncio.gather(*(send(*GET) for _ in range(30)))

    assert asyncio.run(main()) == [200] * 30


@pytest.mark.parametrize("client", SYNC, ids=str)
def test_threads_that_wait_get_the_connection_that_is_given_back(
    client: Client, scripted: Start
) -> None:
    """All go through, in turn."""
    servers = scripted("plain", 3)
    balancer = Balancer(servers.nodes, RoundRobin())
    limits = client.module.Limits(max_connections=2)
    transport = client.ours.LoadwiseTransport(balancer, limits=limits)
    came: list[int] = []
    with client.module.Client(transport=transport) as session:

        def ask() -> None:
            for _ in range(10):
                came.append(session.get("http://service/").status_code)  # noqa: PERF401

        threads = [Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert came == [200] * 80


@every_client
def test_a_pool_that_is_used_up_is_nobodys_fault_and_is_not_retried(
    client: Client, scripted: Start
) -> None:
    """Another node would have to be asked by a connection of the same pool."""
    servers = scripted("plain", 3)
    balancer = Balancer(servers.nodes, RoundRobin())
    tried: list[Any] = []
    options = {
        "limits": client.module.Limits(max_connections=1),
        "prepare": lambda request, node: tried.append(node),
    }
    timeout = client.module.Timeout(20, pool=0.01)
    if client.waits:
        came = asyncio.run(_ask_while_held_async(client, balancer, options, timeout))
    else:
        transport = client.ours.LoadwiseTransport(balancer, **options)
        with (
            client.module.Client(transport=transport, timeout=timeout) as session,
            session.stream("POST", "http://service/hold"),
            pytest.raises(client.module.PoolTimeout) as raised,
        ):
            session.get("http://service/")
        came = raised.value
    assert isinstance(came, client.module.PoolTimeout)
    assert len(tried) == 2
    assert failures(balancer) == [0, 0, 0]


async def _ask_while_held_async(
    client: Client, balancer: Balancer[Any], options: dict[str, Any], patience: Any
) -> Any:
    transport = client.ours.AsyncLoadwiseTransport(balancer, **options)
    async with (
        client.module.AsyncClient(transport=transport, timeout=patience) as session,
        session.stream("POST", "http://service/hold"),
    ):
        with pytest.raises(client.module.PoolTimeout) as raised:
            await session.get("http://service/")
    return raised.value


@every_client
def test_a_node_that_leaves_has_its_connections_closed(client: Client, scripted: Start) -> None:
    """At the next request at the latest; a connection in use is closed when that is over."""
    servers = scripted("plain", 3)
    balancer = Balancer(servers.nodes, RoundRobin())

    def leave() -> None:
        balancer.remove(servers.nodes[0])

    def check() -> None:
        servers.until(lambda told: [each["open"] for each in told] == [0, 1, 1])

    assert client.converse(balancer, [*[GET] * 3, leave, GET, check]) == [200] * 4


@every_client
def test_a_request_under_way_outlasts_its_node(client: Client, scripted: Start) -> None:
    """Its connection is closed when it ends, and not before."""
    servers = scripted("plain", 2)
    balancer = Balancer(servers.nodes, RoundRobin())

    def is_open(*expected: int) -> None:
        servers.until(lambda told: [each["open"] for each in told] == list(expected))

    def ask() -> None:
        transport = client.ours.LoadwiseTransport(balancer)
        with client.module.Client(transport=transport) as session:
            with session.stream("POST", "http://service/hold") as response:
                balancer.remove(servers.nodes[0])
                session.get("http://service/")
                is_open(1, 1)
                assert next(response.iter_raw()) == b"o"
            is_open(0, 1)

    async def ask_async() -> None:
        transport = client.ours.AsyncLoadwiseTransport(balancer)
        async with client.module.AsyncClient(transport=transport) as session:
            async with session.stream("POST", "http://service/hold") as response:
                balancer.remove(servers.nodes[0])
                await session.get("http://service/")
                is_open(1, 1)
                assert await anext(response.aiter_raw()) == b"o"
            is_open(0, 1)

    asyncio.run(ask_async()) if client.waits else ask()


@every_client
def test_a_transport_for_each_node(
    client: Client, scripted: Start, certificate: Certificate
) -> None:
    """A function of the node makes it, once, and it is closed when the node has left."""
    servers = scripted("plain", 3, certificate)
    context = ssl.create_default_context(cafile=str(certificate[0]))
    made: list[str] = []
    closed: list[str] = []
    base = client.module.AsyncHTTPTransport if client.waits else client.module.HTTPTransport

    def make(node: str) -> Any:
        made.append(node)

        class Noted(base):  # type: ignore[misc, valid-type]
            def close(self) -> None:
                closed.append(node)
                super().close()

            async def aclose(self) -> None:
                closed.append(node)
                await super().aclose()

        return Noted(verify=context)

    balancer = Balancer(servers.nodes, RoundRobin())
    gone = servers.nodes[1]

    def check() -> None:
        assert closed == [gone]

    calls: list[Any] = [*[GET] * 6, lambda: balancer.remove(gone), GET, check]
    assert client.converse(balancer, calls, options={"transport": make}) == [200] * 7
    assert sorted(made) == sorted(servers.nodes)
    assert sorted(closed) == sorted(servers.nodes)
    assert connections(servers.told()) == [1, 1, 1]


@every_client
def test_a_pool_of_one_node_that_is_used_up_is_tried_elsewhere(
    client: Client, scripted: Start
) -> None:
    """Where each node has its own, another node has connections left."""
    servers = scripted("plain", 2)
    balancer = Balancer(servers.nodes, RoundRobin())
    limits = client.module.Limits(max_connections=1)
    base = client.module.AsyncHTTPTransport if client.waits else client.module.HTTPTransport
    timeout = client.module.Timeout(20, pool=0.01)

    def make(node: str) -> Any:
        return base(limits=limits)

    def ask() -> list[int]:
        transport = client.ours.LoadwiseTransport(balancer, make)
        with (
            client.module.Client(transport=transport, timeout=timeout) as session,
            session.stream("POST", "http://service/hold"),
        ):
            return [session.post("http://service/").status_code for _ in range(3)]

    async def ask_async() -> list[int]:
        transport = client.ours.AsyncLoadwiseTransport(balancer, make)
        async with (
            client.module.AsyncClient(transport=transport, timeout=timeout) as session,
            session.stream("POST", "http://service/hold"),
        ):
            return [(await session.post("http://service/")).status_code for _ in range(3)]

    assert (asyncio.run(ask_async()) if client.waits else ask()) == [200] * 3
    assert failures(balancer) == [0, 0]


@pytest.mark.parametrize("client", SYNC, ids=str)
def test_what_is_said_of_connections_is_checked(client: Client) -> None:
    """Wrong kinds are refused, and what a transport of one's own would not go by."""
    transports = (client.ours.LoadwiseTransport, client.ours.AsyncLoadwiseTransport)
    balancer = Balancer(["10.0.0.1:80"])
    package = client.library
    for transport in transports:
        with pytest.raises(TypeError, match=rf"limits is 5; it must be a {package}\.Limits"):
            transport(balancer, limits=5)
        with pytest.raises(TypeError, match=r"http2 is 1; it must be True or False"):
            transport(balancer, http2=1)
        with pytest.raises(TypeError, match="limits and http2 are for the connections that"):
            transport(balancer, lambda node: None, http2=True)
        with pytest.raises(TypeError, match=r"transport is 'x'; it must be a .*or a function"):
            transport(balancer, "x")

        async def later(node: str) -> None: ...

        with pytest.raises(TypeError, match=r"transport is .*which is to be awaited; make"):
            transport(balancer, later)


@pytest.mark.parametrize("client", SYNC, ids=str)
def test_http2_without_h2_says_what_to_install(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At construction, not at the first request."""
    monkeypatch.setitem(sys.modules, "h2", None)
    with pytest.raises(ImportError, match=rf"install {client.library}\[http2\]"):
        client.ours.LoadwiseTransport(Balancer(["10.0.0.1:80"]), http2=True)


@every_client
def test_the_cost_of_a_request_does_not_depend_on_the_number_of_nodes(
    client: Client, scripted: Start
) -> None:
    """Counted in calls, with the connections of all nodes open."""
    servers = scripted("plain", 100)
    counted = {count: _calls(client, servers.nodes[:count]) for count in (5, 100)}
    assert counted[100] <= counted[5] * 1.1


def _calls(client: Client, nodes: list[str]) -> int:
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    balancer = Balancer(nodes, RoundRobin())
    warm_up = [GET] * (2 * len(nodes))
    begin, end = (lambda: sys.setprofile(count)), (lambda: sys.setprofile(None))
    options: dict[str, Any] = {}
    if client.library.startswith("httpx"):
        # On a busy machine a node's turn may come after the 5 s for which connections are kept.
        options["limits"] = client.module.Limits(keepalive_expiry=None)
    client.converse(balancer, [*warm_up, begin, *[GET] * 50, end], options=options)
    return calls


@pytest.mark.parametrize("client", SYNC, ids=str)
@pytest.mark.parametrize("per_node", [False, True], ids=["default", "per node"])
def test_a_forked_child_has_connections_of_its_own(
    client: Client,
    scripted: Start,
    per_node: bool,  # noqa: FBT001 - from pytest
) -> None:
    """Two processes on one connection would read each other's answers."""
    servers = scripted("plain", 2)
    balancer = Balancer(servers.nodes, RoundRobin())
    make = (lambda node: client.module.HTTPTransport()) if per_node else None
    transport = client.ours.LoadwiseTransport(balancer, make)
    with client.module.Client(transport=transport) as session:
        assert [session.get("http://service/").status_code for _ in "12"] == [200, 200]
        child = os.fork()
        if not child:
            code = 1
            with suppress(BaseException):
                code = sum(session.get("http://service/").status_code != 200 for _ in "12")
            os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert [session.get("http://service/").status_code for _ in "12"] == [200, 200]
    assert connections(servers.told()) == [2, 2]
