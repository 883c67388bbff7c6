"""Retries of the transports of httpx and httpx2: which, when, and how long."""

from __future__ import annotations

import asyncio
import socket
import time
from email.utils import formatdate
from typing import Any

import pytest
from tests.real.http.transports.support import Recorder, Start, in_flight

from loadwise import Balancer, NoNodeAvailable, Outcome, RoundRobin
from loadwise.integrations._http.retry_after import parse_retry_after
from loadwise.retry_budget import RetryBudget
from loadwise.testing import ManualClock

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize("value", ["Sun, 06 Nov 1994 08:49:37 +2444444444400", "soon", "nan"])
def test_a_retry_after_that_says_nothing_is_ignored(
    library: Any, ours: Any, upstreams: Start, value: str
) -> None:
    """Whatever a server writes there, the caller gets its answer; the cooldown takes 1 s."""
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
