"""Small bodies are read before the response is handed on, and so can be had from another node."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from loadwise import (
    Balancer,
    NoopCollector,
    Outcome,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    RoundRobin,
)
from loadwise.integrations._http.httpx_family import Library
from loadwise.integrations._http.httpx_headers import ByName, ByRow, access_to
from loadwise.integrations.llm import TokenMeter

Start = Callable[[int], list[Any]]

LARGE = 65_537


@pytest.fixture(params=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> Any:
    """The package under test."""
    return import_module(request.param)


@pytest.fixture
def ours(library: Any) -> Any:
    """The integration for the package under test."""
    return import_module(f"loadwise.integrations.{library.__name__}")


class Outcomes(NoopCollector):
    """Remembers outcomes by node."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, Outcome]] = []

    def on_outcome(self, node_id: object, outcome: Outcome, latency: float) -> None:
        self.seen.append((node_id, outcome))


def in_flight(balancer: Balancer[Any]) -> int:
    """Requests in flight over all nodes."""
    return sum(status.in_flight for status in balancer.status())


def take_request(connection: socket.socket) -> None:
    """Read a request with its body, which may come later than its head."""
    length = 0
    with connection.makefile("rb") as stream:
        while line := stream.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        stream.read(length)


@contextmanager
def answering(head: str, body: bytes) -> Generator[str, None, None]:
    """Run a server that sends the same bytes to whoever connects, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    take_request(connection)
                    connection.sendall(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode() + body)

        thread = Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


@pytest.mark.parametrize("waits", [False, True], ids=["sync", "async"])
def test_a_small_body_that_breaks_off_is_had_from_another_node(
    library: Any,
    ours: Any,
    upstreams: Start,
    waits: bool,  # noqa: FBT001 - from pytest
) -> None:
    """The caller of a repeatable request never sees it; the node that broke off has failed."""
    (server,) = upstreams(1)
    outcomes = Outcomes()
    with answering("Content-Length: 10", b"abc") as short:
        balancer = Balancer([short, server.address], RoundRobin(), metrics=outcomes)

        async def ask() -> Any:
            transport = ours.AsyncLoadwiseTransport(balancer)
            async with library.AsyncClient(transport=transport) as client:
                return await client.get("http://service/")

        if waits:
            response = asyncio.run(ask())
        else:
            with library.Client(transport=ours.LoadwiseTransport(balancer)) as client:
                response = client.get("http://service/")
    assert response.json()["host"] == server.address
    assert response.extensions["loadwise"] == {"node": server.address, "attempts": 2}
    assert outcomes.seen == [(short, Outcome.FAILURE), (server.address, Outcome.SUCCESS)]


@pytest.mark.parametrize("waits", [False, True], ids=["sync", "async"])
def test_a_small_body_that_breaks_off_everywhere(
    library: Any,
    ours: Any,
    waits: bool,  # noqa: FBT001 - from pytest
) -> None:
    """It is a failure like others: held from the second on, until good headers come."""
    short = "Content-Length: 10"
    with answering(short, b"") as a, answering(short, b"") as b, answering(short, b"") as c:
        balancer = Balancer([a, b, c])
        nodes: list[str] = []

        def prepare(request: Any, node: str) -> None:
            nodes.append(node)

        async def ask() -> None:
            transport = ours.AsyncLoadwiseTransport(balancer, prepare=prepare)
            async with library.AsyncClient(transport=transport) as client:
                await client.get("http://service/")

        def ask_at_once() -> None:
            transport = ours.LoadwiseTransport(balancer, prepare=prepare)
            with library.Client(transport=transport) as client:
                client.get("http://service/")

        with pytest.raises(library.RemoteProtocolError):
            asyncio.run(ask()) if waits else ask_at_once()
    assert balancer.health is not None
    # The third node's headers were good, which settled the matter of the second.
    known = [balancer.health.health(node).consecutive_failures for node in nodes]
    assert known == [1, 1, 0]


@pytest.mark.parametrize(
    ("method", "length"), [("POST", 10), ("GET", LARGE)], ids=["unsafe", "large"]
)
def test_other_bodies_that_break_off_reach_the_caller(
    library: Any, ours: Any, upstreams: Start, method: str, length: int
) -> None:
    """What must not be repeated, or is large, is handed on as it comes."""
    (server,) = upstreams(1)
    outcomes = Outcomes()
    with answering(f"Content-Length: {length}", b"abc") as short:
        balancer = Balancer([short, server.address], RoundRobin(), metrics=outcomes)
        with (
            library.Client(transport=ours.LoadwiseTransport(balancer)) as client,
            client.stream(method, "http://service/") as response,
        ):
            assert in_flight(balancer) == 1
            with pytest.raises(library.RemoteProtocolError):
                response.read()
    assert outcomes.seen == [(short, Outcome.FAILURE)]
    assert in_flight(balancer) == 0


@pytest.mark.parametrize("waits", [False, True], ids=["sync", "async"])
def test_a_body_read_ahead_ends_the_request_and_is_still_there(
    library: Any,
    ours: Any,
    upstreams: Start,
    waits: bool,  # noqa: FBT001 - from pytest
) -> None:
    """The node is done when the response is handed on; it reads and closes like any other."""
    (server,) = upstreams(1)
    balancer = Balancer([server.address])

    async def ask() -> Any:
        transport = ours.AsyncLoadwiseTransport(balancer)
        async with (
            library.AsyncClient(transport=transport) as client,
            client.stream("GET", "http://service/") as response,
        ):
            assert in_flight(balancer) == 0
            return response, b"".join([piece async for piece in response.aiter_raw()])

    if waits:
        response, body = asyncio.run(ask())
    else:
        with (
            library.Client(transport=ours.LoadwiseTransport(balancer)) as client,
            client.stream("GET", "http://service/") as response,
        ):
            assert in_flight(balancer) == 0
            body = b"".join(response.iter_raw())
    assert server.address.encode() in body
    assert response.num_bytes_downloaded == len(body) == int(response.headers["content-length"])
    assert response.elapsed.total_seconds() > 0
    assert response.is_closed


def test_a_meter_reads_what_is_read_ahead(library: Any, ours: Any) -> None:
    """The usage in a small body is settled before anybody has looked at it."""
    usage = b'{"usage": {"total_tokens": 42}}'
    head = f"Content-Type: application/json\r\nContent-Length: {len(usage)}"
    with answering(head, usage) as address:
        quota = QuotaTracker()
        tokens = QuotaDimension("tpm", limit=1_000, default_cost=0)
        quota.register(address, QuotaConfig([QuotaDimension("rpm", limit=10), tokens]))
        transport = ours.LoadwiseTransport(Balancer([address], quota=quota), meter=TokenMeter())
        with (
            library.Client(transport=transport) as client,
            client.stream(
                "POST",
                "http://service/",
                json={"messages": [], "max_tokens": 300},
                extensions={"loadwise": {"retry": True}},
            ),
        ):
            assert quota.remaining(address, "tpm") == 958


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("waits", [False, True], ids=["sync", "async"])
def test_a_response_that_a_transport_has_read_is_over(
    library: Any,
    ours: Any,
    waits: bool,  # noqa: FBT001 - from pytest
    method: str,
) -> None:
    """A transport that answers by itself hands on responses that nobody will close."""
    outcomes = Outcomes()
    balancer = Balancer(["a.invalid:80"], metrics=outcomes)
    answers = library.MockTransport(lambda request: library.Response(200, json=str(request.url)))

    async def ask() -> Any:
        transport = ours.AsyncLoadwiseTransport(balancer, answers)
        async with library.AsyncClient(transport=transport) as client:
            return await client.request(method, "http://service/x")

    if waits:
        response = asyncio.run(ask())
    else:
        with library.Client(transport=ours.LoadwiseTransport(balancer, answers)) as client:
            response = client.request(method, "http://service/x")
    assert response.json().startswith("http://a.invalid")
    assert in_flight(balancer) == 0
    assert outcomes.seen == [("a.invalid:80", Outcome.SUCCESS)]


@pytest.mark.parametrize("coding", ["identity", "gzip"])
@pytest.mark.parametrize("sized", [True, False], ids=["sized", "unsized"])
def test_a_rule_may_read_the_response_that_it_judges(
    library: Any,
    ours: Any,
    sized: bool,  # noqa: FBT001 - from pytest
    coding: str,
) -> None:
    """What ``classify`` has read is still there, is metered, and its request is over."""
    usage = b'{"usage": {"total_tokens": 42}}'
    body = gzip.compress(usage) if coding == "gzip" else usage
    head = f"Content-Type: application/json\r\nContent-Encoding: {coding}"
    if sized:
        head += f"\r\nContent-Length: {len(body)}"
    outcomes = Outcomes()

    def classify(result: Any) -> Outcome:
        return Outcome.SUCCESS if b"usage" in result.read() else Outcome.FAILURE

    with answering(head, body) as address:
        quota = QuotaTracker()
        quota.register(address, QuotaConfig([QuotaDimension("tpm", limit=1_000, default_cost=0)]))
        balancer = Balancer([address], quota=quota, metrics=outcomes)
        transport = ours.LoadwiseTransport(
            balancer, classify=classify, meter=TokenMeter(requests=None)
        )
        with library.Client(transport=transport) as client:
            assert client.get("http://service/").content == usage
        assert quota.remaining(address, "tpm") == 958
        assert in_flight(balancer) == 0
        assert outcomes.seen == [(address, Outcome.SUCCESS)]


def test_a_rule_may_close_the_response_that_it_judges(
    library: Any, ours: Any, upstreams: Start
) -> None:
    """Its request is over, and the caller is told as ever that there is nothing to read."""
    (server,) = upstreams(1)
    balancer = Balancer([server.address])
    transport = ours.LoadwiseTransport(balancer, classify=lambda response: response.close())
    with library.Client(transport=transport) as client:
        with pytest.raises(library.StreamClosed):
            client.get("http://service/stream")
        assert in_flight(balancer) == 0


@pytest.mark.parametrize("status", [303, 307])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_meter_reads_requests_that_a_redirect_repeats(
    library: Any, ours: Any, upstreams: Start, method: str, status: int
) -> None:
    """What a client sends anew has been read by nobody; its cost is estimated all the same."""
    (server,) = upstreams(1)
    quota = QuotaTracker()
    quota.register(server.address, QuotaConfig([QuotaDimension("rpm", limit=10)]))
    balancer = Balancer([server.address], quota=quota)
    transport = ours.LoadwiseTransport(balancer, meter=TokenMeter(tokens=None))
    with library.Client(transport=transport, follow_redirects=True) as client:
        body: dict[str, Any] = {} if method == "GET" else {"json": {"messages": []}}
        url = f"http://service/?status={status}&location=/there"
        assert client.request(method, url, **body).json()["path"] == "/there"
    assert quota.remaining(server.address, "rpm") == 8


@pytest.mark.parametrize("access", [ByName, ByRow])
def test_headers_by_name_and_by_row_say_the_same(
    library: Any, access: type[ByName | ByRow]
) -> None:
    """The short cut through the rows tells and changes what the public methods do."""
    for value, length in (("12", 12), ("", None), ("-1", None), ("1e3", None)):
        assert access.length(library.Headers({"A": "b", "Content-LENGTH": value})) == length
    assert access.length(library.Headers({"A": "b"})) is None
    for name in ("LOCATION", "content-location", "Set-Cookie"):
        assert access.has_places(library.Headers({"A": "b", name: "c"}))
    assert not access.has_places(library.Headers({"A": "b", "X-Location": "c"}))

    def readdressed(*rows: tuple[str, str], asked: bytes = b"service") -> Any:
        headers = library.Headers(rows)
        access.readdress(headers, asked, b"node:80")
        return [value for name, value in headers.multi_items() if name == "host"]

    assert readdressed(("Host", "service"), ("A", "b")) == ["node:80"]
    assert readdressed(("A", "b"), ("host", "service")) == ["node:80"]
    assert readdressed(("Host", "tenant"), ("A", "b")) == ["tenant"]
    assert readdressed(("A", "b"), asked=b"") == ["node:80"]
    assert readdressed(("A", "b")) == []
    assert readdressed(("Host", "tenant"), asked=b"") == ["tenant"]


def test_rows_are_used_where_they_are_what_they_were(library: Any) -> None:
    """A version of the package that keeps its headers otherwise is served by public methods."""
    assert Library(library, object, object, Exception).access is ByRow

    def other(rows: list[tuple[bytes, bytes]]) -> SimpleNamespace:
        return SimpleNamespace(_list=rows)

    assert access_to(other) is ByName  # type: ignore[arg-type]  # it is called like a class
