"""The adapter for requests against real servers, where requests differs from other clients."""

from __future__ import annotations

import gc
import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
from requests_cache import CachedSession
from tests.real.http.conversing import Scripted

from loadwise import (
    Balancer,
    NoNodeAvailable,
    NoopCollector,
    Outcome,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    RoundRobin,
)
from loadwise.integrations._http.requests_attempts import RequestsCall
from loadwise.integrations.requests import (
    LoadwiseAdapter,
    NoNodeError,
    request_options,
    route_of,
)
from loadwise.testing import ManualClock

pytestmark = pytest.mark.slow

Start = Callable[[int], list[Any]]
Script = Callable[..., Scripted]
URL = "http://service"


class Outcomes(NoopCollector):
    """Remembers how requests ended."""

    def __init__(self) -> None:
        self.seen: list[Outcome] = []

    def on_outcome(self, node_id: object, outcome: Outcome, latency: float) -> None:
        self.seen.append(outcome)


@contextmanager
def session_of(balancer: Balancer[Any], **options: Any) -> Iterator[requests.Session]:
    """A session whose requests to the service are balanced."""
    with requests.Session() as session:
        session.mount(f"{URL}/", LoadwiseAdapter(balancer, **options))
        yield session


def in_flight(balancer: Balancer[Any]) -> int:
    """Requests in flight over all nodes."""
    return sum(status.in_flight for status in balancer.status())


def in_order(servers: list[Any], **options: Any) -> Balancer[str]:
    """A balancer that takes the servers in turn, from the first on."""
    return Balancer([server.address for server in servers], RoundRobin(start=0), **options)


READERS: dict[str, Callable[[requests.Response], bytes]] = {
    "content": lambda response: response.content,
    "pieces": lambda response: b"".join(response.iter_content(5)),
    "as it comes": lambda response: b"".join(response.iter_content(None)),
    "lines": lambda response: b"\n".join(response.iter_lines()) + b"\n",
    "raw": lambda response: response.raw.read(),
    "raw, in parts": lambda response: b"".join(iter(lambda: response.raw.read(4), b"")),
    "raw, what comes": lambda response: b"".join(iter(lambda: response.raw.read1(4), b"")),
}


@pytest.mark.parametrize("how", READERS)
def test_a_streamed_body_holds_its_slot_until_it_is_read(upstreams: Start, how: str) -> None:
    """However it is read; nobody has to close it then."""
    outcomes = Outcomes()
    balancer = in_order(upstreams(1), metrics=outcomes)
    with session_of(balancer) as session:
        response = session.get(f"{URL}/stream?pieces=3", stream=True)
        assert (in_flight(balancer), outcomes.seen) == (1, [])
        assert READERS[how](response) == b"piece 0\npiece 1\npiece 2\n"
        assert (in_flight(balancer), outcomes.seen) == (0, [Outcome.SUCCESS])


def test_a_streamed_body_that_is_left_early_gives_its_slot_back(upstreams: Start) -> None:
    """When it is closed; it is no failure, for the caller has had what was wanted."""
    outcomes = Outcomes()
    balancer = in_order(upstreams(1), metrics=outcomes)
    with session_of(balancer) as session:
        with session.get(f"{URL}/stream?pieces=9", stream=True) as response:
            assert next(response.iter_content(5)) == b"piece"
            assert in_flight(balancer) == 1
        assert (in_flight(balancer), outcomes.seen) == (0, [Outcome.SUCCESS])
        assert session.get(f"{URL}/").status_code == 200


def test_a_response_that_is_dropped_open_gives_its_slot_back(upstreams: Start) -> None:
    """With a warning, when it is collected."""
    balancer = in_order(upstreams(1))
    with session_of(balancer) as session:
        response = session.get(f"{URL}/stream", stream=True)
        assert in_flight(balancer) == 1
        with pytest.warns(ResourceWarning):  # noqa: PT031 - who holds it, and when it is gone
            del response
            gc.collect()
            assert in_flight(balancer) == 0


def test_a_streamed_body_that_breaks_off_is_a_failure(upstreams: Start) -> None:
    """It has been handed on, so nothing is retried."""
    outcomes = Outcomes()
    balancer = in_order(upstreams(2), metrics=outcomes)
    with session_of(balancer) as session:
        response = session.get(f"{URL}/stream?cut=1", stream=True)
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            _ = response.content
    assert outcomes.seen == [Outcome.FAILURE]
    assert in_flight(balancer) == 0


def test_a_body_that_is_not_streamed_and_breaks_off_is_never_a_success(scripted: Script) -> None:
    """A GET is had from another node; a POST is lost, because the server may have acted on it."""
    cut, plain = scripted("cut"), scripted("plain")
    outcomes = Outcomes()
    balancer = Balancer([*cut.nodes, *plain.nodes], RoundRobin(start=0), metrics=outcomes)
    with session_of(balancer) as session:
        response = session.get(f"{URL}/")
        assert (response.text, route_of(response)["attempts"]) == ("ok", 2)
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            session.post(f"{URL}/")
    assert outcomes.seen == [Outcome.FAILURE, Outcome.SUCCESS, Outcome.FAILURE]
    assert cut.told()[0]["requests"] == ["GET /", "POST /"]


@pytest.mark.parametrize(
    ("method", "path", "extra", "attempts"),
    [
        ("GET", "/?status=503", {}, 2),
        ("PUT", "/?status=502", {"data": b"some"}, 2),
        ("POST", "/?status=503", {"data": b"some"}, 1),
        ("POST", "/reset", {"json": {"n": 1}}, 1),
        ("POST", "/reset", {"json": {"n": 1}, "headers": {"Idempotency-Key": "k"}}, 2),
        ("PUT", "/reset", {"data": iter([b"so", b"me"])}, 1),
        ("PUT", "/reset", {"files": {"name": b"some"}}, 2),
        ("PATCH", "/?status=429", {"data": "some"}, 1),
    ],
)
def test_what_may_have_been_acted_on_is_sent_again_only_if_that_is_safe(
    upstreams: Start, method: str, path: str, extra: dict[str, Any], attempts: int
) -> None:
    """By its method or its word (RFC 9110, section 9.2.2), and if its body can be sent again."""
    servers = upstreams(2)
    headers = {"X-Request-Id": "it", **extra.pop("headers", {})}
    with session_of(in_order(servers)) as session:
        try:
            session.request(method, f"{URL}{path}", headers=headers, **extra)
        except requests.ConnectionError:
            assert path == "/reset"
    assert sum(len(server.acted_on()) for server in servers) == attempts


@pytest.mark.parametrize("data", [b"some", [b"so", b"me"]], ids=["bytes", "pieces"])
def test_what_was_never_sent_goes_on(upstreams: Start, dead: str, data: Any) -> None:
    """A POST whose body can be read but once, too."""
    (server,) = upstreams(1)
    balancer = Balancer([dead, server.address], RoundRobin(start=0))
    with session_of(balancer) as session:
        response = session.post(f"{URL}/", data=data if isinstance(data, bytes) else iter(data))
    told = response.json()
    # The server reads bodies of a known length alone.
    assert told["body"] == "some" or told["headers"]["transfer-encoding"] == "chunked"
    assert route_of(response) == {"node": server.address, "attempts": 2}


def test_a_block_lets_a_post_be_sent_again(upstreams: Start) -> None:
    """Options of a request stand in a block, for requests has no place for them."""
    failing, well = upstreams(2)
    failing.behave("fail")
    with session_of(in_order([failing, well])) as session:
        with request_options(retry=True):
            assert session.post(f"{URL}/").status_code == 200
        session.get(f"{URL}/")
        assert session.post(f"{URL}/").status_code == 503


def test_a_node_that_hangs_is_found_out_by_the_sessions_timeout(scripted: Script) -> None:
    """A number, or two; each attempt has as long."""
    servers = scripted("plain", 2)
    for timeout in (0.2, (5.0, 0.2)):
        balancer = Balancer(servers.nodes, RoundRobin(start=0))
        with session_of(balancer) as session, pytest.raises(requests.ReadTimeout):
            session.get(f"{URL}/hang", timeout=timeout)
        assert [status.health_reason is None for status in balancer.status()] == [False, True]
    with session_of(balancer) as session, pytest.raises(ValueError, match="timeout"):
        session.get(f"{URL}/", timeout=(1, 2, 3))  # type: ignore[arg-type]


def test_a_node_asks_for_a_pause(upstreams: Start) -> None:
    """A 429 with a Retry-After is a cooldown, and another node answers."""
    clock = ManualClock()
    balancer = in_order(upstreams(1), clock=clock)
    with session_of(balancer) as session:
        assert session.get(f"{URL}/?status=429&retry-after=7").status_code == 429
        with pytest.raises(NoNodeError) as refused:
            session.get(f"{URL}/")
    assert (refused.value.reason, refused.value.retry_after) == ("rate_limited", 7.0)


def test_no_node_is_an_error_of_requests_and_pickles(upstreams: Start) -> None:
    """With the request that was asked, as all errors of requests."""
    with session_of(Balancer()) as session, pytest.raises(requests.ConnectionError) as caught:
        session.get(f"{URL}/users")
    assert isinstance(caught.value, NoNodeAvailable)
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
    assert type(again) is NoNodeError
    assert again.reason == "empty"
    assert again.request is not None
    assert again.request.url == f"{URL}/users"


def test_secrets_of_a_node_are_in_no_error_and_no_response(upstreams: Start, dead: str) -> None:
    """What ``prepare`` sets is the node's alone."""

    def prepare(request: requests.PreparedRequest, _: str) -> None:
        request.headers["X-Key"] = "secret"

    (server,) = upstreams(1)
    with session_of(Balancer([server.address]), prepare=prepare) as session:
        response = session.get(f"{URL}/")
        assert response.json()["headers"]["x-key"] == "secret"
        assert "X-Key" not in response.request.headers
    with session_of(Balancer([dead]), prepare=prepare) as session:
        with pytest.raises(requests.ConnectionError) as caught:
            session.get(f"{URL}/")
        assert caught.value.request is not None
        assert "X-Key" not in caught.value.request.headers


def test_connections_are_the_nodes_and_close_with_them(scripted: Script) -> None:
    """They are kept from one request to the next, and end when the node has left."""
    servers = scripted("plain", 2)
    balancer = Balancer(servers.nodes, RoundRobin(start=0))
    with session_of(balancer) as session:
        for _ in range(6):
            session.get(f"{URL}/")
        assert [each["connections"] for each in servers.told()] == [1, 1]
        balancer.remove(servers.nodes[0])
        servers.until(lambda told: [each["open"] for each in told] == [0, 1])
        session.get(f"{URL}/")
        assert [each["connections"] for each in servers.told()] == [1, 1]
    servers.until(lambda told: [each["open"] for each in told] == [0, 0])


def test_a_session_goes_on_after_it_was_closed(upstreams: Start) -> None:
    """As sessions do; and its adapter does not pickle, for its balancer does not."""
    with session_of(in_order(upstreams(1))) as session:
        assert session.get(f"{URL}/").status_code == 200
        session.close()
        response = session.get(f"{URL}/?cookie=a=b")
        assert response.cookies.get_dict() == {"a": "b"}
        with pytest.raises(TypeError, match="a LoadwiseAdapter does not pickle"):
            pickle.dumps(session)
    again = pickle.loads(pickle.dumps(response))  # noqa: S301 - our own
    assert again.json() == response.json()


def test_tls_is_checked_by_the_nodes_name(scripted: Script, certificate: tuple[Any, Any]) -> None:
    """With the session's ``verify``; a node that cannot show its name is a failure unsent."""
    servers = scripted("plain", 1, certificate)
    wrong = servers.nodes[0].replace("127.0.0.1", "localhost")
    balancer = Balancer([wrong, servers.nodes[0]], RoundRobin(start=0))
    with session_of(balancer) as session:
        response = session.post(f"{URL}/", verify=str(certificate[0]))
        assert route_of(response) == {"node": servers.nodes[0], "attempts": 2}
        with pytest.raises(requests.exceptions.SSLError):
            session.post(f"{URL}/")
        with pytest.raises(OSError, match="invalid path"):
            session.get(f"{URL}/", verify="/nowhere.pem")
    reasons = [status.health_reason for status in balancer.status()]
    assert "SSLError" in str(reasons[0])
    assert len(servers.told()[0]["requests"]) == 1


def test_a_meter_reads_what_is_used_streamed_or_not(upstreams: Start) -> None:
    """The body decides what a request is charged."""

    class Length:
        """Charges a request for the length of its answer."""

        def estimate(self, body: bytes) -> dict[str, float]:
            return {"bytes": 1.0}

        def reader(self, content_type: str) -> Any:
            return Reader()

    class Reader:
        """Counts."""

        count = 0

        def feed(self, chunk: bytes) -> None:
            self.count += len(chunk)

        def amounts(self) -> dict[str, float]:
            return {"bytes": float(self.count)}

    (server,) = upstreams(1)
    quota = QuotaTracker()
    quota.register(server.address, QuotaConfig([QuotaDimension("bytes", 10_000, 3600.0)]))
    balancer = Balancer([server.address], quota=quota)
    with session_of(balancer, meter=Length()) as session:
        used = 0
        for stream in (False, True):
            for path in ("/", "/stream?pieces=4"):
                used += len(session.get(f"{URL}{path}", stream=stream).content)
                assert quota.remaining(server.address, "bytes") == 10_000 - used


def test_sessions_of_requests_cache_go_on(upstreams: Start) -> None:
    """What is in the cache asks no node."""
    servers = upstreams(2)
    balancer = in_order(servers)
    with CachedSession(backend="memory") as session:
        session.mount(f"{URL}/", LoadwiseAdapter(balancer))
        told = [session.get(f"{URL}/x").json() for _ in range(3)]
        assert told[0] == told[1] == told[2]
        streamed = session.get(f"{URL}/stream?pieces=2", stream=True)
        assert streamed.content == b"piece 0\npiece 1\n"
    assert sum(status.picks for status in balancer.status()) == 2
    assert in_flight(balancer) == 0


def test_hooks_of_the_callers_own_are_called_once_a_response(upstreams: Start) -> None:
    """What adapters note among a request's hooks for its redirects disturbs nobody."""
    seen: list[int] = []
    with session_of(in_order(upstreams(2)), deadline=20.0) as session:
        session.hooks["response"].append(lambda r, **_: seen.append(r.status_code))
        response = session.get(f"{URL}/?status=302&location=/there")
    assert seen == [302, 200]
    assert json.loads(response.text)["path"] == "/there"
    assert [each.status_code for each in response.history] == [302]


@pytest.mark.parametrize(
    ("exempt", "url", "left"),
    [
        ("10.0.0.0/8", "http://10.1.2.3:80/x", set()),
        ("10.0.0.0/8", "http://192.168.2.3:80/x", {"http", "no"}),
    ],
)
def test_proxies_of_the_environment_spare_the_nodes_that_it_exempts(
    monkeypatch: pytest.MonkeyPatch, exempt: str, url: str, left: set[str]
) -> None:
    """A session asks it for those of the service alone."""
    monkeypatch.setenv("http_proxy", "http://proxy:1")
    monkeypatch.setenv("no_proxy", exempt)
    proxies = {"http": "http://proxy:1", "no": exempt}
    call = RequestsCall(requests.PreparedRequest(), False, None, True, None, proxies)
    assert call.proxies_to(url).keys() == left
    own = RequestsCall(call.request, False, None, True, None, {**proxies, "http": "http://own:1"})
    assert own.proxies_to(url)["http"] == "http://own:1"
