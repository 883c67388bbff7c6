"""Whose fault a failure is, in every HTTP client, against real servers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from importlib import import_module
from typing import Any

import aiohttp
import pytest

from loadwise import Balancer, NoNodeAvailable, NoopCollector, Outcome, RoundRobin, SelectionContext
from loadwise.integrations._http.verdict import Verdict
from loadwise.integrations.aiohttp import LoadwiseMiddleware
from loadwise.testing import ManualClock

pytestmark = pytest.mark.slow

Start = Callable[[int], list[Any]]
EMPTY = SelectionContext()

# The packages have no common base, so what is theirs is Any here as in the sources.


class InOrder:
    """A strategy that takes the first node there is."""

    def select(self, candidates: Any, context: SelectionContext = EMPTY) -> int | None:
        """Return the first index, if any."""
        return 0 if len(candidates) else None


class Outcomes(NoopCollector):
    """Remembers how requests ended."""

    def __init__(self) -> None:
        self.seen: list[Outcome] = []

    def on_outcome(self, node_id: object, outcome: Outcome, latency: float) -> None:
        self.seen.append(outcome)


class Client:
    """A way to send requests and read their answers to the end: one of six clients.

    Args:
        library: The package.
        waits: Whether its client is an asynchronous one.
    """

    def __init__(self, library: str, *, waits: bool) -> None:
        self.library = library
        self.waits = waits

    def __str__(self) -> str:
        return self.library + ("-async" if self.waits else "")

    def send(self, balancer: Balancer[str], path: str, method: str = "GET", **options: Any) -> Any:
        """Send a request; return the status of its answer, or what was raised."""
        if self.waits:
            return asyncio.run(self.send_async(balancer, path, method, **options))
        module: Any = import_module(self.library)
        ours: Any = import_module(f"loadwise.integrations.{self.library}")
        try:
            if self.library == "requests":
                with module.Session() as session:
                    session.mount("http://service/", ours.LoadwiseAdapter(balancer, **options))
                    return session.request(method, f"http://service{path}").status_code
            with module.Client(transport=ours.LoadwiseTransport(balancer, **options)) as client:
                return client.request(method, f"http://service{path}").status_code
        except Exception as error:  # noqa: BLE001 - what came of it is for the test to judge
            return error

    async def send_async(
        self, balancer: Balancer[str], path: str, method: str = "GET", **options: Any
    ) -> Any:
        """Send a request; return the status of its answer, or what was raised."""
        try:
            if self.library == "aiohttp":
                middleware = LoadwiseMiddleware(balancer, **options)
                async with (
                    aiohttp.ClientSession(middlewares=[middleware]) as session,
                    session.request(method, f"http://service{path}") as response,
                ):
                    await response.read()
                    return response.status
            module: Any = import_module(self.library)
            ours: Any = import_module(f"loadwise.integrations.{self.library}")
            transport = ours.AsyncLoadwiseTransport(balancer, **options)
            async with module.AsyncClient(transport=transport) as client:
                return (await client.request(method, f"http://service{path}")).status_code
        except Exception as error:  # noqa: BLE001 - what came of it is for the test to judge
            return error


SYNC = [Client(library, waits=False) for library in ("httpx", "httpx2", "requests")]
ASYNC = [Client(library, waits=True) for library in ("httpx", "httpx2", "aiohttp")]
every_client = pytest.mark.parametrize("client", [*SYNC, *ASYNC], ids=str)
every_async_client = pytest.mark.parametrize("client", ASYNC, ids=str)


def failures(balancer: Balancer[str]) -> list[int]:
    """Return the failures in a row of each node, as its health knows them."""
    assert balancer.health is not None
    return [balancer.health.health(node).consecutive_failures for node in balancer.nodes]


@pytest.fixture
def dead() -> Iterator[list[str]]:
    """Three addresses where nobody listens."""
    sockets = [socket.socket() for _ in range(3)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    yield [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()


@every_client
@pytest.mark.parametrize("path", ["/?status=503", "/reset"])
def test_a_poisoned_request_does_not_take_the_fleet_down(
    client: Client, upstreams: Start, path: str
) -> None:
    """What fails on every node counts against the first of them, and the others go on."""
    outcomes = Outcomes()
    servers = [server.address for server in upstreams(3)]
    balancer = Balancer(servers, InOrder(), metrics=outcomes)
    for _ in range(3):
        answer = client.send(balancer, path)
        assert answer == 503 or isinstance(answer, Exception)
    assert failures(balancer) == [3, 0, 0]
    assert outcomes.seen == [Outcome.FAILURE] * 9
    assert client.send(balancer, "/") == 200


@every_client
def test_a_node_that_alone_fails_is_found_out_at_once(client: Client, upstreams: Start) -> None:
    """Its failures are the first of their requests, and three of them take it out as ever."""
    servers = upstreams(3)
    servers[1].behave("fail")
    balancer = Balancer([server.address for server in servers], RoundRobin())
    assert [client.send(balancer, "/") for _ in range(20)] == [200] * 20
    assert failures(balancer) == [0, 3, 0]


@every_client
def test_held_failures_are_reported_at_the_headers_of_a_good_answer(
    client: Client, upstreams: Start
) -> None:
    """When another node has answered the same request well, those before it were at fault."""
    servers = upstreams(3)
    servers[0].behave("fail")
    servers[1].behave("reset")
    balancer = Balancer([server.address for server in servers], InOrder())
    assert client.send(balancer, "/", max_attempts=2) != 200
    assert failures(balancer) == [1, 0, 0]
    assert client.send(balancer, "/") == 200
    assert failures(balancer) == [2, 1, 0]


@every_client
def test_what_breaks_after_a_good_verdict_is_its_nodes_alone(
    client: Client, upstreams: Start
) -> None:
    """The verdict at the headers was a success: what was held is out, and so is this."""
    servers = upstreams(3)
    servers[0].behave("reset")
    servers[1].behave("reset")
    balancer = Balancer([server.address for server in servers], InOrder())
    assert isinstance(client.send(balancer, "/stream?cut=1"), Exception)
    # requests gets whole bodies, so this one is a failure of the request, and held like others.
    assert failures(balancer) == [1, 1, 0 if client.library == "requests" else 1]


@every_client
def test_what_breaks_after_a_bad_verdict_is_held_like_the_rest(
    client: Client, upstreams: Start
) -> None:
    """No node has answered well, so the last answer is the request's fault, however it ended."""

    def classify(result: Any) -> Verdict:
        return Verdict(Outcome.FAILURE, retry=True)

    balancer = Balancer([server.address for server in upstreams(3)], InOrder())
    assert isinstance(client.send(balancer, "/stream?cut=1", classify=classify), Exception)
    assert failures(balancer) == [1, 0, 0]


@every_client
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_requests_that_were_never_sent_count_at_once(
    client: Client, dead: list[str], method: str
) -> None:
    """Where no connection is made, nothing in the request can be the cause."""
    balancer = Balancer(dead, InOrder())
    assert isinstance(client.send(balancer, "/", method), Exception)
    assert failures(balancer) == [1, 1, 1]


@every_client
def test_a_verdict_of_never_sent_counts_at_once(client: Client, upstreams: Start) -> None:
    """Also where ``classify`` says so of an answer, as of a proxy that could not connect."""

    def classify(result: Any) -> Verdict:
        return Verdict(Outcome.FAILURE, retry=True, never_sent=True)

    balancer = Balancer([server.address for server in upstreams(2)], InOrder())
    assert client.send(balancer, "/", classify=classify) == 200
    assert failures(balancer) == [1, 1]


@every_client
def test_a_failure_with_a_pause_puts_its_node_on_cooldown(client: Client, upstreams: Start) -> None:
    """It counts against the node's health, and the node is on cooldown at once."""

    def classify(result: Any) -> Verdict:
        return Verdict(Outcome.FAILURE, retry=False, retry_after=30.0)

    clock = ManualClock()
    balancer = Balancer([server.address for server in upstreams(1)], InOrder(), clock=clock)
    assert client.send(balancer, "/", classify=classify) == 200
    assert failures(balancer) == [1]
    with pytest.raises(NoNodeAvailable) as refused:
        balancer.acquire()
    assert (refused.value.reason, refused.value.retry_after) == ("rate_limited", 30.0)


@every_async_client
@pytest.mark.parametrize(("waited", "outcome"), [(1.5, Outcome.CANCELLED), (2.5, Outcome.FAILURE)])
def test_a_request_given_up_too_late_is_a_failure(
    client: Client, upstreams: Start, waited: float, outcome: Outcome
) -> None:
    """From ``hung_after`` seconds on without headers, and it is not tried again."""
    (server, other) = upstreams(2)
    clock, outcomes = ManualClock(), Outcomes()
    balancer = Balancer(
        [server.address, other.address], InOrder(), clock=clock, hung_after=2.0, metrics=outcomes
    )

    async def main() -> None:
        inside = asyncio.Event()

        def prepare(request: Any, node: str) -> None:
            inside.set()

        sending = client.send_async(balancer, "/sleep?seconds=20", prepare=prepare)
        task = asyncio.ensure_future(sending)
        await asyncio.wait_for(inside.wait(), timeout=10)
        await asyncio.sleep(0)
        clock.advance(waited)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert outcomes.seen == [outcome]
    assert failures(balancer) == [int(outcome is Outcome.FAILURE), 0]
    if outcome is Outcome.FAILURE:
        assert balancer.status()[0].health_reason == "1 failure, the last: no answer in 2.5 s"


@every_async_client
def test_an_answer_that_has_begun_does_not_hang(client: Client, upstreams: Start) -> None:
    """Who stops reading a long answer has had one."""
    (server,) = upstreams(1)
    clock, outcomes = ManualClock(), Outcomes()
    balancer = Balancer([server.address], clock=clock, hung_after=2.0, metrics=outcomes)
    judged = asyncio.Event()

    def classify(result: Any) -> None:
        judged.set()

    async def main() -> None:
        path = "/stream?pieces=1000000"
        sending: Awaitable[Any] = client.send_async(balancer, path, classify=classify)
        task = asyncio.ensure_future(sending)
        await asyncio.wait_for(judged.wait(), timeout=10)
        clock.advance(60.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert outcomes.seen == [Outcome.CANCELLED]
    assert failures(balancer) == [0]


@every_client
def test_the_callers_own_mistake_is_no_sign_of_a_hung_node(
    client: Client, upstreams: Start
) -> None:
    """A function of the caller's that raises says nothing, however late it does."""
    (server,) = upstreams(1)
    clock, outcomes = ManualClock(), Outcomes()
    balancer = Balancer([server.address], clock=clock, hung_after=2.0, metrics=outcomes)

    def raising(*_: Any) -> None:
        clock.advance(60.0)
        raise LookupError

    def not_the_nodes(result: Any) -> Outcome:
        clock.advance(60.0)
        return Outcome.CANCELLED

    assert isinstance(client.send(balancer, "/", classify=raising), LookupError)
    assert isinstance(client.send(balancer, "/reset", classify=not_the_nodes), Exception)
    assert client.send(balancer, "/", classify=not_the_nodes) == 200
    assert outcomes.seen == [Outcome.CANCELLED] * 3
    assert failures(balancer) == [0]


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_ctrl_c_in_a_request_that_hangs(name: str) -> None:
    """An interrupt gives a request up like any other cancellation."""
    module: Any = import_module(name)
    ours: Any = import_module(f"loadwise.integrations.{name}")
    clock, outcomes = ManualClock(), Outcomes()

    class Stuck(module.BaseTransport):  # type: ignore[misc, name-defined, unused-ignore]
        def handle_request(self, request: Any) -> Any:
            clock.advance(3.0)
            raise KeyboardInterrupt

    nodes = ["10.0.0.1:80", "10.0.0.2:80"]
    balancer = Balancer(nodes, InOrder(), clock=clock, hung_after=2.0, metrics=outcomes)
    transport = ours.LoadwiseTransport(balancer, Stuck())
    with module.Client(transport=transport) as client, pytest.raises(KeyboardInterrupt):
        client.get("http://service/")
    assert outcomes.seen == [Outcome.FAILURE]
    assert failures(balancer) == [1, 0]
