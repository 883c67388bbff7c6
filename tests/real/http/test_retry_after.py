"""Cooldowns that servers ask for, and what they count for, in every HTTP client."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.integrations.http.clients import Ask, Client, every_client
from tests.ports import free_port

from loadwise import Balancer, HealthStatus, NoNodeAvailable, RetryBudget, RoundRobin
from loadwise.integrations import aiohttp, httpx, httpx2, requests
from loadwise.integrations._http.retry_after import parse_retry_after
from loadwise.testing import ManualClock

Start = Callable[[int], list[Any]]

UNSAID = [
    *("0", "00", "-1", "+5", "1.5", "1e3", "nan", "inf", "soon", "7 s", "5, 7", "0x10", "1_0", ""),
    "Sun, 06 Nov 1994 08:49:37 GMT",
    "Sun, 06 Nov 1994 08:49:37 +2444444444400",
]


def asked_to_pause(status: int, value: str) -> str:
    """A URL that is answered so."""
    return f"http://service/?status={status}&retry-after={quote(value)}"


def failures(balancer: Balancer[str]) -> list[int]:
    """The failures in a row of each node."""
    assert balancer.health is not None
    return [balancer.health.health(node).consecutive_failures for node in balancer.nodes]


@pytest.mark.slow
@every_client
def test_a_503_is_a_failure_whatever_its_header_says(client: Client, upstreams: Start) -> None:
    """A node that is down with every request is found out, and asked again until then."""
    (server,) = upstreams(1)
    for value in UNSAID:
        balancer = Balancer([server.address], clock=ManualClock())
        url = asked_to_pause(503, value)
        answers = client.send(balancer, url, url, max_attempts=1)
        assert [answer.status for answer in answers] == [503, 503], value
        assert failures(balancer) == [2], value


@pytest.mark.slow
@every_client
def test_a_broken_node_that_says_zero_is_found_out(client: Client, upstreams: Start) -> None:
    """It costs three POSTs, as one that says nothing does."""
    good, bad = upstreams(2)
    bad.behave("fail")
    balancer = Balancer([good.address, bad.address], RoundRobin(), clock=ManualClock())
    ask = Ask("http://service/?retry-after=0", "POST")
    answers = client.send(balancer, *[ask] * 20)
    assert Counter(answer.status for answer in answers) == {200: 17, 503: 3}
    assert balancer.health is not None
    assert balancer.health.status(bad.address) is HealthStatus.UNHEALTHY


SAID: list[tuple[int, str, dict[str, Any], float]] = [
    (503, "7", {}, 7.0),
    (429, "7", {}, 7.0),
    (429, " 7 ", {}, 7.0),
    (429, "0", {}, 1.0),
    (429, "-5", {}, 1.0),
    (429, "86400", {}, 120.0),
    (503, "86400", {}, 120.0),
    (503, "9" * 5_000, {}, 120.0),
    (503, formatdate(4_000_000_000, usegmt=True), {}, 120.0),
    (503, "86400", {"max_cooldown": 30}, 30.0),
    (429, "86400", {"max_cooldown": 100_000.0}, 86_400.0),
]


@pytest.mark.slow
@every_client
def test_a_node_sits_out_for_as_long_as_it_says_but_not_for_ever(
    client: Client, upstreams: Start
) -> None:
    """A 503 counts as a failure, too; a 429 does not."""
    (server,) = upstreams(1)
    for status, value, options, pause in SAID:
        balancer = Balancer([server.address], clock=ManualClock())
        url = asked_to_pause(status, value)
        answer, refused = client.send(balancer, url, "http://service/", **options)
        assert answer.status == status
        assert isinstance(refused, NoNodeAvailable), value
        assert refused.reason == "rate_limited"
        assert refused.retry_after == pytest.approx(pause)
        assert failures(balancer) == [1 if status == 503 else 0]


def resting(balancer: Balancer[str]) -> list[bool]:
    """Whether each node is on cooldown."""
    told = balancer.explain()
    return [node in told.cooldowns for node in balancer.nodes]


@pytest.mark.slow
@every_client
def test_a_path_that_asks_for_a_pause_everywhere_rests_nobody(
    client: Client, upstreams: Start
) -> None:
    """What fails everywhere is the request's fault, and so is the cooldown that comes with it."""
    balancer = Balancer([server.address for server in upstreams(3)], RoundRobin())
    bad = asked_to_pause(503, "60")
    came = client.send(balancer, *[bad, "http://service/"] * 6)
    assert [answer.status for answer in came] == [503, 200] * 6
    assert resting(balancer) == [False] * 3


@pytest.mark.slow
@every_client
def test_a_node_that_alone_asks_for_a_pause_has_it(client: Client, upstreams: Start) -> None:
    """Another node has answered the same request well, so it speaks for itself."""
    good, bad = upstreams(2)
    bad.behave("fail")
    clock = ManualClock()
    balancer = Balancer([bad.address, good.address], RoundRobin(), clock=clock)
    (answer,) = client.send(balancer, "http://service/?retry-after=60")
    assert answer.status == 200
    assert resting(balancer) == [True, False]
    clock.advance(61.0)
    assert resting(balancer) == [False, False]


@pytest.mark.slow
@every_client
def test_a_pause_that_nobody_confirms_rests_nobody(client: Client, upstreams: Start) -> None:
    """A POST is not sent again, and what is not reached or paid for says nothing of the request."""
    servers = [server.address for server in upstreams(2)]
    spent = RetryBudget(ratio=0.0, floor=0.0)
    url = asked_to_pause(503, "60")
    for nodes, ask, options in (
        (servers, Ask(url, "POST"), {}),
        (servers, Ask(url), {"max_attempts": 1}),
        (servers, Ask(url), {"budget": spent}),
        ([f"127.0.0.1:{free_port()}", servers[0]], Ask(url), {}),
    ):
        balancer = Balancer(nodes, RoundRobin())
        (answer,) = client.send(balancer, ask, **options)
        assert answer.status == 503
        assert resting(balancer) == [False, False]
        assert sum(failures(balancer)) == 1


@pytest.mark.slow
@every_client
def test_the_ceiling_is_checked(client: Client) -> None:
    """It is a number of seconds above zero."""
    balancer = Balancer(["127.0.0.1:1"])
    for pause in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="max_cooldown is"):
            client.send(balancer, max_cooldown=pause)
    with pytest.raises(TypeError, match="max_cooldown is '5'"):
        client.send(balancer, max_cooldown="5")


@pytest.mark.parametrize(
    "make",
    [
        httpx.LoadwiseTransport,
        httpx2.AsyncLoadwiseTransport,
        aiohttp.LoadwiseMiddleware,
        requests.LoadwiseAdapter,
    ],
)
def test_the_old_name_of_max_cooldown_warns(make: Callable[..., Any]) -> None:
    """`max_pause` does the same, and the warning points to the line that has it."""
    with pytest.warns(DeprecationWarning, match="max_pause is now max_cooldown") as told:
        made = make(Balancer(["127.0.0.1:1"]), max_pause=5.0)
    assert [each.filename for each in told] == [__file__]
    assert made._settings.max_cooldown == 5.0


@given(st.text(max_size=12) | st.sampled_from(UNSAID) | st.integers().map(str))
def test_only_digits_and_dates_are_read(value: str) -> None:
    """Whatever else a server writes there is unsaid, and nothing raises."""
    seconds = parse_retry_after(value)
    assert seconds is None or 0 < seconds <= 120
    stripped = value.strip(" \t")
    if stripped.isascii() and stripped.isdigit() and int(stripped):
        assert seconds == min(float(stripped), 120.0)
    elif ":" not in value:
        assert seconds is None
