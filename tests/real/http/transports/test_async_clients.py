"""Asynchronous clients of httpx and httpx2: cancelled, closed, and used in turn."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event, Thread
from typing import Any

import pytest
from tests.real.http.transports.support import Recorder, Start, in_flight

from loadwise import Balancer, ConsecutiveFailurePolicy, HealthTracker, Outcome, RoundRobin

pytestmark = pytest.mark.slow


def test_async_client(library: Any, ours: Any, upstreams: Start, dead: str) -> None:
    """The async transport retries, streams and releases like the sync one."""
    (server,) = upstreams(1)
    balancer = Balancer([dead, server.address], RoundRobin())

    async def run() -> None:
        transport = ours.AsyncLoadwiseTransport(balancer)
        async with library.AsyncClient(transport=transport) as client:
            response = await client.post("http://service/x", json={"a": 1})
            assert response.extensions["loadwise"]["attempts"] == 2
            assert response.json()["body"].replace(" ", "") == '{"a":1}'
            async with client.stream("GET", "http://service/stream") as streamed:
                assert in_flight(balancer) == 1
                assert await streamed.aread() == b"piece 0\npiece 1\npiece 2\n"
        assert in_flight(balancer) == 0

    asyncio.run(run())


def test_cancelled_requests_say_nothing_about_their_node(
    library: Any, ours: Any, upstreams: Start
) -> None:
    """Fifty tasks cancelled while they wait leave health alone and nothing in flight."""
    (server,) = upstreams(1)
    recorder = Recorder()
    policy = ConsecutiveFailurePolicy(failure_threshold=1)
    balancer = Balancer([server.address], health=HealthTracker(policy), metrics=recorder)

    async def run() -> None:
        def classify(result: Any) -> None:
            assert result.status_code  # a cancellation, which is nobody's to judge, has none

        transport = ours.AsyncLoadwiseTransport(balancer, classify=classify)
        async with library.AsyncClient(transport=transport, timeout=60) as client:
            tasks = [
                asyncio.create_task(client.get("http://service/sleep?seconds=30"))
                for _ in range(50)
            ]
            while in_flight(balancer) < 50:  # noqa: ASYNC110 - the requests tell nobody else
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)

    asyncio.run(run())
    assert in_flight(balancer) == 0
    assert {outcome for _, outcome in recorder.outcomes} == {Outcome.CANCELLED}
    assert balancer.status()[0].health_reason is None


def test_a_body_whose_reader_is_cancelled_says_nothing_about_its_node(
    library: Any, ours: Any
) -> None:
    """A task cancelled while it waits for more of a body is neither a success nor a failure."""
    recorder = Recorder()

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await reader.read()
        writer.close()

    async def run() -> None:
        async with await asyncio.start_server(stall, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            balancer = Balancer([f"127.0.0.1:{port}"], metrics=recorder)
            transport = ours.AsyncLoadwiseTransport(balancer)
            begun = asyncio.Event()

            async def read(client: Any) -> None:
                async with client.stream("GET", "http://service/") as response:
                    async for _ in response.aiter_raw():
                        begun.set()

            async with library.AsyncClient(transport=transport) as client:
                task = asyncio.create_task(read(client))
                await begun.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert in_flight(balancer) == 0

    asyncio.run(run())
    assert [outcome for _, outcome in recorder.outcomes] == [Outcome.CANCELLED]


@pytest.mark.parametrize("begun", [False, True], ids=["headers", "body"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_breaks_because_the_client_is_closed_says_nothing_about_its_node(
    library: Any, ours: Any, kind: str, *, begun: bool
) -> None:
    """Closing a client ends its requests; they are not sent again, and their node is well."""
    recorder = Recorder()
    asked, answer = Event(), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"

    def stall(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            if begun:
                connection.sendall(answer)
            asked.set()
            with suppress(ConnectionError):  # how it is closed is for the client's system to say
                connection.recv(1)

    async def run(balancer: Balancer[str]) -> None:
        client = library.AsyncClient(transport=ours.AsyncLoadwiseTransport(balancer))
        task = asyncio.ensure_future(client.get("http://service/"))
        await asyncio.to_thread(asked.wait, 20)
        await client.aclose()
        with pytest.raises(library.TransportError):
            await task

    def run_in_threads(balancer: Balancer[str]) -> None:
        # A thread that reads is not woken when its socket is closed, but when its time is up.
        client = library.Client(transport=ours.LoadwiseTransport(balancer), timeout=2)
        with ThreadPoolExecutor() as pool:
            future = pool.submit(client.get, "http://service/")
            assert asked.wait(20)
            client.close()
            with pytest.raises(library.TransportError):
                future.result(20)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=stall, args=(listener,))
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        balancer = Balancer([address, "127.0.0.1:1"], RoundRobin(), metrics=recorder)
        if kind == "sync":
            run_in_threads(balancer)
        else:
            asyncio.run(run(balancer))
        thread.join(20)
    assert recorder.outcomes == [(address, Outcome.CANCELLED)]
    assert in_flight(balancer) == 0


def test_a_client_that_goes_on_after_closing_judges_as_ever(
    library: Any, ours: Any, upstreams: Start, dead: str
) -> None:
    """A transport that several clients share is closed by each; later failures count still."""
    (server,) = upstreams(1)
    balancer = Balancer([dead, server.address], RoundRobin())
    transport = ours.LoadwiseTransport(balancer)
    for _ in range(2):
        with library.Client(transport=transport) as client:
            assert client.get("http://service/").status_code == 200
    assert balancer.health is not None
    assert balancer.health.health(dead).consecutive_failures == 2
