"""The transports of httpx and httpx2 send requests to their nodes as they were."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest
from tests.real.http.transports.support import Start, in_flight

from loadwise import (
    Balancer,
    ConsistentHash,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    RoundRobin,
    Sticky,
)

pytestmark = pytest.mark.slow


def test_request_reaches_the_node_as_it_was(library: Any, ours: Any, upstreams: Start) -> None:
    """Method, path, query, headers and body stay; scheme, host, port and Host are the node's."""
    (server,) = upstreams(1)
    with library.Client(transport=ours.LoadwiseTransport(Balancer([server.address]))) as client:
        response = client.put(
            "https://service.invalid/a%2Fb/c?x=1&y=%20z",
            content=b"body",
            headers={"X-Own": "value"},
        )
    told = response.json()
    assert told["method"] == "PUT"
    assert told["path"] == "/a%2Fb/c?x=1&y=%20z"
    assert told["host"] == server.address
    assert told["headers"]["x-own"] == "value"
    assert told["body"] == "body"
    assert response.extensions["loadwise"] == {"node": server.address, "attempts": 1}
    assert str(response.url) == "https://service.invalid/a%2Fb/c?x=1&y=%20z"


def test_relative_urls_and_base_paths(library: Any, ours: Any, upstreams: Start) -> None:
    """A relative URL goes to the node; a path in the node's own URL stands before the request's."""
    (server,) = upstreams(1)
    balancer = Balancer([f"http://{server.address}/v1/"])
    with library.Client(transport=ours.LoadwiseTransport(balancer)) as client:
        assert client.get("/users?id=4").json()["path"] == "/v1/users?id=4"


@pytest.mark.parametrize("origin", ["", "http://service"])
def test_what_a_client_sends_anew_has_the_base_path_once(
    library: Any, ours: Any, upstreams: Start, origin: str
) -> None:
    """A redirect is followed, and a challenge answered, whatever kind of URL was asked for."""
    servers = upstreams(2)
    balancer = Balancer([f"http://{server.address}/v1" for server in servers], RoundRobin())

    class Challenged(library.Auth):  # type: ignore[misc, name-defined, unused-ignore]
        def auth_flow(self, request: Any) -> Iterator[Any]:
            yield request
            yield request

    with library.Client(
        transport=ours.LoadwiseTransport(balancer), follow_redirects=True
    ) as client:
        redirected = client.get(f"{origin}/old?status=302&location=new").json()
        challenged = client.get(f"{origin}/new", auth=Challenged()).json()
    for told in (redirected, challenged):
        assert (told["host"], told["path"]) == (servers[1].address, "/v1/new")


def test_a_path_without_a_slash_is_below_the_base_path(
    library: Any, ours: Any, upstreams: Start
) -> None:
    """A request that no client has made may have a path that does not begin with a slash."""
    (server,) = upstreams(1)
    for base in (server.address, f"http://{server.address}/v1"):
        with library.Client(transport=ours.LoadwiseTransport(Balancer([base]))) as client:
            told = client.send(library.Request("GET", "users?id=4")).json()
        assert told["path"] == f"{'/v1' if '/v1' in base else ''}/users?id=4"


def test_a_host_header_of_ones_own_is_kept(library: Any, ours: Any, upstreams: Start) -> None:
    """A Host that the caller has set is not replaced by the node's."""
    (server,) = upstreams(1)
    with library.Client(transport=ours.LoadwiseTransport(Balancer([server.address]))) as client:
        answer = client.get("http://service/", headers={"Host": "tenant.example"})
    assert answer.json()["host"] == "tenant.example"


def test_prepare_sets_what_a_node_needs(library: Any, ours: Any, upstreams: Start) -> None:
    """``prepare`` sees the outgoing request and its node; the caller's request stays as it is."""
    servers = upstreams(2)
    keys = {server.address: f"key-{number}" for number, server in enumerate(servers)}

    def authorise(request: Any, node: str) -> None:
        request.headers["Authorization"] = keys[node]

    transport = ours.LoadwiseTransport(Balancer(list(keys), RoundRobin()), prepare=authorise)
    with library.Client(transport=transport) as client:
        for _ in range(2):
            response = client.get("http://service/")
            told = response.json()
            assert told["headers"]["authorization"] == keys[told["host"]]
            assert "authorization" not in response.request.headers


@pytest.mark.parametrize("fault", ["prepare", "url"])
def test_what_could_not_be_prepared_has_used_no_quota(
    library: Any, ours: Any, upstreams: Start, fault: str
) -> None:
    """A request that fails before it is sent gives back what was reserved for it."""
    (server,) = upstreams(1)
    quota = QuotaTracker()
    quota.register("node", QuotaConfig([QuotaDimension("rpm", limit=10)]))
    balancer = Balancer(["node"], quota=quota)
    options: dict[str, Any] = {
        "url": lambda _: f"http://{server.address}",
        "prepare": lambda _request, _node: None,
    }
    transport = ours.LoadwiseTransport(balancer, **options)
    with library.Client(transport=transport) as client:
        client.get("http://service/")
        assert quota.remaining("node", "rpm") == 9

    def fail(*_: Any) -> str:
        if in_flight(balancer):
            raise KeyError("mine")
        return f"http://{server.address}"  # when the constructor asks

    options[fault] = fail
    transport = ours.LoadwiseTransport(balancer, **options)
    with library.Client(transport=transport) as client, pytest.raises(KeyError, match="mine"):
        client.get("http://service/")
    assert quota.remaining("node", "rpm") == 9
    assert in_flight(balancer) == 0


def test_url_callable_and_addresses_that_cannot_be_told(
    library: Any, ours: Any, upstreams: Start
) -> None:
    """``url`` tells where a node is; without it an id that is no address is refused at once."""
    (server,) = upstreams(1)
    balancer = Balancer(["primary"])
    with pytest.raises(ValueError, match=r"'primary' is neither a URL nor host:port.*url="):
        ours.LoadwiseTransport(balancer)
    for address in ("http://10.0.0.1/v1?version=2", "https://10.0.0.1#top"):
        with pytest.raises(ValueError, match=r"has a query or a fragment"):
            ours.LoadwiseTransport(Balancer([address]))
    with pytest.raises(ValueError, match=r"has a user name.*as a header"):
        ours.LoadwiseTransport(Balancer(["http://ada:secret@10.0.0.1/v1"]))
    for address in ("10.0.0.1:99999", "::1:80", "http://"):
        with pytest.raises(ValueError, match=rf"node '{address}' is .*; it must be an http or"):
            ours.LoadwiseTransport(Balancer([address]))
    for answer in (None, "10.0.0.1:80", "ftp://10.0.0.1", "http://10.0.0.1?a=b"):
        with pytest.raises(ValueError, match=r"the base URL of node 'primary' is .*; it "):
            ours.LoadwiseTransport(balancer, url=lambda _, answer=answer: answer)
    transport = ours.LoadwiseTransport(balancer, url=lambda node: f"http://{server.address}")
    with library.Client(transport=transport) as client:
        assert client.get("http://service/").status_code == 200


def test_affinity_by_header_cookie_and_option(library: Any, ours: Any, upstreams: Start) -> None:
    """The same key leads to the same node, whether a header, a cookie or an option gives it."""
    servers = upstreams(3)
    addresses = [server.address for server in servers]
    expected = Balancer(addresses, ConsistentHash()).pick(hash_key="user-42")
    for hash_key, request in (
        (ours.by_header("X-User"), {"headers": {"X-User": "user-42"}}),
        (ours.by_cookie("user"), {"headers": {"Cookie": "a=b; user=user-42"}}),
        (None, {"extensions": {"loadwise": {"hash_key": "user-42"}}}),
    ):
        options = {} if hash_key is None else {"hash_key": hash_key}
        transport = ours.LoadwiseTransport(Balancer(addresses, ConsistentHash()), **options)
        with library.Client(transport=transport) as client:
            assert client.get("http://service/", **request).json()["host"] == expected


def test_a_session_stays_where_it_began(library: Any, ours: Any, upstreams: Start) -> None:
    """By its cookie, when servers join, until its own is killed; then it stays where it goes."""
    servers = upstreams(3)
    addresses = [server.address for server in servers]
    sessions = Sticky[str](RoundRobin())
    balancer = Balancer(addresses[:2], sessions)
    transport = ours.LoadwiseTransport(balancer, hash_key=ours.by_cookie("session"))
    with library.Client(transport=transport) as client:

        def asked(user: str) -> str:
            headers = {"Cookie": f"session={user}"}
            return str(client.get("http://service/", headers=headers).json()["host"])

        homes = {user: asked(user) for user in ("ada", "grace", "edsger")}
        assert set(homes.values()) == set(addresses[:2])
        balancer.add(addresses[2])
        assert {user: asked(user) for user in homes} == homes
        servers[0].kill()
        moved = [asked("ada") for _ in range(6)]
        assert homes["ada"] == addresses[0] != sessions.pinned("ada")
        assert set(moved[-3:]) == {sessions.pinned("ada")}
        assert asked("grace") == homes["grace"]


@pytest.mark.parametrize(
    ("cookies", "expected"),
    [
        ("session=ada", "ada"),
        ('prefs={"a": 1}; x[y]=1; flag; session=ada', "ada"),
        ('session="ada"; session=less specific', "ada"),
        ("session=a=b", "a=b"),
        ("session=", ""),
        ("session; other=1", None),
        ("", None),
    ],
)
def test_a_cookie_is_found_among_whatever_others_have_set(
    library: Any, ours: Any, cookies: str, expected: str | None
) -> None:
    """What other cookies look like does not matter."""
    request = library.Request("GET", "http://service/", headers={"Cookie": cookies})
    assert ours.by_cookie("session")(request) == expected


def test_connections_are_pooled(library: Any, ours: Any, upstreams: Start) -> None:
    """Many requests to one node use one connection."""
    (server,) = upstreams(1)
    opened: list[str] = []

    def trace(event: str, info: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            opened.append(event)

    transport = ours.LoadwiseTransport(Balancer([server.address]))
    with library.Client(transport=transport) as client:
        for _ in range(10):
            client.get("http://service/", extensions={"trace": trace})
    assert len(opened) == 1


def test_tls_name_is_the_nodes(library: Any, ours: Any) -> None:
    """For an https node the TLS server name is the node's host, not the one in the URL."""
    names: list[str | None] = []

    def trace(event: str, info: dict[str, Any]) -> None:
        if event == "connection.start_tls.started":
            names.append(info["server_hostname"])

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.close()

        thread = Thread(target=hang_up)
        thread.start()
        address = f"https://localhost:{listener.getsockname()[1]}"
        inner = library.HTTPTransport(verify=ssl.create_default_context())
        transport = ours.LoadwiseTransport(Balancer([address]), inner)
        with library.Client(transport=transport) as client, pytest.raises(library.ConnectError):
            client.get("https://service.invalid/", extensions={"trace": trace})
        thread.join(10)
    assert names == ["localhost"]
