"""The end of a connection is not the end of a node, in every HTTP client, against real servers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.real.http.conversing import AIOHTTP, ASYNC, REQUESTS, SYNC, Client, Scripted, failures

from loadwise import Balancer, NoopCollector, Outcome, RoundRobin, SelectionContext

pytestmark = pytest.mark.slow

Start = Callable[..., Scripted]
Certificate = tuple[Path, Path]

every_client = pytest.mark.parametrize("client", [*SYNC, *ASYNC, AIOHTTP, REQUESTS], ids=str)
every_httpx = pytest.mark.parametrize("client", [*SYNC, *ASYNC], ids=str)
GET, POST = ("GET", "/"), ("POST", "/")
EMPTY = SelectionContext()
EMPTY_BODY = {"Content-Length": "0"}


class InOrder:
    """A strategy that takes the first node there is."""

    def select(self, candidates: Any, context: SelectionContext = EMPTY) -> int | None:
        """Return the first index, if any."""
        return 0 if len(candidates) else None


class Outcomes(NoopCollector):
    """Remembers outcomes and retries."""

    def __init__(self) -> None:
        self.seen: list[Outcome] = []
        self.retries = 0

    def on_outcome(self, node_id: object, outcome: Outcome, latency: float) -> None:
        self.seen.append(outcome)

    def on_retry(self, node_id: object, reason: str) -> None:
        self.retries += 1


@pytest.fixture(params=["default", "given"])
def options(request: pytest.FixtureRequest) -> Callable[[Client], dict[str, Any]]:
    """Arguments of a transport with its own connections, or with those of another one."""

    def make(client: Client) -> dict[str, Any]:
        if client in (AIOHTTP, REQUESTS) or request.param == "default":
            return {}
        module = client.module
        return {
            "transport": (module.AsyncHTTPTransport if client.waits else module.HTTPTransport)()
        }

    return make


@every_client
@pytest.mark.parametrize("manner", ["once", "once-reset"])
def test_a_kept_connection_that_ends_is_repeated_uncounted(
    client: Client, scripted: Start, manner: str, options: Callable[[Client], dict[str, Any]]
) -> None:
    """The only node there is is asked again, by a fresh connection, and nobody is to blame."""
    servers = scripted(manner)
    outcomes = Outcomes()
    balancer = Balancer(servers.nodes, metrics=outcomes)
    made = options(client)
    assert client.converse(balancer, [GET] * 6, options=made | {"max_attempts": 1}) == [200] * 6
    assert outcomes.seen == [Outcome.SUCCESS] * 6
    assert outcomes.retries == 0


@every_client
def test_what_must_not_be_repeated_is_lost_but_counts_against_nobody(
    client: Client, scripted: Start, options: Callable[[Client], dict[str, Any]]
) -> None:
    """A server may have acted on a POST before it hung up."""
    servers = scripted("once")
    balancer = Balancer(servers.nodes)
    came = client.converse(balancer, [POST] * 4, options=options(client))
    assert [answer == 200 for answer in came] == [True, False, True, False]
    assert failures(balancer) == [0]
    assert servers.told()[0]["requests"] == ["POST /"] * 4


@every_client
def test_what_opts_in_is_repeated(
    client: Client, scripted: Start, options: Callable[[Client], dict[str, Any]]
) -> None:
    """A POST that says that it may."""
    servers = scripted("once")
    balancer = Balancer(servers.nodes)
    made = options(client)
    assert client.converse(balancer, [POST] * 4, options=made, said={"retry": True}) == [200] * 4


@every_client
def test_a_fresh_connection_that_ends_is_a_failure(client: Client, scripted: Start) -> None:
    """A node that hangs up on every request is at fault, and each request counts once."""
    servers = scripted("plain")
    balancer = Balancer(servers.nodes)
    came = client.converse(balancer, [GET, ("GET", "/die"), ("GET", "/die")])
    assert came[0] == 200
    assert all(isinstance(answer, Exception) for answer in came[1:])
    assert failures(balancer) == [2]
    # The first was repeated by a fresh connection; the second began with one.
    assert servers.told()[0]["requests"] == ["GET /", *["GET /die"] * 3]


@pytest.mark.parametrize("waits", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_what_was_never_sent_is_repeated_whatever_it_is(
    name: str,
    waits: bool,  # noqa: FBT001 - from pytest
    scripted: Start,
) -> None:
    """A POST whose head could not be written has reached nobody."""
    client = Client(name, waits=waits)
    servers = scripted("plain")
    balancer = Balancer(servers.nodes)
    ours = client.ours
    transport = (ours.AsyncLoadwiseTransport if waits else ours.LoadwiseTransport)(balancer)
    transport._sender._backend = Breaking(transport._sender._backend, client.module)

    def ask() -> list[int]:
        with client.module.Client(transport=transport) as session:
            came = [
                session.post("http://service/", content=_body(), headers=EMPTY_BODY) for _ in "12"
            ]
            return [response.status_code for response in came]

    async def ask_async() -> list[int]:
        async with client.module.AsyncClient(transport=transport) as session:
            came = [
                await session.post("http://service/", content=_body_async(), headers=EMPTY_BODY)
                for _ in "12"
            ]
            return [response.status_code for response in came]

    assert (asyncio.run(ask_async()) if waits else ask()) == [200, 200]
    assert failures(balancer) == [0]
    assert servers.told()[0]["requests"] == ["POST /"] * 2


def _body() -> Any:
    yield b""


async def _body_async() -> Any:
    yield b""


class Breaking:
    """A network whose first connection can be written to for one request only."""

    def __init__(self, backend: Any, module: Any) -> None:
        self.backend = backend
        self.core: Any = __import__(module.__name__.replace("httpx", "httpcore"))
        self.stream: Any = None
        self.writes: int | None = None

    def connect_tcp(self, *args: Any, **kwargs: Any) -> Any:
        """Connect, or return what is to be awaited for it."""
        if self.writes is not None:
            return self.backend.connect_tcp(*args, **kwargs)
        self.writes = 0
        self.stream = self.backend.connect_tcp(*args, **kwargs)
        if not asyncio.iscoroutine(self.stream):
            return self

        async def connect() -> Any:
            self.stream = await self.stream
            return self

        return connect()

    def write(self, buffer: bytes, timeout: float | None = None) -> Any:
        """Send, or fail."""
        assert self.writes is not None
        self.writes += b"POST" in buffer
        if self.writes > 1:
            raise self.core.WriteError
        return self.stream.write(buffer, timeout)

    def read(self, size: int, timeout: float | None = None) -> Any:
        """Read, or fail."""
        assert self.writes is not None
        if self.writes > 1:
            raise self.core.ReadError
        return self.stream.read(size, timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@pytest.fixture
def trusted(
    client: Client, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """Arguments of a transport that speaks HTTP/2, by connections of its own or another's."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    module = client.module

    def make(*, given: bool) -> dict[str, Any]:
        if not given:
            return {"http2": True}
        base = module.AsyncHTTPTransport if client.waits else module.HTTPTransport
        context = ssl.create_default_context(cafile=str(certificate[0]))
        return {"transport": base(verify=context, http2=True)}

    return make


by_whom = pytest.mark.parametrize("given", [False, True], ids=["default", "given"])


@every_httpx
@by_whom
def test_a_refused_stream_was_never_sent(
    client: Client,
    scripted: Start,
    certificate: Certificate,
    trusted: Callable[..., dict[str, Any]],
    given: bool,  # noqa: FBT001 - from pytest
) -> None:
    """A server that refuses a stream has not looked at it, so even a POST goes to another node."""
    refusing, other = scripted("h2-refuse", 1, certificate), scripted("h2", 1, certificate)
    balancer = Balancer([*refusing.nodes, *other.nodes], InOrder())
    assert client.converse(balancer, [POST], options=trusted(given=given)) == [200]
    assert failures(balancer) == [1, 0]


@every_httpx
@by_whom
def test_a_stream_reset_otherwise_may_have_been_acted_on(
    client: Client,
    scripted: Start,
    certificate: Certificate,
    trusted: Callable[..., dict[str, Any]],
    given: bool,  # noqa: FBT001 - from pytest
) -> None:
    """A POST is not sent again, a GET is, and the node is at fault."""
    broken, other = scripted("h2-internal", 1, certificate), scripted("h2", 1, certificate)
    balancer = Balancer([*broken.nodes, *other.nodes], InOrder())
    came = client.converse(balancer, [POST, GET], options=trusted(given=given))
    assert isinstance(came[0], client.module.RemoteProtocolError)
    assert came[1] == 200
    assert failures(balancer) == [2, 0]
    assert other.told()[0]["requests"] == ["GET /"]


@every_httpx
@by_whom
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_server_that_rolls_over_loses_nothing(
    client: Client,
    scripted: Start,
    certificate: Certificate,
    trusted: Callable[..., dict[str, Any]],
    given: bool,  # noqa: FBT001 - from pytest
    method: str,
) -> None:
    """It says which streams it has read; the others are sent by another connection."""
    servers = scripted("h2-roll", 2, certificate)
    balancer = Balancer(servers.nodes, RoundRobin())
    calls = [(method, "/")] * 30
    assert client.converse(balancer, calls, options=trusted(given=given)) == [200] * 30
    assert failures(balancer) == [0, 0]
    assert sum(len(each["requests"]) for each in servers.told()) == 30


@pytest.mark.parametrize("client", ASYNC, ids=str)
@by_whom
def test_concurrent_requests_outlive_a_server_that_rolls_over(
    client: Client,
    scripted: Start,
    certificate: Certificate,
    trusted: Callable[..., dict[str, Any]],
    given: bool,  # noqa: FBT001 - from pytest
) -> None:
    """Nothing is lost, and nobody is to blame."""
    servers = scripted("h2-roll", 3, certificate)
    balancer = Balancer(servers.nodes, RoundRobin())

    async def main() -> list[Any]:
        session, send = client.open(balancer, trusted(given=given))
        async with session:
            return await asyncio.gather(*(send(*GET) for _ in range(60)))

    assert asyncio.run(main()) == [200] * 60
    assert failures(balancer) == [0, 0, 0]


@every_httpx
@by_whom
def test_a_server_that_leaves_may_have_acted_on_what_it_has_read(
    client: Client,
    scripted: Start,
    certificate: Certificate,
    trusted: Callable[..., dict[str, Any]],
    given: bool,  # noqa: FBT001 - from pytest
) -> None:
    """A GET is repeated; a POST is lost, and counts against nobody."""
    servers = scripted("h2-leave", 1, certificate)
    balancer = Balancer(servers.nodes)
    options = trusted(given=given)
    came = client.converse(balancer, [GET, GET, POST], options=options)
    assert came[:2] == [200, 200]
    assert isinstance(came[2], client.module.TransportError)
    assert failures(balancer) == [0]
