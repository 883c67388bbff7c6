"""Whatever a server answers, it is either understood or rejected."""

from __future__ import annotations

import json
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
from loadwise.integrations.redis._quota_protocol import parse_reply

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
REPLIES = st.dictionaries(
    st.sampled_from(["status", "detail", "now", "rest", "dropped", "known", "dims"]),
    st.recursive(
        st.sampled_from(
            [
                "ok",
                "full",
                "foreign",
                "7",
                "1e300",
                -1,
                2.5,
                None,
                True,
                10**400,
                math.inf,
                math.nan,
            ]
        ),
        lambda children: (
            st.lists(children, max_size=3)
            | st.dictionaries(
                st.sampled_from(["granted", "others", "7", "x"]), children, max_size=3
            )
        ),
        max_leaves=8,
    ),
).map(lambda changes: reply(**changes))
LIKELY = st.lists(st.one_of(WORDS, NUMBERS, BUCKETS, NOTES), min_size=1, max_size=12)


@pytest.mark.parametrize(
    "parse",
    [
        lambda raw: parse_reply(raw, ASKED),
        lambda raw: parse_put(raw, 5.0),
        parse_look,
        lambda raw: parse_message(raw, None, 5.0),
        lambda raw: parse_message(raw, 7, 5.0),
        lambda raw: parse_note(raw, 7, 5.0),
    ],
    ids=["quota", "put", "look", "message", "message by own clock", "note"],
)
@given(raw=st.one_of(ANSWERS, LIKELY, NOTES, REPLIES))
def test_nothing_but_a_rejection_is_raised(parse: Callable[[Any], object], raw: object) -> None:
    """Any answer at all, likely and unlikely, gives a result or is `Rejected`."""
    with suppress(Rejected):
        parse(raw)


def reply(**changes: Any) -> bytes:
    """Return a reply about two dimensions, with some changes."""
    dims = [
        {"granted": {"7": "1.5"}, "others": {"7": "2.5", "6": "4"}},
        {"granted": {}, "others": {}},
    ]
    said = {"status": "ok", "now": "2000000", "rest": "3500000", "dropped": 1, "known": True}
    return json.dumps(said | {"dims": dims} | changes).encode()


ASKED: dict[str, float] = {"rpm": 1.5, "tpm": 0}


def test_a_proper_answer_is_understood() -> None:
    """Times are those of the server, amounts are numbers by bucket."""
    found = parse_reply(reply(), ASKED)
    assert (found.status, found.now, found.rest, found.dropped) == ("ok", 2_000_000, 3_500_000, 1)
    assert found.known
    assert found.granted == {"rpm": {7: 1.5}, "tpm": {}}
    assert found.others == {"rpm": {7: 2.5, 6: 4}, "tpm": {}}


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "fine"},
        {"status": 5},
        {"now": "-1"},
        {"now": "1e3"},
        {"rest": str(2**54)},
        {"rest": None},
        {"dropped": -1},
        {"now": math.inf},
        {"rest": -math.inf},
        {"dropped": math.nan},
        {"dims": [{"granted": {"7": 10**400}, "others": {}}, {"granted": {}, "others": {}}]},
        {"dims": []},
        {"dims": None},
        {"dims": [5, 6]},
        {"dims": [{"granted": {"7": "1.5"}, "others": []}, {"granted": {}, "others": {}}]},
        {"dims": [{"granted": {"7": "2"}, "others": {}}, {"granted": {}, "others": {}}]},
        {"dims": [{"granted": {"-7": "1"}, "others": {}}, {"granted": {}, "others": {}}]},
        {"dims": [{"granted": {}, "others": {"7": "nan"}}, {"granted": {}, "others": {}}]},
        {"dims": [{"granted": {}, "others": {"7": "1e99"}}, {"granted": {}, "others": {}}]},
        {"dims": [{"granted": {}, "others": {"x": "1"}}, {"granted": {}, "others": {}}]},
    ],
    ids=str,
)
def test_a_reply_that_makes_no_sense_is_rejected(changes: dict[str, Any]) -> None:
    """Whatever is of another kind or out of range, and more than was asked for."""
    with pytest.raises(Rejected):
        parse_reply(reply(**changes), ASKED)


def test_no_pause_is_longer_than_a_month() -> None:
    """What the server says of a cooldown is bounded, so that no error of its lasts for ever."""
    found = parse_reply(reply(rest=str(2**53)), ASKED)
    assert found.rest == found.now + 30 * 24 * 3600 * 1_000_000


def test_another_schema_is_named_and_so_is_the_remedy() -> None:
    """Who finds what an older loadwise has counted learns of both schemas, and what to do."""
    older = parse_reply(b'{"status":"foreign","detail":"schema 1"}', ASKED)
    assert "schema 1" in older.detail
    assert "schema 2" in older.detail
    assert "Upgrade every process" in older.detail
    assert "prefix of their own" in older.detail
    newer = parse_reply(b'{"status":"foreign","detail":"schema 3"}', ASKED)
    assert newer.detail == "schema 3, not a hash of schema 2"


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


def test_what_is_dated_ahead_happened_just_now() -> None:
    """No time of a note lies in the future, by either clock."""
    note = encode_note(NodeHealth("a", HealthStatus.UNHEALTHY, last_failure=3.0), 3.0)
    found = parse_note(b"9000000 " + note, 7_000_000, 50.0)
    assert (found.at, found.when, found.health.last_failure) == (7_000_000, 50.0, 50.0)


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
