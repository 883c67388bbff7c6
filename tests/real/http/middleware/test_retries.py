"""Retries of the aiohttp middleware: which, how many, and whose fault they are."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import (
    ClientConnectionError,
    ClientConnectorError,
    ClientHandlerType,
    ClientMiddlewareType,
    ClientOSError,
    ClientRequest,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ServerTimeoutError,
    TCPConnector,
)
from tests.real.http.middleware.support import Recorder, Server, in_flight, told

from loadwise import Balancer, Outcome, RoundRobin
from loadwise.integrations.aiohttp import LoadwiseMiddleware, request_options, route_of
from loadwise.retry_budget import RetryBudget
from loadwise.testing import ManualClock


@pytest.mark.parametrize(("error", "outcome"), [(KeyError, "cancelled"), (OSError, "failure")])
def test_a_body_that_raises_is_not_the_nodes_fault(
    a: Server, error: type[Exception], outcome: str
) -> None:
    """What the request's own generator raises is the caller's; only an OSError may be either's."""
    recorder = Recorder()
    balancer = Balancer([a.address], metrics=recorder)

    async def broken() -> AsyncIterator[bytes]:
        yield b"so"
        raise error("mine")

    async def main() -> None:
        async with ClientSession(middlewares=[LoadwiseMiddleware(balancer)]) as session:
            with pytest.raises(ClientConnectionError) as caught:
                await session.post("http://service/", data=broken())
            assert isinstance(caught.value.__cause__, error)

    asyncio.run(main())
    assert recorder.outcomes == [Outcome(outcome)]
    assert in_flight(balancer) == 0


def test_retry_after_and_classify(a: Server, b: Server) -> None:
    """A node is on cooldown for its Retry-After; ``classify`` may rule otherwise, or not at all."""
    clock = ManualClock()
    balancer = Balancer([a.address, b.address], RoundRobin(), clock=clock)

    def classify(result: ClientResponse | BaseException) -> Outcome | None:
        teapot = isinstance(result, ClientResponse) and result.status == 418
        return Outcome.FAILURE if teapot else None

    async def main() -> None:
        middleware = LoadwiseMiddleware(balancer, classify=classify)
        async with ClientSession(middlewares=[middleware]) as session:
            seen = await told(session, headers={"Plan": "a=429:30"})
            assert seen["server"] == "b"
            for moment, expected in ((0, {"b"}), (29, {"b"}), (2, {"a", "b"})):
                clock.advance(moment)
                assert {(await told(session))["server"] for _ in range(4)} == expected
            await told(session, headers={"Plan": "a=418 b=418"})
            await told(session, headers={"Plan": "a=418 b=418"})
        assert all(status.health_reason is not None for status in balancer.status())

    asyncio.run(main())


async def pieces() -> AsyncIterator[bytes]:
    """A body that can be read once."""
    yield b"so"
    yield b"me"


@pytest.mark.parametrize(
    ("method", "manners", "body", "extra", "attempts"),
    [
        ("GET", "reset", None, {}, 2),
        ("GET", "close", None, {}, 2),
        ("DELETE", "503", None, {}, 2),
        ("PUT", "reset", b"some", {}, 2),
        ("PUT", "503", "some", {}, 2),
        ("PUT", "503", {"some": "form"}, {}, 2),
        ("PUT", "reset", pieces, {}, 1),
        ("PUT", "503", lambda: io.BytesIO(b"some"), {}, 1),
        ("PATCH", "reset", b"some", {}, 1),
        ("POST", "reset", b"some", {}, 1),
        ("POST", "503", b"some", {}, 1),
        ("POST", "429", b"some", {}, 1),
        ("POST", "reset", b"some", {"retry": True}, 2),
        ("POST", "429", b"some", {"retry": True}, 2),
        ("POST", "reset", b"some", {"Idempotency-Key": "k"}, 2),
        ("POST", "503", pieces, {"retry": True}, 1),
        ("POST", "dead", b"some", {}, 2),
        ("POST", "dead", pieces, {}, 2),
        ("GET", "500", None, {}, 1),
    ],
)
def test_retries(
    a: Server,
    b: Server,
    dead: str,
    method: str,
    manners: str,
    body: Any,
    extra: dict[str, Any],
    attempts: int,
    request: pytest.FixtureRequest,
) -> None:
    """What was never sent always goes on; else if it is safe (RFC 9110, 9.2.2) and replayable."""
    first = dead if manners == "dead" else a.address
    balancer = Balancer([first, b.address], RoundRobin())
    identity = request.node.name
    headers = {"Plan": f"a={manners}", "X-Request-Id": identity}
    if "Idempotency-Key" in extra:
        headers.update(extra)
        extra = {}

    async def main() -> None:
        data = body() if callable(body) else body
        async with ClientSession(middlewares=[LoadwiseMiddleware(balancer)]) as session:
            try:
                with request_options(**extra):
                    async with session.request(
                        method, "http://service/", data=data, headers=headers
                    ) as response:
                        assert route_of(response)["attempts"] == attempts
                        seen = await response.json()
                        if body is not None:
                            assert seen["body"].startswith("some")
                        assert response.status == 200 or attempts == 1
            except ClientConnectionError:
                assert attempts == 1
                assert manners == "reset"

    asyncio.run(main())
    assert a.acted_on(identity) == (manners != "dead")
    assert b.acted_on(identity) == attempts - 1
    assert in_flight(balancer) == 0


@pytest.mark.parametrize("most", [1, 2])
def test_the_session_does_not_repeat_what_has_been_given_up(
    a: Server, b: Server, most: int, request: pytest.FixtureRequest
) -> None:
    """What aiohttp repeats after a lost connection is not repeated again; the error is kept."""
    balancer = Balancer([a.address, b.address], RoundRobin(), health=False)

    async def main() -> None:
        middleware = LoadwiseMiddleware(balancer, max_attempts=most)
        headers = {"Plan": "a=reset b=reset", "X-Request-Id": request.node.name}
        async with ClientSession(middlewares=[middleware]) as session:
            for _ in range(2):
                with pytest.raises(ClientOSError, match="reset by peer"):
                    await told(session, headers=headers)
            with pytest.raises(ClientOSError):
                await session.post("http://service/", headers={"Plan": "a=reset b=reset"})
            # What has failed before has nothing to do with the next request.
            (await session.post("http://service/")).release()

    asyncio.run(main())
    assert a.acted_on(request.node.name) + b.acted_on(request.node.name) == 2 * most


def test_what_a_middleware_beneath_it_has_sent_counts_as_sent(
    a: Server, b: Server, dead: str, request: pytest.FixtureRequest
) -> None:
    """A refused connection does not mean "never sent" if an earlier try of theirs was."""

    async def twice(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        (await handler(request)).release()
        request.url = request.url.with_port(int(dead.rpartition(":")[2]))
        return await handler(request)

    async def main() -> None:
        balancer = Balancer([a.address, b.address], RoundRobin())
        middlewares: list[ClientMiddlewareType] = [LoadwiseMiddleware(balancer), twice]
        async with ClientSession(middlewares=middlewares) as session:
            with pytest.raises(ClientConnectorError):
                await session.post("http://service/", headers={"X-Request-Id": request.node.name})

    asyncio.run(main())
    assert (a.acted_on(request.node.name), b.acted_on(request.node.name)) == (1, 0)


def test_an_answer_that_is_not_wanted_gives_back_its_connection(a: Server, b: Server) -> None:
    """The retry finds a connection even if the session has but one and the answer has no end."""
    balancer = Balancer([a.address, b.address], RoundRobin())

    async def main() -> None:
        async with ClientSession(
            middlewares=[LoadwiseMiddleware(balancer)],
            connector=TCPConnector(limit=1),
            timeout=ClientTimeout(10),
        ) as session:
            assert (await told(session, headers={"Plan": "a=stuck"}))["server"] == "b"

    asyncio.run(main())
    assert in_flight(balancer) == 0


def test_middlewares_around_it_may_send_again(a: Server) -> None:
    """One that calls its handler twice has two whole requests sent, with the URL as it was."""
    paths: list[str] = []

    async def twice(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        for manners in ("a=reset", "a=502"):
            request.headers["Plan"] = manners
            try:
                (await handler(request)).release()
            except ClientConnectionError:
                paths.append("lost")
        request.headers["Plan"] = ""
        return await handler(request)

    async def main() -> None:
        balancer = Balancer([f"{a.address}"], health=False)
        middlewares: list[ClientMiddlewareType] = [
            twice,
            LoadwiseMiddleware(balancer, url=lambda node: f"http://{node}/v1"),
        ]
        async with ClientSession(middlewares=middlewares) as session:
            paths.append((await told(session, "http://service/chat"))["path"])
        assert in_flight(balancer) == 0

    asyncio.run(main())
    assert paths == ["lost", "/v1/chat"]


def test_budget_and_deadline_end_retries(a: Server, b: Server) -> None:
    """When either is used up, the last answer or error surfaces, and the collector is told."""
    recorder = Recorder()
    balancer = Balancer([a.address, b.address], RoundRobin(), metrics=recorder)
    broke = RetryBudget(ratio=0.0, floor=0.0)

    async def main() -> None:
        async with (
            ClientSession(middlewares=[LoadwiseMiddleware(balancer, budget=broke)]) as session,
            session.get("http://service/", headers={"Plan": "a=503 b=503"}) as response,
        ):
            assert response.status == 503
        middleware = LoadwiseMiddleware(balancer, deadline=30.0)
        async with ClientSession(middlewares=[middleware]) as session:
            with (
                request_options(deadline=0.05),
                pytest.raises(ServerTimeoutError, match=r"127\.0\.0\.1.* by the deadline"),
            ):
                await told(session, headers={"Plan": "a=hang b=hang"})

    asyncio.run(main())
    assert recorder.refused == ["budget", "deadline"]
    assert recorder.outcomes == [Outcome.FAILURE, Outcome.FAILURE]


def test_no_request_is_lost_when_a_server_is_killed() -> None:
    """With 50 clients under way, a SIGKILL costs no GET, and no POST is acted on twice."""
    three = [Server(name) for name in ("c", "d", "e")]
    nodes = {server.wait().address: server for server in three}
    balancer = Balancer(list(nodes))
    posted: list[str] = []
    lost: list[str] = []

    async def main() -> None:
        middleware = LoadwiseMiddleware(balancer)
        async with ClientSession(middlewares=[middleware]) as session:

            async def client(number: int) -> None:
                for turn in range(8):
                    if number == 0 and turn == 3:
                        three[0].kill()
                    identity = f"{number}-{turn}"
                    await told(session)
                    try:
                        async with session.post(
                            "http://service/", data=b"once", headers={"X-Request-Id": identity}
                        ) as response:
                            assert response.status == 200
                            posted.append(identity)
                    except ClientConnectionError:
                        lost.append(identity)

            async with asyncio.TaskGroup() as group:
                for number in range(50):
                    group.create_task(client(number))

    try:
        asyncio.run(main())
        assert len(posted) + len(lost) == 400
        assert len(lost) <= 50  # those that were being sent when the server died
        ids = [identity for each in three[1:] for identity in each.all_acted_on() if identity]
        assert len(ids) == len(set(ids))
        assert not set(ids) & set(lost)
    finally:
        for server in three[1:]:
            server.kill()
    assert in_flight(balancer) == 0
