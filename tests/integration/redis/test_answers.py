"""Whatever a server answers, it is either understood or rejected."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadwise import HealthStatus, NodeHealth
from loadwise.integrations.redis._health_protocol import (
    encode_note,
    parse_look,
    parse_message,
    parse_note,
    parse_put,
)
from loadwise.integrations.redis._parsing import Rejected, number, text
from loadwise.integrations.redis._quota_wire import parse_reply

NUMBERS = st.sampled_from(
    [b"0", b"1", b"-1", b"1.5", b"nan", b"1e999", b"9" * 40, b"1795448875807270"]
)
WORDS = st.sampled_from([b"ok", b"full", b"lost", b"foreign", b"old", b"", b"ab", b"\xff"])
BUCKETS = st.lists(st.lists(NUMBERS, max_size=5).map(b",".join), max_size=3).map(b";".join)
NOTES = st.builds(
    lambda at, body: at + b" " + body,
    NUMBERS,
    st.one_of(
        st.binary(max_size=20),
        st.just(encode_note(NodeHealth("a", HealthStatus.DEGRADED, 1, 0, 2.0, 1.0, "x"), 3.0)),
    ),
)
ANSWERS = st.recursive(
    st.one_of(
        st.none(),
        st.integers(),
        st.floats(),
        st.binary(max_size=30),
        st.text(),
        NUMBERS,
        WORDS,
        BUCKETS,
        NOTES,
    ),
    lambda children: st.lists(children, max_size=12),
    max_leaves=20,
)
LIKELY = st.lists(st.one_of(WORDS, NUMBERS, BUCKETS, NOTES), min_size=1, max_size=12)


@pytest.mark.parametrize(
    "parse",
    [
        lambda raw: parse_reply(raw, ["rpm", "tpm"], 5.0),
        lambda raw: parse_put(raw, 5.0),
        parse_look,
        lambda raw: parse_message(raw, None, 5.0),
        lambda raw: parse_message(raw, 7, 5.0),
        lambda raw: parse_note(raw, 7, 5.0),
    ],
    ids=["quota", "put", "look", "message", "message by own clock", "note"],
)
@given(raw=st.one_of(ANSWERS, LIKELY, NOTES))
def test_nothing_but_a_rejection_is_raised(parse: Callable[[Any], object], raw: object) -> None:
    """Any answer at all, likely and unlikely, gives a result or is `Rejected`."""
    with suppress(Rejected):
        parse(raw)


def test_a_proper_answer_is_understood() -> None:
    """Times are told by the local clock, the amounts are those of the server."""
    raw = [b"ok", b"ab", b"2000000", b"3500000", b"1"]
    raw += [b"1.5", b"7", b"7,2100000,1900000,2.5;6,1,1000000,4"]
    raw += [b"0", b"", b""]
    reply = parse_reply(raw, ["rpm", "tpm"], 10.0)
    assert (reply.status, reply.epoch, reply.dropped) == ("ok", "ab", 1)
    assert reply.rest == 11.5
    assert reply.granted == {"rpm": (1.5, 7)}
    assert [(bucket.last, bucket.amount) for bucket in reply.buckets["rpm"]] == [
        (9.9, 2.5),
        (9.0, 4),
    ]
    assert not reply.buckets["tpm"]


@given(
    failures=st.integers(0, 2**53),
    ago=st.none() | st.floats(0, 1e6),
    status=st.sampled_from(list(HealthStatus)),
    reason=st.none() | st.text(st.characters(), max_size=400),
)
def test_health_comes_across(
    failures: int, ago: float | None, status: HealthStatus, reason: str | None
) -> None:
    """What is written of a node's health is read the same, with its times, 2 s later elsewhere."""
    when = 1e7
    moment = None if ago is None else when - ago
    health = NodeHealth("ä b", status, failures, 3, moment, moment, reason)
    note = b"5000000 " + encode_note(health, when)
    found = parse_note(note, 7_000_000, 50.0)
    assert (found.at, found.when) == (5_000_000, 48.0)
    assert found.health.id == "ä b"
    assert found.health.status is status
    assert found.health.consecutive_failures == failures
    if reason is None:
        assert found.health.reason is None
    else:
        assert found.health.reason == reason[:300].encode(errors="replace").decode()
    if ago is None:
        assert found.health.last_failure is found.health.down_since is None
    else:
        assert found.health.last_failure == pytest.approx(48.0 - ago, abs=1e-6)


@pytest.mark.parametrize("wrong", [b"nan", b"inf", b"-1", b"1e17", b"", b"0x1", None, 5, [b"1"]])
def test_numbers_are_from_zero_to_what_is_exact(wrong: object) -> None:
    """Anything but the text of a number from 0 to 2**53 is rejected."""
    with pytest.raises(Rejected):
        number(wrong)
    assert number(b"9007199254740992") == 2**53
    assert number("1.5") == 1.5
    assert math.isclose(number(b"1e3"), 1000)


def test_texts_have_a_length() -> None:
    """A text that is longer than expected is rejected, in bytes and as str."""
    assert text(b"abc", 3) == text("abc", 3) == "abc"
    for wrong in (b"abcd", "abcd", "\u00e4\u00e4", "\ud800", b"\xff", None, 5):
        with pytest.raises(Rejected):
            text(wrong, 3)
