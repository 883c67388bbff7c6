"""Failures on the way to a node, or before it, in every HTTP client."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import aiohttp
import pytest
import requests
from aiohttp.abc import AbstractResolver
from tests.real.http.conversing import AIOHTTP, ASYNC, REQUESTS, SYNC, Client, Scripted, failures
from yarl import URL

from loadwise import Balancer, PerNode, RoundRobin, SelectionContext
from loadwise.integrations._http.requests_connections import NodeAdapter

pytestmark = pytest.mark.slow

Start = Callable[..., Scripted]

every_client = pytest.mark.parametrize("client", [*SYNC, *ASYNC, AIOHTTP, REQUESTS], ids=str)
every_httpx = pytest.mark.parametrize("client", [*SYNC, *ASYNC], ids=str)
GET, POST = ("GET", "/"), ("POST", "/")
EMPTY = SelectionContext()


class InOrder:
    """A strategy that takes the first node there is."""

    def select(self, candidates: Any, context: SelectionContext = EMPTY) -> int | None:
        """Return the first index, if any."""
        return 0 if len(candidates) else None


@pytest.fixture
def dead() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def http_transport(client: Client, **options: Any) -> Any:
    """Return a transport of the client's package."""
    name = "AsyncHTTPTransport" if client.waits else "HTTPTransport"
    return getattr(client.module, name)(**options)


@every_client
def test_a_proxy_that_is_down_is_nobodys_fault(client: Client, scripted: Start, dead: str) -> None:
    """All nodes are behind it, so none is at fault and no other is tried."""
    balancer = Balancer(scripted("plain", 3).nodes, RoundRobin())
    tried: list[Any] = []
    options: dict[str, Any] = {"prepare": lambda request, node: tried.append(node)}
    if client is AIOHTTP:
        came = client.converse(
            balancer, [GET] * 3, options=options, client={"proxy": f"http://{dead}"}
        )
    elif client is REQUESTS:
        proxies = {"http": f"http://{dead}"}
        came = client.converse(balancer, [GET] * 3, options=options, client={"proxies": proxies})
    else:
        options["transport"] = http_transport(client, proxy=f"http://{dead}")
        came = client.converse(balancer, [GET] * 3, options=options)
    assert all(isinstance(answer, Exception) for answer in came)
    assert failures(balancer) == [0, 0, 0]
    assert len(tried) == 3


@every_client
def test_a_proxy_that_refuses_is_nobodys_fault(client: Client, scripted: Start) -> None:
    """As one that is down."""
    (proxy,) = scripted("busy").nodes
    balancer = Balancer(["https://10.0.0.1", "https://10.0.0.2"], RoundRobin())
    if client is AIOHTTP:
        came = client.converse(balancer, [GET], client={"proxy": proxy})
    elif client is REQUESTS:
        came = client.converse(balancer, [GET], client={"proxies": {"https": proxy}})
    else:
        came = client.converse(
            balancer, [GET], options={"transport": http_transport(client, proxy=proxy)}
        )
    assert isinstance(came[0], Exception)
    assert failures(balancer) == [0, 0]


@every_client
def test_a_proxy_of_one_node_that_is_down_leads_to_another_node(
    client: Client, scripted: Start, dead: str
) -> None:
    """A POST, too, for it was never sent."""
    nodes = scripted("plain", 2).nodes
    balancer = Balancer(nodes, InOrder())
    options: dict[str, Any]

    def make(node: str) -> Any:
        return http_transport(client, proxy=f"http://{dead}" if node == nodes[0] else None)

    def prepare(request: aiohttp.ClientRequest, node: str) -> None:
        if node == nodes[0]:
            request.update_proxy(URL(f"http://{dead}"), None, None)

    options = {"prepare": prepare} if client is AIOHTTP else {"transport": make}
    session = None
    if client is REQUESTS:
        # It knows proxies by host.
        balancer = Balancer([nodes[0], nodes[1].replace("127.0.0.1", "localhost")], InOrder())
        options, session = {}, {"proxies": {"http://127.0.0.1": f"http://{dead}"}}
    assert client.converse(balancer, [POST] * 2, options=options, client=session) == [200] * 2
    assert failures(balancer) == [0, 0]


class Network:
    """A network of httpcore where nobody is ever reached."""

    def __init__(self, client: Client, error: OSError) -> None:
        self.client = client
        self.error = error
        self.core: Any = __import__(client.library.replace("httpx", "httpcore"))

    def connect_tcp(self, *args: Any, **kwargs: Any) -> Any:
        """Fail."""
        if self.client.waits:
            return self.fail()
        raise self.core.ConnectError from self.error

    async def fail(self) -> Any:
        """Fail when awaited."""
        raise self.core.ConnectError from self.error


class Unreached(NodeAdapter):
    """An adapter of requests that reaches nobody."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def send(self, *args: Any, **kwargs: Any) -> Any:
        """Fail."""
        raise requests.ConnectionError from self.error


class Resolver(AbstractResolver):
    """A resolver of aiohttp that resolves nothing."""

    def __init__(self, error: OSError) -> None:
        self.error = error

    async def resolve(self, *args: Any, **kwargs: Any) -> Any:
        """Fail."""
        raise self.error

    async def close(self) -> None:
        """Do nothing."""


@every_client
@pytest.mark.parametrize(
    ("error", "is_local"),
    [
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), True),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), False),
        (OSError(errno.EMFILE, "Too many open files"), True),
        (OSError(errno.ECONNREFUSED, "Connection refused"), False),
    ],
    ids=["resolver", "name", "files", "refused"],
)
def test_what_this_host_lacks_is_nobodys_fault(
    client: Client,
    error: OSError,
    is_local: bool,  # noqa: FBT001 - from pytest
) -> None:
    """A resolver that does not answer, or no more files; but a name nobody knows is its node's."""
    balancer = Balancer(["http://a.test", "http://b.test"], InOrder())

    async def main() -> list[Any]:
        if client is AIOHTTP:
            connector = aiohttp.TCPConnector(resolver=Resolver(error))
            return await client.converse_async(balancer, [POST], client={"connector": connector})
        transport = client.ours.AsyncLoadwiseTransport(balancer)
        transport._sender._backend = Network(client, error)
        async with client.module.AsyncClient(transport=transport) as session:
            with pytest.raises(client.module.ConnectError):
                await session.post("http://service/")
        return []

    if client.waits:
        asyncio.run(main())
    elif client is REQUESTS:
        adapter = client.ours.LoadwiseAdapter(balancer)
        adapter._adapters = PerNode(lambda _: Unreached(error))
        with requests.Session() as session:
            session.mount("http://service/", adapter)
            with pytest.raises(requests.ConnectionError):
                session.post("http://service/")
    else:
        transport = client.ours.LoadwiseTransport(balancer)
        transport._sender._backend = Network(client, error)
        with (
            client.module.Client(transport=transport) as session,
            pytest.raises(client.module.ConnectError),
        ):
            session.post("http://service/")
    assert failures(balancer) == ([0, 0] if is_local else [1, 1])


def raising_for(first: str) -> Callable[..., Any]:
    """Return a function that raises for one node."""

    def raises(*arguments: Any) -> Any:
        if arguments[-1] == first:
            raise KeyError("no key for it")
        return arguments[-1]

    return raises


@pytest.mark.parametrize(
    ("client", "name"),
    [
        *product([*SYNC, *ASYNC, AIOHTTP, REQUESTS], ["prepare", "url"]),
        *product([*SYNC, *ASYNC], ["transport"]),
    ],
    ids=str,
)
def test_what_raises_for_one_node_leads_to_another(
    client: Client, scripted: Start, name: str
) -> None:
    """Nothing was sent, so a POST goes on, too; the reason says that it was the set-up."""
    nodes = scripted("plain", 2).nodes
    balancer = Balancer(nodes, InOrder())
    raises = raising_for(nodes[0])
    broken = False

    def function(*arguments: Any) -> Any:
        if not broken:
            return arguments[-1] if name == "url" else None
        made = raises(*arguments)
        return http_transport(client) if name == "transport" else made

    def begin() -> None:
        nonlocal broken
        broken = True

    calls: list[Any] = [begin, POST, POST]
    assert client.converse(balancer, calls, options={name: function}) == [200, 200]
    assert failures(balancer) == [2, 0]
    assert balancer.status()[0].health_reason == (
        "2 failures in a row, the last: set-up failed: KeyError: 'no key for it'"
    )


@every_client
def test_what_raises_for_every_node_reaches_the_caller(client: Client, scripted: Start) -> None:
    """It is the function's fault then, so only the first of the nodes is blamed."""
    balancer = Balancer(scripted("plain", 3).nodes, InOrder())

    def prepare(request: Any, node: str) -> None:
        raise LookupError(node)

    (came,) = client.converse(balancer, [POST], options={"prepare": prepare})
    assert isinstance(came, LookupError)
    assert failures(balancer) == [1, 0, 0]
