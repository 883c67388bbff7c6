"""Redirects and cookies of a real Starlette application, mapped back to what was asked for."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import (
    BasicAuth,
    ClientHandlerType,
    ClientRequest,
    ClientResponse,
    ClientSession,
    ClientTimeout,
)
from hypothesis import given
from hypothesis import strategies as st
from tests.integrations.http.clients import (
    AIOHTTP,
    REQUESTS,
    SYNC,
    Answer,
    Ask,
    Client,
    every_client,
)

from loadwise import Balancer, ConsistentHash, RoundRobin
from loadwise._url_paths import confined
from loadwise.integrations._http.mapping import Mapper, Route
from loadwise.integrations._http.member_urls import Members, base_of
from loadwise.integrations.aiohttp import LoadwiseMiddleware
from loadwise.integrations.httpx import by_header

pytestmark = pytest.mark.slow

APPLICATION = Path(__file__).with_name("redirecting.py")
TOKEN = {"Authorization": "Bearer token"}


@contextmanager
def started(*arguments: str) -> Iterator[Callable[[], str]]:
    """Start the application; yield a function that waits for its address."""
    process = subprocess.Popen(
        [sys.executable, str(APPLICATION), *arguments], stdout=subprocess.PIPE, text=True
    )
    output = process.stdout
    assert output is not None
    try:
        yield lambda: f"127.0.0.1:{int(output.readline())}"
    finally:
        process.kill()
        process.wait(10)
        output.close()


@pytest.fixture(scope="module")
def addresses() -> Iterator[list[str]]:
    """Where three such applications are reached."""
    with ExitStack() as stack:
        waits = [stack.enter_context(started()) for _ in range(3)]
        yield [wait() for wait in waits]


@pytest.fixture
def nodes(addresses: list[str]) -> list[str]:
    """Two nodes with a base path."""
    return [f"http://{address}/v1" for address in addresses[:2]]


@pytest.fixture
def other(addresses: list[str]) -> str:
    """A server that is no node."""
    return addresses[2]


def set_key(request: Any, node: object) -> None:
    """Give a request the fleet's credentials."""
    request.headers["X-Key"] = "secret"


def picks(balancer: Balancer[Any]) -> int:
    """How many requests were given to nodes; none of them is in flight any more."""
    assert not any(status.in_flight for status in balancer.status())
    return sum(status.picks for status in balancer.status())


def told(answer: Any) -> dict[str, Any]:
    """What a server tells of a request."""
    assert isinstance(answer, Answer), answer
    assert answer.status == 200
    arrived: dict[str, Any] = json.loads(answer.body)
    return arrived


def port_of(address: str) -> int:
    """The port in an address or a URL."""
    return int(address.rpartition("/v1")[0].rpartition(":")[2] or address.rpartition(":")[2])


def going(to: str, status: int = 307) -> str:
    """A URL of the fleet that redirects."""
    return f"http://service/go?status={status}&to={quote(to, safe='')}"


@every_client
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("base", ["", "/v1"])
def test_a_redirect_within_the_fleet_keeps_credentials_and_affinity(
    client: Client, addresses: list[str], base: str, method: str
) -> None:
    """What Starlette sends back is a place of the origin that was asked, and the same node's.

    It redirects to the node's own URL, and no client gives its credentials to another origin.
    """
    balancer = Balancer([f"http://{each}{base}" for each in addresses], ConsistentHash())
    headers = {**TOKEN, "X-User": "ada"}
    path = "/items" if base else "/v1/items"
    more = {"headers": headers, **({} if method == "GET" else {"data": {"n": "1"}})}
    asks = (Ask(f"http://service{path}{end}", method, more) for end in ("/", "?q=1"))
    first, answer = client.send(balancer, *asks, hash_key=by_header("X-User"))
    arrived = told(answer)
    assert arrived["port"] == told(first)["port"]
    assert (arrived["method"], arrived["path"]) == (method, "/v1/items/")
    assert (arrived["query"], arrived["headers"]["authorization"]) == ("q=1", "Bearer token")
    assert arrived["body"] == ("" if method == "GET" else "n=1")
    assert answer.url == f"http://service{path}/?q=1"
    assert answer.route["node"] in balancer.nodes


@every_client
@pytest.mark.parametrize(
    "to",
    [
        "/v1/at/x?q=1",
        "at/x?q=1",
        "http://{0}/v1/at/x?q=1#part",
        "//{0}/v1/at/x?q=1",
        "http://{1}/v1/at/x?q=1",
        "HTTP://{1}/v1/other/../at/x?q=1",
        "http:/v1/at/x?q=1",
        "http://service/at/x?q=1",
    ],
)
def test_all_that_is_under_a_members_base_url_is_the_fleets(
    client: Client, addresses: list[str], nodes: list[str], to: str
) -> None:
    """A redirect may be relative, or name the node, another node, or who was asked."""
    balancer = Balancer(nodes, RoundRobin())
    asks = Ask(going(to.format(*addresses)), more={"headers": TOKEN})
    (answer,) = client.send(balancer, asks, prepare=set_key)
    arrived = told(answer)
    assert (arrived["path"], arrived["query"]) == ("/v1/at/x", "q=1")
    assert arrived["headers"]["authorization"] == "Bearer token"
    assert arrived["headers"]["x-key"] == "secret"
    assert answer.url.partition("#")[0] == "http://service/at/x?q=1"
    assert picks(balancer) == 2


OUTSIDE = [
    *(("http://{2}/file?signature=x", "/file", status) for status in (301, 302, 303, 307, 308)),
    ("//{2}/file?signature=x", "/file", 307),
    ("http://{0}/admin?signature=x", "/admin", 307),
    ("/v10/at/x?signature=x", "/v10/at/x", 307),
    ("/v1/../admin?signature=x", "/admin", 307),
]


@every_client
@pytest.mark.parametrize(("to", "path", "status"), OUTSIDE)
def test_all_else_is_foreign_and_gets_no_credentials(
    client: Client, addresses: list[str], nodes: list[str], to: str, path: str, status: int
) -> None:
    """It is sent where the redirect leads, without ``prepare``, a lease or ``Authorization``."""
    balancer = Balancer(nodes, RoundRobin())
    url = going(to.format(*addresses), status)
    answer, inside = client.send(
        balancer, Ask(url, more={"headers": TOKEN}), "http://service/at/x", prepare=set_key
    )
    assert told(inside)["headers"]["x-key"] == "secret"
    assert answer.route == {"node": None, "attempts": 1}
    assert picks(balancer) == 2
    if client is REQUESTS and "/../" in to:  # it sends dot segments as they are
        assert answer.status == 404
        return
    arrived = told(answer)
    assert arrived["port"] == port_of(addresses[2 if "{2}" in to else 0])
    assert (arrived["path"], arrived["query"]) == (path, "signature=x")
    assert not {"authorization", "x-key"} & arrived["headers"].keys()


@pytest.mark.filterwarnings("ignore:The 'auth' parameter:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:BasicAuth is deprecated:DeprecationWarning")
@pytest.mark.parametrize("total", [None, 60.0])
def test_a_session_of_aiohttp_gives_its_credentials_to_the_fleet_alone(
    nodes: list[str], other: str, total: float | None
) -> None:
    """By itself it would give them to whomever a redirect leads to; with or without a timeout."""
    session = {"auth": BasicAuth("ada", "secret"), "timeout": ClientTimeout(total=total)}
    balancer = Balancer(nodes, RoundRobin())
    out, inside = AIOHTTP.send(
        balancer, going(f"http://{other}/file"), "http://service/at/x", client=session
    )
    assert told(out)["path"] == "/file"
    assert "authorization" not in told(out)["headers"]
    assert "authorization" in told(inside)["headers"]
    assert picks(balancer) == 2


def test_a_middleware_of_aiohttp_may_go_on_in_another_task(nodes: list[str], other: str) -> None:
    """A note of where a redirect leads is one of the session's call, not of a task."""

    async def in_a_task(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        return await asyncio.ensure_future(handler(request))

    async def main() -> None:
        middleware = LoadwiseMiddleware(balancer, prepare=set_key)
        async with ClientSession(middlewares=[in_a_task, middleware]) as session:
            calls = [session.get(going(f"http://{other}/{number}")) for number in range(20)]
            for number, response in enumerate(await asyncio.gather(*calls)):
                arrived = await response.json()
                assert arrived["path"] == f"/{number}"
                assert "x-key" not in arrived["headers"]

    balancer = Balancer(nodes, RoundRobin())
    asyncio.run(main())
    assert picks(balancer) == 20


@every_client
def test_a_redirect_leads_out_further_and_in_again(
    client: Client, addresses: list[str], nodes: list[str], other: str
) -> None:
    """A server outside may redirect to a place beside it, and to a node."""
    balancer = Balancer(nodes, RoundRobin())
    further = f"http://{other}/v1/go?to=/v1/at/further"
    again = f"http://{other}/v1/go?to={quote(f'http://{addresses[1]}/v1/at/again')}"
    beside = f"http://{addresses[0]}/v1/../v1/at/x"  # is under the base URL, after all
    answers = client.send(
        balancer, *(Ask(going(to)) for to in (further, again, beside)), prepare=set_key
    )
    out, back, within = map(told, answers)
    assert (out["port"], out["path"]) == (port_of(other), "/v1/at/further")
    assert "x-key" not in out["headers"]
    assert (back["path"], back["headers"]["x-key"]) == ("/v1/at/again", "secret")
    assert [answer.url for answer in answers] == [
        f"http://{other}/v1/at/further",
        "http://service/at/again",
        "http://service/at/x",
    ]
    assert (within["path"], within["headers"]["x-key"]) == ("/v1/at/x", "secret")
    assert picks(balancer) == 5


@every_client
def test_nodes_asked_by_their_own_name_do_not_take_what_is_beside_them(
    client: Client, addresses: list[str], nodes: list[str]
) -> None:
    """Who asks for a node's own origin is balanced; a redirect out of its base path is not."""
    balancer = Balancer(nodes, RoundRobin())
    asked = f"http://{addresses[0]}/go?to=/admin"
    out, inside = client.send(balancer, asked, f"http://{addresses[0]}/at/x", prepare=set_key)
    assert (told(out)["path"], told(inside)["path"]) == ("/admin", "/v1/at/x")
    assert "x-key" not in told(out)["headers"]
    assert "x-key" in told(inside)["headers"]
    assert picks(balancer) == 2


@every_client
def test_where_a_redirect_led_is_the_fleets_when_it_is_asked_for_anew(
    client: Client, nodes: list[str], other: str
) -> None:
    """Only the request that follows a redirect is sent out; others are for nodes by any name."""
    balancer = Balancer(nodes, RoundRobin())
    url = f"http://{other}/at/x"
    out, anew = client.send(balancer, going(url), url)
    assert (told(out)["path"], told(anew)["path"]) == ("/at/x", "/v1/at/x")
    assert anew.route["node"] in nodes


@every_client
@pytest.mark.parametrize(
    "to", ["mailto:ada@example.com", "http://[zz/", "https:/v1/at/x", "http://127.0.0.1:1/x"]
)
def test_what_cannot_be_followed_reaches_no_node(client: Client, nodes: list[str], to: str) -> None:
    """What the client makes of it is its own error, or that of a server that does not exist."""
    balancer = Balancer(nodes, RoundRobin())
    (result,) = client.send(balancer, Ask(going(to).replace("service", "service.invalid")))
    assert isinstance(result, Exception)
    assert picks(balancer) == 1
    assert not any(status.health_reason for status in balancer.status())


@every_client
def test_a_place_that_is_no_redirect_is_mapped_too(
    client: Client, nodes: list[str], addresses: list[str]
) -> None:
    """What was made is found at the origin that was asked; what is foreign is told in full."""
    balancer = Balancer(nodes[:1])
    answers = client.send(
        balancer,
        *(f"http://service/made?to={quote(to)}" for to in ("at/7", "/elsewhere", "//other/7")),
        "http://service/at/7",
        prepare=set_key,
    )
    for answer, place in zip(
        answers,
        ("http://service/at/7", f"http://{addresses[0]}/elsewhere", "http://other/7"),
        strict=False,
    ):
        assert (answer.headers["location"], answer.headers["content-location"]) == (place, place)
    assert told(answers[-1])["headers"]["x-key"] == "secret"


@every_client
@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("sid=1; Path=/v1", "sid=1; Path=/"),
        ("sid=1; Path=/v1/at/", "sid=1; Path=/at/"),
        ("sid=1; Path=/; HttpOnly", "sid=1; Path=/; HttpOnly"),
        ("sid=1; path=/v1; Domain=127.0.0.1", "sid=1; Path=/"),
        ("sid=1; Path=/v10", "sid=1; Path=/v10"),
        ("sid=1; Path=/; Domain=service.example", "sid=1; Path=/; Domain=service.example"),
        ("sid=1; Path=/; Secure", "sid=1; Path=/; Secure"),
    ],
)
def test_cookies_are_those_of_who_was_asked(
    client: Client, nodes: list[str], value: str, seen: str
) -> None:
    """The path loses the base path, and the domain the node's, so that a client sends them back."""
    balancer = Balancer(nodes, RoundRobin())
    cookie, *later = client.send(
        balancer,
        f"http://api.service.example/cookie?value={quote(value)}",
        "http://api.service.example/at/x",
        "http://api.service.example/items/",
    )
    assert cookie.cookies == [seen]
    sent = [told(answer)["headers"].get("cookie") for answer in later]
    is_sent = ["Secure" not in seen and "/v10" not in seen] * 2
    if "/at/" in seen:
        is_sent[1] = False
    assert sent == ["sid=1" if each else None for each in is_sent]


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A node that speaks TLS, by IP, and what a client needs to trust it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = str(folder / "certificate.pem"), str(folder / "key.pem")
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=node", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    with started(certificate, key) as wait:
        yield f"https://{wait()}/v1", certificate


@every_client
@pytest.mark.parametrize(
    ("asked", "is_mixed", "seen", "sent"),
    [
        ("http", False, "sid=1; Path=/", "sid=1"),
        ("https", False, "sid=1; Path=/; Secure", "sid=1"),
        ("http", True, "sid=1; Path=/; Secure", None),
    ],
)
def test_a_secure_cookie_goes_by_tls_alone(
    client: Client,
    secure: tuple[str, str],
    nodes: list[str],
    asked: str,
    is_mixed: bool,  # noqa: FBT001 - from pytest
    seen: str,
    sent: str | None,
) -> None:
    """Asked by http, a client would keep it back; where all nodes speak TLS it need not."""
    node, certificate = secure
    trust = ssl.create_default_context(cafile=certificate)
    balancer = Balancer([node, *(nodes if is_mixed else [])], where=lambda each: each == node)
    asks = [f"{asked}://service/cookie?value=sid=1; Path=/v1; Secure".replace(" ", "%20")]
    asks.append(f"{asked}://service/at/x")
    if client.library == "aiohttp":
        answers = client.send(balancer, *(Ask(url, more={"ssl": trust}) for url in asks))
    elif client is REQUESTS:
        answers = client.send(balancer, *(Ask(url, more={"verify": certificate}) for url in asks))
    else:
        name = "AsyncHTTPTransport" if client.waits else "HTTPTransport"
        inner = getattr(client.module, name)(verify=trust)
        answers = client.send(balancer, *asks, transport=inner)
    assert answers[0].cookies == [seen]
    assert told(answers[1])["headers"].get("cookie") == sent


@every_client
def test_responses_can_be_left_as_they_are(
    client: Client, nodes: list[str], addresses: list[str]
) -> None:
    """With ``map_responses=False`` a client gets what the node has sent, and follows it."""
    balancer = Balancer(nodes[:1])
    made, cookie, followed = client.send(
        balancer,
        "http://service/made?to=/v1/at/7",
        "http://service/cookie?value=sid=1;%20Path=/v1",
        "http://service/go?to=at/x",
        map_responses=False,
    )
    assert made.headers["location"] == "/v1/at/7"
    assert cookie.cookies == ["sid=1; Path=/v1"]
    assert told(followed)["path"] == "/v1/at/x"
    with pytest.raises(TypeError, match="map_responses is 1; it must be True or False"):
        client.send(balancer, "http://service/", map_responses=1)


@pytest.mark.parametrize("client", SYNC, ids=str)
def test_a_relative_url_and_a_redirect_that_is_followed_by_hand(
    client: Client, nodes: list[str], addresses: list[str]
) -> None:
    """A client with no base URL is told the node's origin, and ``next_request`` leads out, too."""
    balancer = Balancer(nodes, RoundRobin())
    within, out = client.send(balancer, "/items", "/go?to=/admin", prepare=set_key)
    assert (told(within)["path"], told(out)["path"]) == ("/v1/items/", "/admin")
    assert "x-key" in told(within)["headers"]
    assert "x-key" not in told(out)["headers"]
    transport = client.ours.LoadwiseTransport(balancer, prepare=set_key)
    with client.module.Client(transport=transport) as session:
        followed = session.send(session.get(going("/admin")).next_request).json()
    assert followed["path"] == "/admin"
    assert "x-key" not in followed["headers"]


SEGMENTS = st.lists(st.sampled_from(["v1", "v10", "..", "%2e%2E", "", "a;b=1"]), max_size=6)


@given(SEGMENTS, st.sampled_from(["", "/v1", "/v1/v10"]))
def test_what_is_mapped_back_is_reached_by_the_same_path(segments: list[str], base: str) -> None:
    """What is the fleet's is, put behind the base path again, what the node has said."""
    balancer = Balancer([f"http://node{base}"])
    mapper = Mapper(Members(balancer, lambda node, _: str(node)))
    path = "/" + "/".join(segments)
    route = Route("http://service", f"http://node{base}/asked", "node", f"http://node{base}")
    ((_, seen),), outside = mapper.mapped([("Location", f"http://node{path}?q")], route)
    if outside is not None:
        assert outside == f"http://node{path}?q"
        assert not f"{confined(path)}/".startswith(f"{base}/")
        return
    inside = seen.removeprefix("http://service").removesuffix("?q")
    assert inside.startswith("/")
    assert f"{base}{inside}" in (confined(path), confined(path) + "/")


ODD = st.text(
    st.sampled_from('/\\:?#[]@;=.%2eabc \t"\xe9') | st.characters(max_codepoint=255), max_size=16
)


@given(ODD, st.sampled_from(["", "http:", "https:", "//", "http://", "http://node", "/v1/"]), ODD)
def test_whatever_a_node_sends_is_mapped_or_left(text: str, start: str, host: str) -> None:
    """Nothing raises, and what is not the fleet's is never given its origin."""
    mapper = Mapper(Members(Balancer(["http://node/v1"]), lambda node, _: str(node)))
    route = Route("http://service", "http://node/v1/asked", host, "http://node/v1")
    cookie = f"a=b; Path={text}; Domain={text}; {text}"
    rows = [("Location", start + text), ("Set-Cookie", cookie), ("X-Own", text)]
    mapped, outside = mapper.mapped(rows, route)
    assert [name for name, _ in mapped] == ["Location", "Set-Cookie", "X-Own"]
    assert mapped[2] == rows[2]
    assert mapped[1][1].startswith("a=b;")
    assert (outside is None) == mapped[0][1].startswith("http://service/")


def test_what_is_known_of_the_members_follows_the_membership() -> None:
    """It is made once for each membership; a node whose address cannot be told is nowhere."""
    asked: list[object] = []

    def url(node: object) -> str:
        asked.append(node)
        if node == "odd":
            raise KeyError(node)
        return f"https://{node}"

    balancer = Balancer(["a"])
    members = Members(balancer, lambda node, _: url(node))
    a, b = (base_of(f"https://{node}").origin for node in "ab")
    assert [members.has(a), members.has(b), members.all_secure] == [True, False, True]
    assert asked == ["a"]
    balancer.add("b")
    balancer.add("odd")
    balancer.remove("a")
    assert [members.has(a), members.has(b), members.all_secure] == [False, True, False]
    assert asked == ["a", "b", "odd"]
    balancer.replace(["a", "a/v1", "a/v1/v2"])
    assert members.all_secure
    assert members.below(a, "/v1/v2/x") == "/x"
    balancer.remove("a/v1/v2")
    assert members.below(a, "/v1/v2/x") == "/v2/x"
    balancer.remove("a/v1")
    assert members.below(a, "/v1/v2/x") == "/v1/v2/x"
    balancer.replace([])
    assert not members.all_secure
    assert not members.has(a)
