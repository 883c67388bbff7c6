"""Requests for which there is no node, in every HTTP client."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import aiohttp
import pytest
from tests.integrations.http.clients import Answer, Ask, Client, every_client

from loadwise import (
    Balancer,
    LoadwiseError,
    NoNodeAvailable,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
)
from loadwise.integrations._http.no_node_response import NO_NODE, refusal_of
from loadwise.integrations._http.settings import TransportOptions
from loadwise.integrations.aiohttp import LoadwiseMiddleware, NoNodeError
from loadwise.testing import ManualClock

pytestmark = pytest.mark.slow

Start = Callable[[int], list[Any]]
NODES = ["127.0.0.1:1", "127.0.0.1:2"]


def family_of(client: Client) -> type[Exception]:
    """The error that all of a client's transport errors are."""
    names = {"aiohttp": "ClientError", "requests": "ConnectionError"}
    family: type[Exception] = getattr(client.module, names.get(client.library, "TransportError"))
    return family


def used_up() -> Balancer[str]:
    """A balancer whose nodes have no quota left for 30.5 s."""
    clock = ManualClock()
    quota = QuotaTracker(clock=clock)
    for node in NODES:
        quota.register(node, QuotaConfig([QuotaDimension("rpm", 1, 30.5, resolution=1)]))
        quota.record_usage(node, {"rpm": 1})
    return Balancer(NODES, quota=quota, clock=clock)


def filtered() -> Balancer[str]:
    """A balancer whose filter lets no node through."""
    return Balancer(NODES, where=lambda _: False)


def resting() -> Balancer[str]:
    """A balancer whose nodes are on cooldown for a little more than 7 s."""
    balancer = Balancer(NODES, clock=ManualClock())
    for _ in NODES:
        balancer.acquire().rate_limited(7.2)
    return balancer


@every_client
def test_it_is_an_error_of_the_clients_own_family(client: Client) -> None:
    """Whoever handles what a client raises handles this, and so does who handles ours."""
    balancer: Balancer[str] = Balancer([], name="search")
    ask = Ask("http://service/x?q=1", "POST", {"headers": {"X-Own": "value"}, "data": {"a": "1"}})
    (error,) = client.send(balancer, ask)
    for family in (client.ours.NoNodeError, family_of(client), NoNodeAvailable):
        assert isinstance(error, family)
    assert (error.balancer, error.total, error.reason) == ("search", 0, "empty")
    assert str(error) == "no node available in balancer 'search': it has no nodes"
    for each in (error, pickle.loads(pickle.dumps(error))):  # noqa: S301 - our own
        assert type(each) is type(error)
        assert (each.args, str(each)) == (error.args, str(error))
        assert str(each.request.url) == "http://service/x?q=1"
        assert (each.request.method, each.request.headers["x-own"]) == ("POST", "value")


@every_client
def test_it_tells_the_reasons_and_when_to_come_back(client: Client) -> None:
    """Nothing that `NoNodeAvailable` says is lost, on the way and in a pickle."""
    (error,) = client.send(used_up(), "http://service/")
    copied = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    for each in (error, copied):
        assert (dict(each.reasons), each.retry_after) == ({"quota": 2}, 30.5)


@every_client
def test_an_error_of_ones_own_stays_what_it_is(client: Client) -> None:
    """Only the balancer that was asked is spoken for: ``hash_key`` may ask another one."""

    def fail(_: Any) -> str:
        return Balancer([], name="keys").pick()

    (error,) = client.send(Balancer(NODES), "http://service/", hash_key=fail)
    assert type(error) is NoNodeAvailable
    assert error.balancer == "keys"


def test_without_a_request_it_can_be_made_and_pickled() -> None:
    """As the errors of the libraries can."""
    error = NoNodeError("search", 0, {})
    assert pickle.loads(pickle.dumps(error)).request is None  # noqa: S301 - our own
    for library in ("httpx", "httpx2"):
        ours = Client(library, waits=False).ours
        copied = pickle.loads(pickle.dumps(ours.NoNodeError("search", 0, {})))  # noqa: S301 - our own
        with pytest.raises(RuntimeError, match="request"):
            _ = copied.request


@every_client
@pytest.mark.parametrize(
    ("make", "status", "wait"),
    [(used_up, 429, "31"), (resting, 429, "8"), (filtered, 503, None), (Balancer, 503, None)],
)
def test_it_may_be_a_response(
    client: Client, make: Callable[[], Balancer[str]], status: int, wait: str | None
) -> None:
    """What time will mend is 429 with a Retry-After; all else is 503."""
    get, head = client.send(
        make(), "http://service/", Ask("http://service/x", "HEAD"), no_node="response"
    )
    assert isinstance(get, Answer)
    for answer in (get, head):
        assert (answer.status, answer.headers.get("retry-after")) == (status, wait)
        assert answer.route == {"node": None, "attempts": 0}
        assert answer.headers["content-length"] == str(len(get.body))
    assert get.body.startswith("no node available in balancer 'default'")
    assert (head.body, head.url) == ("", "http://service/x")


@every_client
def test_a_response_is_treated_as_any_other(client: Client) -> None:
    """Clients that raise for a status do."""

    def refuse(response: Any) -> None:
        response.raise_for_status()

    async def refuse_later(response: Any) -> None:
        response.raise_for_status()

    if client.library == "aiohttp":
        given: dict[str, Any] = {"raise_for_status": True}
        kind: Any = aiohttp.ClientResponseError
    elif client.library == "requests":
        given = {"hooks": {"response": [lambda response, **_: response.raise_for_status()]}}
        kind = client.module.HTTPError
    else:
        given = {"event_hooks": {"response": [refuse_later if client.waits else refuse]}}
        kind = client.module.HTTPStatusError
    (error,) = client.send(Balancer(), "http://service/", client=given, no_node="response")
    assert isinstance(error, kind)
    assert not isinstance(error, LoadwiseError)


def test_a_session_of_aiohttp_goes_on_after_it() -> None:
    """It can be streamed, and leaves nothing open."""

    async def main() -> None:
        middleware = LoadwiseMiddleware(Balancer(), no_node="response")
        async with aiohttp.ClientSession(middlewares=[middleware]) as session:
            for _ in range(2):
                async with session.get("http://service/", json={"n": 1}) as response:
                    pieces = [piece async for piece in response.content.iter_any()]
                    assert b"it has no nodes" in b"".join(pieces)
                assert response.closed
                assert response.connection is None

    asyncio.run(main())


@every_client
def test_other_words_are_refused(client: Client) -> None:
    """There are two."""
    with pytest.raises(ValueError, match="no_node is 'answer'; it must be 'raise' or 'response'"):
        client.send(Balancer(), no_node="answer")
    assert get_args(get_type_hints(TransportOptions)["no_node"]) == NO_NODE


@pytest.mark.parametrize(
    ("reasons", "retry_after", "expected"),
    [
        ({"full": 2}, None, (429, "1")),
        ({"full": 1, "quota": 1, "unhealthy": 2}, 0.2, (429, "1")),
        ({"rate_limited": 1, "unhealthy": 2}, 9.0, (503, "9")),
        ({"unhealthy": 2}, 0.0, (503, "1")),
        ({"queue": 2}, None, (503, None)),
        ({}, None, (503, None)),
    ],
)
def test_the_most_decide(
    reasons: dict[str, int], retry_after: float | None, expected: tuple[int, str | None]
) -> None:
    """Quota, cooldown and fullness count together."""
    refusal = refusal_of(NoNodeAvailable("search", 3, reasons, retry_after))
    assert (refusal.status, dict(refusal.headers).get("Retry-After")) == expected
