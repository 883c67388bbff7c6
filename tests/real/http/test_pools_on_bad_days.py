"""Connections when something is unlike what was expected."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.real.http.conversing import ASYNC, SYNC, Client, Scripted, failures

from loadwise import Balancer, RoundRobin

pytestmark = pytest.mark.slow

Start = Callable[..., Scripted]

every_client = pytest.mark.parametrize("client", [*SYNC, *ASYNC], ids=str)
every_async_client = pytest.mark.parametrize("client", ASYNC, ids=str)
GET = ("GET", "/")
MANY = 40


@every_client
def test_many_at_once_find_out_that_a_server_speaks_no_http2(
    client: Client,
    scripted: Start,
    certificate: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each gets a connection of its own then, however many had hoped to share one."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    balancer = Balancer(scripted("plain", 1, certificate).nodes)
    url = "http://service/wander"  # takes long enough for all of them to be under way

    async def ask_async() -> list[int]:
        transport = client.ours.AsyncLoadwiseTransport(balancer, http2=True)
        async with client.module.AsyncClient(transport=transport, timeout=30) as session:
            answers = await asyncio.gather(*(session.get(url) for _ in range(MANY)))
            return [answer.status_code for answer in answers]

    def ask() -> list[int]:
        transport = client.ours.LoadwiseTransport(balancer, http2=True)
        with (
            client.module.Client(transport=transport, timeout=30) as session,
            ThreadPoolExecutor(MANY) as pool,
        ):
            return [answer.status_code for answer in pool.map(session.get, [url] * MANY)]

    assert (asyncio.run(ask_async()) if client.waits else ask()) == [302] * MANY
    assert failures(balancer) == [0]


@every_client
def test_nothing_is_kept_of_places_outside_the_fleet(client: Client, scripted: Start) -> None:
    """Redirects may lead to ever new ones, while the members stay the same."""
    balancer = Balancer(scripted("plain").nodes)
    outside = scripted("plain", 12).nodes
    calls = [("GET", f"/to?{each}/") for each in outside]
    kept: list[int] = []
    transports: list[Any] = []

    def note(result: Any) -> None:
        kept.append(len(transports[0]._sender._pool._shelves))

    limits = client.module.Limits(max_keepalive_connections=0)
    name = "AsyncLoadwiseTransport" if client.waits else "LoadwiseTransport"
    transport = getattr(client.ours, name)(balancer, limits=limits, classify=note)
    transports.append(transport)

    async def ask_async() -> list[int]:
        async with client.module.AsyncClient(transport=transport, follow_redirects=True) as session:
            return [(await session.get(f"http://service{path}")).status_code for _, path in calls]

    def ask() -> list[int]:
        with client.module.Client(transport=transport, follow_redirects=True) as session:
            return [session.get(f"http://service{path}").status_code for _, path in calls]

    assert (asyncio.run(ask_async()) if client.waits else ask()) == [200] * len(calls)
    assert max(kept) == 1


@every_async_client
def test_a_connection_is_not_lost_where_another_is_closed(client: Client, scripted: Start) -> None:
    """Who is cancelled while old connections are closed gives back the one just taken."""
    servers = scripted("plain")
    balancer = Balancer(servers.nodes)

    class Stuck:
        async def aclose(self) -> None:
            raise asyncio.CancelledError

    async def main() -> None:
        transport = client.ours.AsyncLoadwiseTransport(balancer)
        async with client.module.AsyncClient(transport=transport) as session:
            assert (await session.get("http://service/")).status_code == 200
            transport._sender._pool.doomed.append(Stuck())
            with pytest.raises(asyncio.CancelledError):
                await session.get("http://service/")
            assert (await session.get("http://service/")).status_code == 200

    asyncio.run(main())
    assert servers.told()[0]["connections"] == 1
    assert sum(status.in_flight for status in balancer.status()) == 0


@every_async_client
def test_who_is_cancelled_while_connecting_leaves_the_connection_to_the_others(
    client: Client,
    scripted: Start,
    certificate: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With HTTP/2 several wait for it; it is kept, and closed in the end."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    servers = scripted("h2", 1, certificate)
    balancer = Balancer(servers.nodes)

    async def main() -> None:
        transport = client.ours.AsyncLoadwiseTransport(balancer, http2=True)
        async with client.module.AsyncClient(transport=transport) as session:
            first, *others = (asyncio.create_task(session.get("http://service/")) for _ in range(3))
            for _ in range(3):
                await asyncio.sleep(0)
            first.cancel()
            assert [(await other).status_code for other in others] == [200, 200]
            assert first.cancelled()
            assert len(transport._sender._pool) == 1
        await asyncio.sleep(0)
        servers.until(lambda told: not told[0]["open"])

    gc.disable()  # which closes what is lost
    try:
        asyncio.run(main())
    finally:
        gc.enable()


@every_async_client
def test_who_is_cancelled_in_a_handshake_leaves_no_connection(
    client: Client, scripted: Start
) -> None:
    """It is closed at once, and not when somebody collects it, with a warning."""
    servers = scripted("plain")  # waits for the end of what is no request
    balancer = Balancer([node.replace("http:", "https:") for node in servers.nodes])

    async def main() -> None:
        begun = asyncio.Event()

        async def trace(event: str, info: dict[str, Any]) -> None:
            if event == "connection.start_tls.started":
                begun.set()

        transport = client.ours.AsyncLoadwiseTransport(balancer)
        async with client.module.AsyncClient(transport=transport, timeout=60) as session:
            asking = asyncio.create_task(
                session.get("http://service/", extensions={"trace": trace})
            )
            await begun.wait()
            for _ in range(10):
                await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ResourceWarning)
        asyncio.run(main())
        gc.collect()
    assert warned == []


@every_async_client
def test_transports_of_nodes_that_have_left_are_closed_in_the_end(
    client: Client, scripted: Start
) -> None:
    """Who is cancelled while one is closed leaves the others to the next."""
    nodes = scripted("plain", 4).nodes
    balancer = Balancer(nodes, RoundRobin())
    closed: list[Any] = []

    class Inner(client.module.AsyncHTTPTransport):  # type: ignore[misc, name-defined, unused-ignore]
        async def aclose(self) -> None:
            await super().aclose()
            closed.append(self)
            if len(closed) == 1:
                raise asyncio.CancelledError

    async def main() -> None:
        transport = client.ours.AsyncLoadwiseTransport(balancer, lambda node: Inner())
        async with client.module.AsyncClient(transport=transport) as session:
            for _ in nodes:
                await session.get("http://service/")
            balancer.replace(nodes[:1])
            with pytest.raises(asyncio.CancelledError):
                await session.get("http://service/")
            assert (await session.get("http://service/")).status_code == 200
            assert len(closed) == 3

    asyncio.run(main())


@every_async_client
def test_a_stalled_answer_that_is_retried_holds_nobody_up(client: Client, scripted: Start) -> None:
    """Its rest is waited for shortly, also where HTTP/2 might have been spoken."""
    balancer = Balancer([*scripted("stall").nodes, *scripted("plain").nodes], RoundRobin())

    async def main() -> int:
        transport = client.ours.AsyncLoadwiseTransport(balancer, http2=True)
        async with (
            asyncio.timeout(10),
            client.module.AsyncClient(transport=transport, timeout=60) as session,
        ):
            return int((await session.get("http://service/")).status_code)

    assert asyncio.run(main()) == 200
