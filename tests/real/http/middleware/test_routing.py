"""The aiohttp middleware sends requests to their nodes as they were."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
from aiohttp import ClientRequest, ClientSession, ClientTimeout
from tests.real.http.middleware.support import Recorder, Server, in_flight, told, turns_until

from loadwise import Balancer, ConsistentHash, Outcome, RoundRobin
from loadwise.integrations.aiohttp import (
    LoadwiseMiddleware,
    by_cookie,
    by_header,
    request_options,
    route_of,
)


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
