"""Cooldowns of a key: the providers' headers, in all their formats, and the ceilings."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadwise import Balancer, RoundRobin
from loadwise.integrations._llm.cooldowns import asked_wait, reset_wait, seconds_until
from loadwise.integrations.httpx2 import LoadwiseTransport
from loadwise.integrations.llm import classify_llm
from loadwise.testing import ManualClock

OPENAI = "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"
ANTHROPIC = "anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"


def rest_of(status: int, headers: dict[str, str], **options: Any) -> float | None:
    """Return the seconds of the cooldown of a node that answers so."""
    clock = ManualClock()
    balancer = Balancer(["http://a", "http://b"], RoundRobin(), clock=clock)

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status if request.url.host == "a" else 200, headers=headers)

    transport = LoadwiseTransport(
        balancer, httpx2.MockTransport(answer), classify=classify_llm, **options
    )
    with httpx2.Client(transport=transport) as client:
        assert client.get("http://llm/").status_code == 200
    cooldown = balancer.status()[0].cooldown
    return None if cooldown is None else cooldown.until - clock()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "30000"}, 30.0),
        ({"retry-after-ms": "250", "Retry-After": "1"}, 0.25),
        ({"retry-after-ms": "soon", "Retry-After": "7"}, 7.0),
        ({"retry-after-ms": "0", "Retry-After": "7"}, 7.0),
        ({"retry-after-ms": "-5"}, 1.0),
        ({"Retry-After": "2.5"}, 2.5),
        ({"Retry-After": "inf"}, 1.0),
        ({"Retry-After": "1_000"}, 1.0),
        ({"Retry-After": "nan"}, 1.0),
        ({"Retry-After": "86400"}, 120.0),
        ({"Retry-After": "9" * 400}, 120.0),
        ({"Retry-After": "3", OPENAI[0]: "0", OPENAI[1]: "6m0s"}, 3.0),
        ({OPENAI[0]: "0", OPENAI[1]: "6m0s", "x-ratelimit-reset-requests": "120ms"}, 360.0),
        ({OPENAI[0]: "1", OPENAI[1]: "6m0s"}, 1.0),
        ({OPENAI[0]: "0", OPENAI[1]: "23h59m59s"}, 3_600.0),
        ({OPENAI[0]: "0", OPENAI[1]: "120ms"}, 0.12),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "12"}, 12.0),
        ({}, 1.0),
    ],
)
def test_a_limited_key_sits_out(headers: dict[str, str], seconds: float) -> None:
    """As long as it says; a second, if it says nothing to be believed."""
    assert rest_of(429, headers) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "headers",
    [
        {"retry-after-ms": "30000"},
        {"Retry-After": "86400"},
        {OPENAI[0]: "0", OPENAI[1]: "6m0s"},
        {OPENAI[0]: "0", OPENAI[1]: "23h"},
    ],
)
def test_the_ceiling_of_the_transport_holds(headers: dict[str, str]) -> None:
    """Whatever the header, and for failures, too."""
    assert rest_of(429, headers, max_cooldown=5.0) == pytest.approx(5.0)
    assert rest_of(429, headers, max_cooldown=100_000.0) in (30.0, 86_400.0, 360.0, 82_800.0)


def test_failures_that_say_when_to_come_back() -> None:
    """They are failures, and the node is on cooldown besides; what remains is of no account."""
    assert rest_of(529, {"retry-after-ms": "30000"}) == pytest.approx(30.0)
    assert rest_of(500, {"Retry-After": "86400"}) == pytest.approx(120.0)
    assert rest_of(503, {OPENAI[0]: "0", OPENAI[1]: "6m0s"}) is None


def test_moments() -> None:
    """RFC 3339, HTTP dates, and the time since 1970."""
    then = datetime.now(UTC) + timedelta(seconds=90)
    for value in (
        then.isoformat(),
        then.strftime("%Y-%m-%dT%H:%M:%SZ"),
        then.astimezone().isoformat(),
        f"{time.time() + 90:.0f}",
        f"{time.time() * 1000 + 90_000:.0f}",
    ):
        found = reset_wait({ANTHROPIC[0]: "0", ANTHROPIC[1]: value})
        assert found is not None
        assert 60 < found <= 91
    found = asked_wait({"retry-after": format_datetime(then, usegmt=True)})
    assert found is not None
    assert 60 < found <= 91
    assert seconds_until("1999-12-31T23:59:59Z") is None


def test_the_last_of_what_is_used_up_counts() -> None:
    """A key is of no use before all of its limits have room."""
    headers = {
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "10s",
        "anthropic-ratelimit-input-tokens-remaining": "0",
        "anthropic-ratelimit-input-tokens-reset": "20s",
        "anthropic-ratelimit-output-tokens-remaining": "7",
        "anthropic-ratelimit-output-tokens-reset": "30s",
    }
    assert reset_wait(headers) == pytest.approx(20.0)
    assert reset_wait({"X-RateLimit-Remaining": "0"}) is None


@given(
    st.integers(0, 30),
    st.integers(0, 99),
    st.integers(0, 59),
    st.integers(0, 59),
    st.integers(1, 999),
)
def test_durations_as_go_writes_them(d: int, h: int, m: int, s: int, ms: int) -> None:
    """All units, those that are nothing left out or not."""
    seconds = d * 86_400 + h * 3_600 + m * 60 + s + ms / 1_000
    assert seconds_until(f"{d}d{h}h{m}m{s}s{ms}ms") == pytest.approx(seconds)
    parts = [(d, "d"), (h, "h"), (m, "m"), (s + ms / 1_000, "s")]
    short = "".join(f"{value}{unit}" for value, unit in parts if value)
    assert seconds_until(short) == pytest.approx(seconds)


@given(st.text(), st.text())
def test_whatever_a_header_says_is_borne(wait: str, reset: str) -> None:
    """No error, and nothing that is no time."""
    headers = {"retry-after-ms": wait, "retry-after": reset, OPENAI[0]: "0", OPENAI[1]: reset}
    for found in (asked_wait(headers), reset_wait(headers), seconds_until(wait)):
        assert found is None or 0 < found <= 1e9
