"""The transports of httpx and httpx2 against real servers."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import formatdate
from importlib import import_module
from threading import Event, Thread
from typing import Any

import pytest

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    ConsistentHash,
    HealthTracker,
    NoNodeAvailable,
    NoopCollector,
    Outcome,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    RoundRobin,
)
from loadwise.integrations._http.pauses import parse_retry_after
from loadwise.integrations._http.verdict import Verdict
from loadwise.integrations.llm import TokenMeter
from loadwise.retry_budget import RetryBudget
from loadwise.testing import ManualClock

pytestmark = pytest.mark.slow

Start = Callable[[int], list[Any]]

# The packages have no common base, so what is theirs is Any here as in the sources.


@pytest.fixture(params=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> Any:
    """The package under test."""
    return import_module(request.param)


@pytest.fixture
def ours(library: Any) -> Any:
    """The integration for the package under test."""
    return import_module(f"loadwise.integrations.{library.__name__}")


class Recorder(NoopCollector):
    """Remembers retries and what was refused."""

    def __init__(self) -> None:
        self.retried: list[object] = []
        self.refused: list[str] = []
        self.outcomes: list[tuple[object, Outcome]] = []

    def on_retry(self, node_id: object, reason: str) -> None:
        self.retried.append((node_id, reason))

    def on_retry_refused(self, reason: str) -> None:
        self.refused.append(reason)

    def on_outcome(self, node_id: object, outcome: Outcome, latency: float) -> None:
        self.outcomes.append((node_id, outcome))


@pytest.fixture
def dead() -> Iterator[str]:
    """An address where nobody listens: the port of a socket that is bound but not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def in_flight(balancer: Balancer[Any]) -> int:
    """Requests in flight over all nodes."""
    return sum(status.in_flight for status in balancer.status())


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


def test_arguments_are_checked(ours: Any) -> None:
    """Unknown names are refused with the nearest one, bad values with their place."""
    balancer = Balancer(["127.0.0.1:1"])
    with pytest.raises(TypeError, match="'max_attempt'; did you mean 'max_attempts'"):
        ours.LoadwiseTransport(balancer, max_attempt=2)
    with pytest.raises(ValueError, match="max_attempts is 0"):
        ours.LoadwiseTransport(balancer, max_attempts=0)
    for name in ("url", "prepare", "classify", "hash_key", "meter", "budget", "max_attempts"):
        with pytest.raises(TypeError, match=f"{name} is 'x'; it must be a"):
            ours.LoadwiseTransport(balancer, **{name: "x"})
    with pytest.raises(TypeError, match="deadline is '5'"):
        ours.LoadwiseTransport(balancer, deadline="5")
    with pytest.raises(TypeError, match=r"meter is .*; it must be a meter, such as TokenMeter\(\)"):
        ours.LoadwiseTransport(balancer, meter=TokenMeter)
    with pytest.raises(ValueError, match="deadline is -1"):
        ours.AsyncLoadwiseTransport(balancer, deadline=-1)
    with pytest.raises(TypeError, match="balancer is 'x'"):
        ours.LoadwiseTransport("x")


def test_the_transport_that_sends_must_be_of_the_same_kind(library: Any, ours: Any) -> None:
    """Sync and async, or the two packages, are easily taken for one another."""
    balancer = Balancer(["127.0.0.1:1"])
    with pytest.raises(TypeError, match=r"BaseTransport, such as \w+\.HTTPTransport\(\)"):
        ours.LoadwiseTransport(balancer, library.AsyncHTTPTransport())
    with pytest.raises(TypeError, match=r"AsyncBaseTransport, such as \w+\.AsyncHTTPTransport"):
        ours.AsyncLoadwiseTransport(balancer, library.HTTPTransport())


def test_request_options_are_checked(library: Any, ours: Any, upstreams: Start) -> None:
    """An unknown option of a request is refused with the nearest one, and holds no node."""
    (server,) = upstreams(1)
    balancer = Balancer([server.address])
    with (
        library.Client(transport=ours.LoadwiseTransport(balancer)) as client,
        pytest.raises(ValueError, match="no option 'retries'; did you mean 'retry'"),
    ):
        client.get("http://service/", extensions={"loadwise": {"retries": True}})
    assert in_flight(balancer) == 0


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("deadline", 0, ValueError),
        ("deadline", -1.0, ValueError),
        ("deadline", float("nan"), ValueError),
        ("deadline", "5", TypeError),
        ("retry", "no", TypeError),
        ("cost", 5, TypeError),
    ],
)
def test_values_of_request_options_are_checked(
    library: Any, ours: Any, name: str, value: object, error: type[Exception]
) -> None:
    """What is wrong is told by name, before a node is chosen."""
    recorder = Recorder()
    balancer = Balancer(["127.0.0.1:1"], metrics=recorder)
    with (
        library.Client(transport=ours.LoadwiseTransport(balancer)) as client,
        pytest.raises(error, match=f"the request's {name} is {value!r}; it must be"),
    ):
        client.get("http://service/", extensions={"loadwise": {name: value}})
    assert balancer.status()[0].picks == 0


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
def test_refused_connections_are_always_retried(
    library: Any, ours: Any, upstreams: Start, dead: str, method: str
) -> None:
    """What never reached a server goes to another node, whatever the method."""
    (server,) = upstreams(1)
    balancer = Balancer([dead, server.address], RoundRobin())
    with library.Client(transport=ours.LoadwiseTransport(balancer)) as client:
        response = client.request(method, "http://service/", content=b"once")
    assert response.extensions["loadwise"] == {"node": server.address, "attempts": 2}
    assert response.json()["body"] == "once"
    assert in_flight(balancer) == 0


@pytest.mark.parametrize(
    ("path", "method", "headers", "options", "attempts"),
    [
        ("/reset", "GET", {}, {}, 2),
        ("/reset", "DELETE", {}, {}, 2),
        ("/reset", "POST", {}, {}, 1),
        ("/reset", "PATCH", {}, {}, 1),
        ("/reset", "POST", {"Idempotency-Key": "k"}, {}, 2),
        ("/reset", "POST", {}, {"retry": True}, 2),
        ("/?status=503", "GET", {}, {}, 2),
        ("/?status=503", "POST", {}, {}, 1),
        ("/?status=503", "POST", {}, {"retry": True}, 2),
        ("/?status=429", "POST", {}, {}, 1),
        ("/?status=429", "GET", {}, {}, 2),
        ("/?status=500", "GET", {}, {}, 1),
        ("/?status=404", "GET", {}, {}, 1),
    ],
)
def test_what_a_server_may_have_acted_on_is_repeated_only_if_that_is_safe(
    library: Any,
    ours: Any,
    upstreams: Start,
    path: str,
    method: str,
    headers: dict[str, str],
    options: dict[str, Any],
    attempts: int,
) -> None:
    """After sending, only idempotent or opted-in requests go to another node (RFC 9110, 9.2.2)."""
    servers = upstreams(2)
    balancer = Balancer([server.address for server in servers], RoundRobin())
    extensions = {"loadwise": options} if options else {}
    with library.Client(transport=ours.LoadwiseTransport(balancer)) as client:
        try:
            client.request(
                method,
                f"http://service{path}",
                headers={"X-Request-Id": "the-one", **headers},
                extensions=extensions,
            )
        except library.TransportError:
            assert path == "/reset"
    assert sum(len(server.acted_on()) for server in servers) == attempts
    assert in_flight(balancer) == 0


def test_bodies_that_cannot_be_replayed_are_not_retried(
    library: Any, ours: Any, upstreams: Start
) -> None:
    """A generator can be read once, so a PUT of one is tried once."""
    servers = upstreams(2)
    recorder = Recorder()
    balancer = Balancer([server.address for server in servers], metrics=recorder)
    with library.Client(transport=ours.LoadwiseTransport(balancer)) as client:
        response = client.put("http://service/?status=503", content=iter([b"a", b"b"]))
    assert response.status_code == 503
    assert response.extensions["loadwise"]["attempts"] == 1
    assert recorder.refused == ["unsafe"]


def test_the_last_answer_is_kept_when_nobody_is_left_to_ask(
    library: Any, ours: Any, upstreams: Start
) -> None:
    """When every node has failed, the caller gets the last response whole, not an error."""
    servers = upstreams(2)
    balancer = Balancer([server.address for server in servers])
    with library.Client(transport=ours.LoadwiseTransport(balancer, max_attempts=5)) as client:
        response = client.get("http://service/?status=502")
    assert response.status_code == 502
    assert response.json()["path"] == "/?status=502"
    assert response.extensions["loadwise"]["attempts"] == 2
    assert in_flight(balancer) == 0


def test_no_node_available_reaches_the_caller(library: Any, ours: Any) -> None:
    """An empty balancer raises what it always raises."""
    transport = ours.LoadwiseTransport(Balancer([], name="search"))
    with (
        library.Client(transport=transport) as client,
        pytest.raises(NoNodeAvailable, match="search"),
    ):
        client.get("http://service/")


def test_retry_budget_stops_storms(library: Any, ours: Any, upstreams: Start) -> None:
    """When the budget is spent the original answer surfaces, and the collector is told."""
    servers = upstreams(2)
    recorder = Recorder()
    balancer = Balancer(
        [server.address for server in servers], RoundRobin(), health=False, metrics=recorder
    )
    budget = RetryBudget(ratio=0.5, floor=0.0, clock=ManualClock())
    transport = ours.LoadwiseTransport(balancer, budget=budget, max_attempts=2)
    with library.Client(transport=transport) as client:
        for _ in range(10):
            assert client.get("http://service/?status=503").status_code == 503
    assert len(recorder.retried) == 5
    assert recorder.refused.count("budget") == 5


@pytest.mark.parametrize("as_date", [False, True], ids=["seconds", "date"])
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_makes_a_node_sit_out(
    library: Any,
    ours: Any,
    upstreams: Start,
    status: int,
    as_date: bool,  # noqa: FBT001 - from pytest
) -> None:
    """429, and 503 with a Retry-After, put a node on cooldown; a 503 is a failure besides."""
    (server,) = upstreams(1)
    balancer = Balancer([server.address], clock=ManualClock())
    retry_after = formatdate(time.time() + 100, usegmt=True) if as_date else "2"
    query = f"status={status}&retry-after={retry_after.replace(' ', '%20')}"
    with library.Client(transport=ours.LoadwiseTransport(balancer)) as client:
        assert client.get(f"http://service/?{query}").status_code == status
        with pytest.raises(NoNodeAvailable) as caught:
            client.get("http://service/")
    assert caught.value.reason == "rate_limited"
    # A date has whole seconds, and time passes until it is read.
    expected = pytest.approx(100.0, abs=60.0) if as_date else pytest.approx(2.0)
    assert caught.value.retry_after == expected
    told = balancer.status()[0]
    assert (told.health_reason is None) is (status == 429)
    assert told.cooldown is not None
    assert f"{status} from the server, retry after " in told.cooldown.reason
    assert as_date or told.cooldown.reason.endswith("after 2 s")


def test_the_status_of_an_answer_is_told_with_the_failure(
    library: Any, ours: Any, upstreams: Start
) -> None:
    """Who asks why a node is not well learns which status it gave, or what ``classify`` says."""
    (server,) = upstreams(1)
    balancer = Balancer([server.address])
    with library.Client(transport=ours.LoadwiseTransport(balancer)) as client:
        client.get("http://service/?status=503")
    assert balancer.status()[0].health_reason == "1 failure, the last: 503 from the server"

    def classify(_: object) -> Any:
        return ours.Verdict(Outcome.RATE_LIMITED, retry_after=30.0, reason="out of stock")

    transport = ours.LoadwiseTransport(balancer, classify=classify)
    with library.Client(transport=transport) as client:
        client.get("http://service/")
    cooldown = balancer.status()[0].cooldown
    assert cooldown is not None
    assert cooldown.reason == "out of stock, retry after 30 s"
    with pytest.raises(TypeError, match="reason is 503; it must be a str, or None"):
        ours.Verdict(Outcome.FAILURE, reason=503)


def test_an_error_of_the_callers_own_says_nothing_about_the_node(
    library: Any, ours: Any, upstreams: Start
) -> None:
    """A body that raises while it is sent is not the node's fault."""
    (server,) = upstreams(1)
    recorder = Recorder()
    balancer = Balancer([server.address], metrics=recorder)

    def body() -> Iterator[bytes]:
        yield b"a"
        raise KeyError("mine")

    with (
        library.Client(transport=ours.LoadwiseTransport(balancer)) as client,
        pytest.raises(KeyError, match="mine"),
    ):
        client.post("http://service/", content=body())
    assert recorder.outcomes == [(server.address, Outcome.CANCELLED)]
    assert in_flight(balancer) == 0


@pytest.mark.parametrize("value", ["Sun, 06 Nov 1994 08:49:37 +2444444444400", "soon", "nan"])
def test_a_retry_after_that_says_nothing_is_ignored(
    library: Any, ours: Any, upstreams: Start, value: str
) -> None:
    """Whatever a server writes there, the caller gets its answer, and the node sits out for 1 s."""
    (server,) = upstreams(1)
    balancer = Balancer([server.address], clock=ManualClock())
    with library.Client(transport=ours.LoadwiseTransport(balancer)) as client:
        query = {"status": "429", "retry-after": value}
        assert client.get("http://service/", params=query).status_code == 429
        with pytest.raises(NoNodeAvailable) as caught:
            client.get("http://service/")
    assert caught.value.retry_after == pytest.approx(1.0)


@pytest.mark.parametrize(
    "value",
    ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"],
)
def test_all_formats_of_a_date_are_read_as_utc(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The three formats and their moment are the examples of RFC 9110, section 5.6.7."""
    monkeypatch.setattr(time, "time", lambda: 784111777.0 - 90.0)
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert parse_retry_after(value) == 90.0
    finally:
        monkeypatch.undo()
        time.tzset()


def test_classify_replaces_the_rule(library: Any, ours: Any, upstreams: Start) -> None:
    """``classify`` may judge responses by a rule of its own, and leave the rest to the default."""
    (server,) = upstreams(1)
    recorder = Recorder()
    balancer = Balancer([server.address], metrics=recorder)

    def classify(result: Any) -> Outcome | None:
        failed = getattr(result, "status_code", None) == 418
        return Outcome.FAILURE if failed else None

    with library.Client(transport=ours.LoadwiseTransport(balancer, classify=classify)) as client:
        client.get("http://service/?status=418")
        client.get("http://service/?status=404")
    assert [outcome for _, outcome in recorder.outcomes] == [Outcome.FAILURE, Outcome.SUCCESS]


def test_in_flight_until_the_body_is_closed(library: Any, ours: Any, upstreams: Start) -> None:
    """A streamed response holds its slot until it is closed, read to the end or not."""
    (server,) = upstreams(1)
    balancer = Balancer([server.address])
    with library.Client(transport=ours.LoadwiseTransport(balancer)) as client:
        with client.stream("GET", "http://service/stream?pieces=3") as response:
            assert in_flight(balancer) == 1
            assert response.read() == b"piece 0\npiece 1\npiece 2\n"
        assert in_flight(balancer) == 0
        with client.stream("GET", "http://service/stream?pieces=3"):
            assert in_flight(balancer) == 1
        assert in_flight(balancer) == 0


def test_a_body_that_breaks_off_is_a_failure(library: Any, ours: Any, upstreams: Start) -> None:
    """A response cut short counts against the node although its headers were fine."""
    (server,) = upstreams(1)
    recorder = Recorder()
    balancer = Balancer([server.address], metrics=recorder)
    with (
        library.Client(transport=ours.LoadwiseTransport(balancer)) as client,
        pytest.raises(library.RemoteProtocolError),
    ):
        client.get("http://service/stream?cut=1")
    assert recorder.outcomes == [(server.address, Outcome.FAILURE)]
    assert in_flight(balancer) == 0


def test_a_response_that_is_never_closed_is_released_by_collection(
    library: Any, ours: Any, upstreams: Start
) -> None:
    """The slot of a response that is dropped comes back, with a warning."""
    (server,) = upstreams(1)
    balancer = Balancer([server.address])
    inner = library.HTTPTransport()
    client = library.Client(transport=ours.LoadwiseTransport(balancer, inner))
    held = [client.send(client.build_request("GET", "http://service/stream"), stream=True)]
    assert in_flight(balancer) == 1

    def drop() -> None:
        held.clear()
        gc.collect()

    with pytest.warns(ResourceWarning, match=f"a lease on node '{server.address}' was dropped"):
        drop()
    assert in_flight(balancer) == 0
    client.close()


def test_latency_is_the_time_to_the_headers(library: Any, ours: Any, upstreams: Start) -> None:
    """Reading the body slowly does not make the node look slow."""
    (server,) = upstreams(1)
    clock = ManualClock()
    balancer = Balancer([server.address], clock=clock)
    with (
        library.Client(transport=ours.LoadwiseTransport(balancer)) as client,
        client.stream("GET", "http://service/stream") as response,
    ):
        clock.advance(60.0)
        response.read()
    assert balancer.status()[0].latency == 0.0


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


def test_deadline_bounds_all_attempts(library: Any, ours: Any, upstreams: Start) -> None:
    """A deadline shortens each attempt's time-outs and forbids attempts after it."""
    servers = upstreams(2)
    recorder = Recorder()
    balancer = Balancer([server.address for server in servers], metrics=recorder)
    transport = ours.LoadwiseTransport(balancer, deadline=0.2)
    # It may strike while the connection is made, on a busy machine.
    with library.Client(transport=transport) as client, pytest.raises(library.TimeoutException):
        client.get("http://service/sleep?seconds=30")
    assert recorder.refused == ["deadline"]


@pytest.mark.parametrize("waits", [False, True], ids=["sync", "async"])
def test_a_deadline_that_has_passed_is_a_timeout(
    library: Any,
    ours: Any,
    waits: bool,  # noqa: FBT001 - from pytest
) -> None:
    """Time may run out while a node is chosen and prepared; sockets take no timeout below 0."""
    clock = ManualClock()

    def dawdle(node: str) -> str:
        clock.advance(2.0)
        return f"http://{node}"

    with socket.create_server(("127.0.0.1", 0)) as silent:
        balancer = Balancer([f"127.0.0.1:{silent.getsockname()[1]}"], clock=clock)

        async def ask() -> None:
            transport = ours.AsyncLoadwiseTransport(balancer, deadline=1.0, url=dawdle)
            async with library.AsyncClient(transport=transport) as client:
                await client.get("http://service/")

        if waits:
            with pytest.raises(library.TimeoutException):
                asyncio.run(ask())
        else:
            transport = ours.LoadwiseTransport(balancer, deadline=1.0, url=dawdle)
            with (
                library.Client(transport=transport) as client,
                pytest.raises(library.TimeoutException),
            ):
                client.get("http://service/")
    assert in_flight(balancer) == 0


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


def test_a_body_that_is_left_early_is_a_success(library: Any, ours: Any, upstreams: Start) -> None:
    """Who has read enough leaves the loop; the node has done nothing wrong."""
    (server,) = upstreams(1)
    recorder = Recorder()
    balancer = Balancer([server.address], metrics=recorder)
    with (
        library.Client(transport=ours.LoadwiseTransport(balancer)) as client,
        client.stream("GET", "http://service/stream") as response,
    ):
        next(response.iter_raw())
    assert recorder.outcomes == [(server.address, Outcome.SUCCESS)]


@pytest.mark.parametrize(("asked", "sent"), [("br", "gzip, deflate"), ("identity", "identity")])
def test_a_meter_is_sent_nothing_that_it_cannot_read(
    library: Any, ours: Any, upstreams: Start, asked: str, sent: str
) -> None:
    """Encodings that can be undone here take the place of others; who wants none gets none."""
    (server,) = upstreams(1)
    quota = QuotaTracker()
    quota.register(server.address, QuotaConfig([QuotaDimension("rpm", limit=10)]))
    balancer = Balancer([server.address], quota=quota)
    transport = ours.LoadwiseTransport(balancer, meter=TokenMeter(tokens=None))
    with library.Client(transport=transport) as client:
        response = client.get("http://service/", headers={"Accept-Encoding": asked})
    assert response.json()["headers"]["accept-encoding"] == sent


def test_a_meter_that_raises_says_nothing_about_the_node(
    library: Any, ours: Any, upstreams: Start
) -> None:
    """Its error reaches the caller, and is not counted against whoever answered."""
    (server,) = upstreams(1)
    recorder = Recorder()
    balancer = Balancer([server.address], metrics=recorder)

    class Broken:
        def estimate(self, body: bytes) -> None:
            """Nothing."""

        def reader(self, content_type: str) -> Broken:
            return self

        def feed(self, chunk: bytes) -> None:
            raise KeyError("mine")

        def amounts(self) -> None:
            """Nothing."""

    transport = ours.LoadwiseTransport(balancer, meter=Broken())
    with library.Client(transport=transport) as client:
        for path in ("stream", "small"):
            with pytest.raises(KeyError, match="mine"):
                client.get(f"http://service/{path}")
    assert recorder.outcomes == [(server.address, Outcome.CANCELLED)] * 2


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


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_missing_package_says_what_to_install(name: str) -> None:
    """Without the package the integration says which extra to install."""
    script = f"import sys; sys.modules['{name}'] = None\nimport loadwise.integrations.{name}"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 1
    assert f"pip install 'loadwise[{name}]'" in result.stderr


@pytest.mark.parametrize("pause", [-1.0, float("nan"), float("inf")])
def test_a_verdict_pauses_for_a_time_that_can_be_waited(pause: float) -> None:
    """A pause that no node can sit out is refused where the verdict is made."""
    with pytest.raises(ValueError, match="retry_after is"):
        Verdict(Outcome.RATE_LIMITED, retry_after=pause)
