"""Strict quotas whose keys hold garbage, or nothing any more."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from tests.integrations.redis.limits import rpm
from tests.real.redis.strict_quota.support import Share, is_refused
from tests.real.redis.support import PATIENCE, hasten, until

from loadwise.integrations.redis import SharedEvent, SharedQuota


def test_keys_expire(share: Share, client: redis.Redis, prefix: str) -> None:
    """When nothing in it counts any more, the key goes: nothing is left behind."""
    quota = share(rpm(10, window=60.0))
    began = time.monotonic()
    assert quota.try_acquire("node")
    left = client.pttl(f"{prefix}:quota:node")
    assert 60_000 - 1000 * (time.monotonic() - began) <= left <= 71_500  # and a bucket's width
    quota.register("brief", rpm(10, window=0.2))
    assert quota.try_acquire("brief")
    until(lambda: not client.exists(f"{prefix}:quota:brief"))
    assert quota.remaining("brief", "rpm") == 10
    assert quota.try_acquire("brief")
    assert quota.events["resynchronised"] == 0


@pytest.mark.parametrize(
    "put",
    [
        lambda client, key: client.set(key, "somebody else's"),
        lambda client, key: client.rpush(key, "a", "b"),
        lambda client, key: client.hset(key, "v", "3"),
        lambda client, key: client.hset(key, mapping={"v": "1", "e": "ab", "d:rpm": ""}),
        lambda client, key: client.hset(key, "field", "somebody else's"),
        lambda client, key: client.hset(key, "v", "1" * 100_000),
    ],
    ids=["string", "list", "schema of the future", "schema before", "other hash", "huge schema"],
)
@pytest.mark.parametrize("on_outage", ["local", "refuse"])
def test_a_key_that_is_not_loadwises_is_left_alone(
    share: Share,
    client: redis.Redis,
    prefix: str,
    put: Callable[[redis.Redis, str], object],
    on_outage: str,
) -> None:
    """It is reported once, the node goes by the policy for outages, and heals when it is gone."""
    key = f"{prefix}:quota:node"
    put(client, key)
    before = client.dump(key)
    heard: list[SharedEvent] = []
    quota = hasten(share(rpm(5), on_outage=on_outage, on_event=heard.append))
    granted = [quota.try_acquire("node") for _ in range(8)]
    assert sum(each is not None for each in granted) == (5 if on_outage == "local" else 0)
    assert quota.connected
    assert client.dump(key) == before
    until(lambda: heard)  # it may be the background that tells
    assert [(event.source, event.kind) for event in heard] == [("quota", "rejected")]
    client.delete(key)
    if on_outage == "local":  # what was used meanwhile is told afterwards
        until(lambda: client.hget(key, "d:rpm"))
        assert quota.try_acquire("node") is None
    else:
        assert quota.try_acquire("node")
        assert quota.is_available("node")


@pytest.mark.parametrize(
    ("field", "value", "used"),
    [
        ("d:rpm", b"garbage", 0),
        ("d:rpm", b"\xff\x00", 0),
        ("d:rpm", b"[" * 10_000, 0),
        ("d:rpm", b"null", 0),
        ("d:rpm", b'{"end":"-5"}', 0),
        ("d:rpm", b'{"end":"nan"}', 0),
        ("d:rpm", b'{"end":"inf"}', 0),
        ("d:rpm", b'{"end":"1e300"}', 0),
        ("d:rpm", b'{"end":{}}', 0),
        ("d:rpm", b'{"9e15":"1"}', 0),
        ("d:rpm", b'{"' + b"9" * 30 + b'":"1"}', 0),
        ("d:rpm", b'{"end":"3","garbage":"1","17end":"2"}', 3),
        ("d:rpm", b" " * 200_000, 0),
        ("rest", b"garbage", 0),
        ("rest", b"9" * 16, 0),
        ("rest", b"9" * 100_000, 0),
        ("rest", b"nan", 0),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_garbage_in_a_quota_is_dropped(
    share: Share, client: redis.Redis, prefix: str, field: str, value: bytes, used: int
) -> None:
    """Numbers that make no sense are dropped and reported; what does make sense counts."""
    key = f"{prefix}:quota:node"
    value = value.replace(b"end", b"%d" % microseconds())
    fields: dict[Any, Any] = {"v": "2", "rest": "0", "d:rpm": "{}"}
    client.hset(key, mapping=fields | {field: value})
    heard: list[SharedEvent] = []
    quota = share(rpm(10, window=1000.0), on_event=heard.append)
    until(lambda: heard)
    assert {event.kind for event in heard} == {"rejected"}
    assert quota.remaining("node", "rpm") == 10 - used
    assert quota.try_acquire("node", {"rpm": 10 - used})
    assert quota.try_acquire("node") is None
    assert len(heard) == 1


@pytest.mark.parametrize("cursor", [b"garbage", b"0x1f", b"9" * 30, b"-1", b"", b"7"])
def test_a_garbled_cursor_does_no_harm(
    share: Share, client: redis.Redis, prefix: str, cursor: bytes
) -> None:
    """Where the search for accounts of the past left off may be anything."""
    client.hset(f"{prefix}:quota:node", mapping={"v": "2", "scan": cursor})
    quota = share(rpm(10))
    assert quota.try_acquire("node", {"rpm": 3})
    assert quota.connected
    assert quota.remaining("node", "rpm") == 7


def test_accounts_of_the_past_are_cleared_away(
    share: Share, client: redis.Redis, prefix: str
) -> None:
    """Whoever comes makes room: what 200 processes left behind does not stay for ever."""
    key = f"{prefix}:quota:node"
    gone: dict[Any, Any] = {
        f"a:{i:016x}": json.dumps({"gone": str(microseconds() - 1)}, separators=(",", ":"))
        for i in range(200)
    }
    client.hset(key, mapping={"v": "2"} | gone)
    quota = share(rpm(1000))
    assert quota.try_acquire("node", {"rpm": 100})

    def few_are_left() -> bool:
        share(rpm(1000)).record_usage("node", {"rpm": 1})
        return client.hlen(key) < 100

    until(few_are_left)
    until(lambda: is_refused(quota, {"rpm": 2000}) and quota.remaining("node", "rpm") < 900)


@pytest.mark.parametrize(
    "garbage",
    [
        b"garbage",
        b"null",
        b"5",
        b'{"seq":"many","open":5,"news":{},"used":"all","granted":7}',
        b'{"seq":1e300,"open":[[]],"news":-1,"used":{"rpm":[1,2]},"granted":{"5":{"rpm":3}}}',
        b'{"used":{"rpm":{"x":"y"}},"granted":{"x":"y"}}',
        b"x" * 200_000,
    ],
    ids=lambda value: repr(value)[:30],
)
def test_garbage_in_an_account_is_dropped(
    share: Share, client: redis.Redis, prefix: str, garbage: bytes
) -> None:
    """Whatever stands in the place of what a process stated, it works on and states it again."""
    key = f"{prefix}:quota:node"
    quota = share(rpm(10, window=1000.0))
    assert quota.try_acquire("node", {"rpm": 3})
    fields: list[Any] = client.hkeys(key)
    (account,) = (name for name in fields if name.startswith(b"a:"))
    client.hset(key, account, garbage)
    assert quota.try_acquire("node", {"rpm": 1})
    assert quota.connected
    assert client.hget(key, account) != garbage
    until(lambda: quota.events["rejected"])
    assert quota.try_acquire("node", {"rpm": 10}) is None
    # What others see is never too little: at worst it is counted twice, for a window.
    with SharedQuota(client, prefix, timeout=PATIENCE) as other:
        other.register("node", rpm(10, window=1000.0))
        assert other.remaining("node", "rpm") <= 6


def microseconds() -> int:
    """Return what the server's clock shows."""
    return int(time.time() * 1_000_000)


def test_times_from_the_future_do_not_block_for_ever(
    share: Share, client: redis.Redis, prefix: str
) -> None:
    """When the server's clock was set back, use counts for two windows and 5 s at most."""
    far = microseconds() + 3600 * 1_000_000
    for node_id in ("node", "brief"):
        key = f"{prefix}:quota:{node_id}"
        client.hset(key, mapping={"v": "2", "rest": "0", "d:rpm": f'{{"{far}":"10"}}'})
    begin = time.monotonic()
    quota = share(rpm(10, window=300.0))
    assert quota.try_acquire("node") is None
    assert begin < quota.available_at("node") <= time.monotonic() + 606.0
    quota.register("brief", rpm(10, window=0.3))
    until(lambda: quota.try_acquire("brief"))
