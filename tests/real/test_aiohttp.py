"""The aiohttp middleware against real servers in processes of their own."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import (
    ClientConnectionError,
    ClientConnectorError,
    ClientHandlerType,
    ClientMiddlewareType,
    ClientOSError,
    ClientPayloadError,
    ClientRequest,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ServerDisconnectedError,
    ServerTimeoutError,
    TCPConnector,
)
from aiohttp.abc import AbstractResolver, ResolveResult

from loadwise import (
    Balancer,
    ConsistentHash,
    NoNodeAvailable,
    NoopCollector,
    Outcome,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    RoundRobin,
)
from loadwise.integrations.aiohttp import (
    LoadwiseMiddleware,
    by_cookie,
    by_header,
    request_options,
    route_of,
)
from loadwise.integrations.llm import TokenMeter
from loadwise.retry_budget import RetryBudget
from loadwise.testing import ManualClock

UPSTREAM = Path(__file__).with_name("aiohttp_upstream.py")


class Server:
    """A server process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, str(UPSTREAM), name], stdout=subprocess.PIPE, text=True
        )

    def wait(self) -> Server:
        """Wait until it listens."""
        assert self.process.stdout is not None
        self.address = f"127.0.0.1:{int(self.process.stdout.readline())}"
        return self

    def acted_on(self, identity: str) -> int:
        """How often it has acted on a request."""
        return self.all_acted_on().count(identity)

    def until_acted_on(self, identity: str) -> None:
        """Wait until it has acted on a request."""
        while not self.acted_on(identity):
            pass

    def all_acted_on(self) -> list[str]:
        """The ids of all requests it has acted on."""
        with urllib.request.urlopen(f"http://{self.address}/_tell", timeout=10) as answer:
            ids: list[str] = json.load(answer)
        return ids

    def kill(self) -> None:
        """Kill it and wait for its end."""
        self.process.kill()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Server]]:
    """Two servers, named a and b."""
    started = [Server(name) for name in "ab"]
    yield [server.wait() for server in started]
    for server in started:
        server.kill()


@pytest.fixture
def a(servers: list[Server]) -> Server:
    """The first server."""
    return servers[0]


@pytest.fixture
def b(servers: list[Server]) -> Server:
    """The second server."""
    return servers[1]


@pytest.fixture
def dead() -> Iterator[str]:
    """An address where nobody listens: the port of a socket that is bound but not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


class Recorder(NoopCollector):
    """Remembers outcomes, latencies, retries and what was refused."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.latencies: list[float] = []
        self.retries: list[object] = []
        self.refused: list[str] = []

    def on_outcome(self, node_id: object, outcome: Outcome, latency: float) -> None:
        self.outcomes.append(outcome)
        self.latencies.append(latency)

    def on_retry(self, node_id: object, reason: str) -> None:
        self.retries.append((node_id, reason))

    def on_retry_refused(self, reason: str) -> None:
        self.refused.append(reason)


def in_flight(balancer: Balancer[Any]) -> int:
    """Requests in flight over all nodes."""
    return sum(status.in_flight for status in balancer.status())


async def turns_until(condition: Callable[[], bool]) -> None:
    """Let the event loop turn until something is so."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what it waits for sets no event
            await asyncio.sleep(0)


async def told(session: ClientSession, url: str = "http://service/", **options: Any) -> Any:
    """Send a GET and return what the server says of it."""
    async with session.get(url, **options) as response:
        return await response.json()


def test_request_reaches_the_node_as_it_was(a: Server) -> None:
    """Method, path, query, headers and body stay; scheme, host, port and Host are the node's."""

    async def main() -> None:
        middleware = LoadwiseMiddleware(Balancer([a.address]))
        async with (
            ClientSession(middlewares=[middleware]) as session,
            session.put(
                "https://service.invalid/a%2Fb/c?x=1&y=%20z",
                data=b"body",
                headers={"X-Own": "value"},
            ) as response,
        ):
            seen = await response.json()
            assert seen["method"] == "PUT"
            assert seen["path"] == "/a%2Fb/c?x=1&y=%20z"
            assert seen["headers"]["host"] == a.address
            assert seen["headers"]["x-own"] == "value"
            assert seen["body"] == "body"
            assert route_of(response) == {"node": a.address, "attempts": 1}
            assert response.url.host == "service.invalid"
            assert response.request_info.url.authority == a.address
        async with ClientSession() as bare, bare.get(f"http://{a.address}/") as response:
            with pytest.raises(LookupError, match="has not come through a LoadwiseMiddleware"):
                route_of(response)

    asyncio.run(main())


def test_base_paths_relative_urls_own_hosts_and_keys_per_node(a: Server, b: Server) -> None:
    """A node's path stands first, a Host of one's own stays, and no node sees another's key."""

    def prepare(request: ClientRequest, node: str) -> None:
        request.headers[f"X-Key-{'a' if a.address in node else 'b'}"] = "secret"

    async def main() -> None:
        nodes = [f"http://{a.address}/v1/", f"http://{b.address}/v2"]
        middleware = LoadwiseMiddleware(Balancer(nodes, RoundRobin()), prepare=prepare)
        async with ClientSession("http://service", middlewares=[middleware]) as session:
            seen = await told(session, "/users?id=4", headers={"Plan": "a=503", "Host": "tenant"})
        assert (seen["server"], seen["path"]) == ("b", "/v2/users?id=4")
        assert seen["headers"]["host"] == "tenant"
        assert "x-key-b" in seen["headers"]
        assert "x-key-a" not in seen["headers"]

    asyncio.run(main())


def test_tls_is_for_the_nodes_name_and_its_failure_is_before_sending(b: Server) -> None:
    """The name asked for in TLS is the node's; a POST goes on when the handshake has failed."""
    names: list[str] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read the name in the client's hello and hang up; it takes no certificate to do so."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = lambda _socket, name, _context: names.append(name)
        incoming = ssl.MemoryBIO()
        incoming.write(await reader.read(65_536))
        with pytest.raises(ssl.SSLError):
            context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(greet, "127.0.0.1", 0) as listener:
            node = f"https://localhost:{listener.sockets[0].getsockname()[1]}"
            middleware = LoadwiseMiddleware(Balancer([node, b.address], RoundRobin()))
            async with (
                ClientSession(middlewares=[middleware]) as session,
                session.post("https://service.invalid/", json={"n": 1}) as response,
            ):
                assert (await response.json())["body"] == '{"n": 1}'
                assert route_of(response)["attempts"] == 2

    asyncio.run(main())
    assert names == ["localhost"]


@pytest.mark.parametrize(
    ("manners", "outcome", "timeout"),
    [
        ("200", Outcome.SUCCESS, {}),
        ("404", Outcome.SUCCESS, {}),
        ("500", Outcome.SUCCESS, {}),
        ("502", Outcome.FAILURE, {}),
        ("503", Outcome.FAILURE, {}),
        ("504", Outcome.FAILURE, {}),
        ("429", Outcome.RATE_LIMITED, {}),
        ("503:7", Outcome.FAILURE, {}),
        ("reset", Outcome.FAILURE, {}),
        ("close", Outcome.FAILURE, {}),
        ("hang", Outcome.FAILURE, {"sock_read": 0.05}),
        ("hang", Outcome.FAILURE, {"total": 0.05}),
        ("hang", Outcome.CANCELLED, {}),
    ],
)
def test_what_an_answer_says_of_its_node(
    a: Server, manners: str, outcome: Outcome, timeout: dict[str, float]
) -> None:
    """Lost connections, timeouts and 502 to 504 are failures; 4xx, 500 and cancellations not."""
    recorder = Recorder()
    balancer = Balancer([a.address], metrics=recorder)

    async def main() -> None:
        async with ClientSession(middlewares=[LoadwiseMiddleware(balancer)]) as session:
            request = asyncio.ensure_future(
                told(session, headers={"Plan": f"a={manners}"}, timeout=ClientTimeout(**timeout))
            )
            if outcome is Outcome.CANCELLED:
                await turns_until(lambda: in_flight(balancer) == 1)
                request.cancel()
            await asyncio.wait([request])
            if not manners.isdigit() and manners != "503:7":
                error = asyncio.CancelledError if outcome is Outcome.CANCELLED else Exception
                with pytest.raises(error):
                    request.result()

    asyncio.run(main())
    assert recorder.outcomes == [outcome]
    assert in_flight(balancer) == 0


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
    """A node sits out its Retry-After; ``classify`` may rule otherwise, or not at all."""
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


def test_redirects_are_balanced_again(a: Server, b: Server) -> None:
    """Where a redirect leads is a request of its own, and no slot stays taken."""
    balancer = Balancer([a.address, b.address], RoundRobin())

    async def main() -> None:
        async with (
            ClientSession(middlewares=[LoadwiseMiddleware(balancer)]) as session,
            session.get("http://service/", headers={"Plan": "a=redirect"}) as response,
        ):
            assert await response.json() == {"server": "b"}
            assert str(response.url) == "http://service/elsewhere"

    asyncio.run(main())
    assert in_flight(balancer) == 0


def test_affinity_by_header_cookie_and_request(a: Server, b: Server) -> None:
    """Requests of one key stay on one node, wherever it is told; a request's own goes first."""

    async def main() -> None:
        balancer = Balancer([a.address, b.address], ConsistentHash())
        by = {"header": by_header("X-User"), "cookie": by_cookie("user")}
        seen: dict[str, list[str]] = {}
        for kind, hash_key in by.items():
            middleware = LoadwiseMiddleware(balancer, hash_key=hash_key)
            async with ClientSession(middlewares=[middleware]) as session:
                seen[kind] = []
                for user in map(str, range(20)):
                    place: dict[str, Any] = (
                        {"headers": {"X-User": user}}
                        if kind == "header"
                        else {"cookies": {"user": user}}
                    )
                    seen[kind].append((await told(session, **place))["server"])
                    with request_options(hash_key="constant"):
                        fixed = await told(session, **place)
                    assert fixed["server"] == ("a" if _owner(balancer) == a.address else "b")
        assert seen["header"] == seen["cookie"]
        assert set(seen["header"]) == {"a", "b"}

    asyncio.run(main())


def _owner(balancer: Balancer[str]) -> str:
    return balancer.pick(hash_key="constant")


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


def test_arguments_are_checked_and_no_node_is_an_error_of_its_own() -> None:
    """Unknown names are refused with the nearest one; an empty balancer raises its own error."""
    with pytest.raises(TypeError, match="'max_attempt'; did you mean 'max_attempts'"):
        LoadwiseMiddleware(Balancer(["a:1"]), max_attempt=2)  # type: ignore[call-arg]  # what is tested
    with pytest.raises(ValueError, match=r"'primary' is neither a URL nor host:port.*url="):
        LoadwiseMiddleware(Balancer(["primary"]))
    with pytest.raises(ValueError, match="the request's deadline is -1; it must be"):
        request_options(deadline=-1).__enter__()

    async def main() -> None:
        async with ClientSession(
            middlewares=[LoadwiseMiddleware(Balancer([], name="search"))]
        ) as session:
            with pytest.raises(NoNodeAvailable, match="search"):
                await told(session)

    asyncio.run(main())


def test_missing_package_says_what_to_install() -> None:
    """Without aiohttp the integration says which extra to install."""
    script = "import sys; sys.modules['aiohttp'] = None\nimport loadwise.integrations.aiohttp"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 1
    assert "pip install 'loadwise[aiohttp]'" in result.stderr


def test_functions_to_be_awaited_are(a: Server, b: Server) -> None:
    """``prepare``, ``hash_key`` and ``classify`` may be coroutine functions."""
    judged: list[object] = []

    async def prepare(request: ClientRequest, node: object) -> None:
        await asyncio.sleep(0)
        request.headers["X-Own"] = f"for {node}"

    async def hash_key(request: ClientRequest) -> str:
        await asyncio.sleep(0)
        return request.headers["X-User"]

    async def classify(result: object) -> Outcome | None:
        await asyncio.sleep(0)
        judged.append(result)
        return None

    balancer = Balancer([a.address, b.address], ConsistentHash())
    middleware = LoadwiseMiddleware(balancer, prepare=prepare, hash_key=hash_key, classify=classify)

    async def main() -> None:
        async with ClientSession(middlewares=(middleware,)) as session:
            for user in ("ada", "grace", "edsger", "barbara"):
                async with session.get("http://service/", headers={"X-User": user}) as response:
                    told = await response.json()
                node = balancer.pick(hash_key=user)
                assert route_of(response)["node"] == node
                assert {name.lower(): each for name, each in told["headers"].items()}[
                    "x-own"
                ] == f"for {node}"

    asyncio.run(main())
    assert len(judged) == 4
    assert [status.in_flight for status in balancer.status()] == [0, 0]


@pytest.mark.parametrize("name", ["prepare", "hash_key", "classify"])
def test_what_such_a_function_raises_leaks_no_lease(a: Server, name: str) -> None:
    """It reaches the caller; nothing stays in flight, and blame is for set-up alone."""

    async def breaks(*_: object) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("broken")

    balancer = Balancer([a.address])
    options: dict[str, Any] = {name: breaks}

    async def main() -> None:
        async with ClientSession(middlewares=(LoadwiseMiddleware(balancer, **options),)) as session:
            with pytest.raises(RuntimeError, match="broken"):
                await session.get("http://service/")

    asyncio.run(main())
    (status,) = balancer.status()
    assert status.in_flight == 0
    assert (status.health_reason is None) is (name != "prepare")
