"""Shared health with a server that holds garbage, is away, or forgets."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
import redis
from tests.real.redis.health.support import HEALTHY, UNHEALTHY, Share, sees
from tests.real.redis.support import Valkey, until

from loadwise.integrations.redis import SharedEvent

pytestmark = pytest.mark.slow

GOOD = {
    "v": 1,
    "id": "bad",
    "status": "UNHEALTHY",
    "failures": 1,
    "successes": 0,
    "failed": 0,
    "down": 0,
    "reason": None,
}

GARBAGE = [
    b"garbage",
    b"",
    b"\xff\xfe",
    b"[]",
    b"[" * 4000,
    *(
        json.dumps(GOOD | wrong).encode()
        for wrong in (
            {"v": 2},
            {"v": True},
            {"id": 5},
            {"id": "x" * 2000},
            {"status": "SICK"},
            {"status": 4},
            {"failures": -1},
            {"failures": 1e300},
            {"failures": True},
            {"failed": -1},
            {"failed": "now"},
            {"failed": 1e300},
            {"down": [0]},
            {"reason": 5},
            {"reason": "x" * 5000},
        )
    ),
]


def test_garbage_is_rejected(share: Share, client: redis.Redis, prefix: str) -> None:
    """Whatever is put into the HASH or sent to the channel, what makes no sense changes nothing."""
    client.hset(f"{prefix}:health", mapping={"v": "1", "changed": "x" * 1000})
    now = int(client.time()[0]) * 1_000_000
    for i, note in enumerate(GARBAGE):
        client.hset(f"{prefix}:health", f"n:{i}", f"{now} ".encode() + note)
    for i, entry in enumerate((b"", b"\xff", b"x" * 10_000, f"{now * 1000} {{}}".encode())):
        client.hset(f"{prefix}:health", f"n:odd-{i}", entry)
    heard: list[SharedEvent] = []
    tracker = share(on_event=heard.append)
    until(lambda: len(heard) >= len(GARBAGE) + 1)
    other = share()
    until(lambda: client.pubsub_numsub(f"{prefix}:health")[0][1] == 2)
    for note in GARBAGE:
        client.publish(f"{prefix}:health", f"{now} {now} ".encode() + note)
    client.publish(f"{prefix}:health", b"\xff")
    until(lambda: len(heard) >= 2 * len(GARBAGE) + 2)
    assert {event.kind for event in heard} == {"rejected"}
    assert tracker.snapshot() == {}
    other.report_failure("good")
    sees(tracker, "good", UNHEALTHY)
    assert tracker.snapshot().keys() == {"good"}


@pytest.mark.parametrize(
    "put",
    [
        lambda client, key: client.set(key, "somebody else's"),
        lambda client, key: client.hset(key, "v", "2"),
        lambda client, key: client.hset(key, mapping={f"f{i}": "" for i in range(10_001)}),
    ],
    ids=["string", "schema of the future", "other hash"],
)
def test_a_key_that_is_not_loadwises_is_left_alone(
    share: Share, client: redis.Redis, prefix: str, put: Callable[[redis.Redis, str], object]
) -> None:
    """It is reported, each process goes by what it sees, and all heals when it is gone."""
    key = f"{prefix}:health"
    put(client, key)
    heard: list[SharedEvent] = []
    one, other = share(on_event=heard.append), share(poll=0.1)
    until(lambda: heard)
    one.report_failure("a")
    assert one.status("a") is UNHEALTHY
    assert {event.kind for event in heard} == {"rejected"}
    client.delete(key)
    sees(other, "a", UNHEALTHY)


def test_an_outage(
    fragile: Valkey, prefix: str, share: Share, caplog: pytest.LogCaptureFixture
) -> None:
    """Reports go on while the server is down; afterwards all know the latest, newcomers too."""
    one, other = share(fragile.client()), share(fragile.client())
    one.report_failure("before")
    sees(other, "before", UNHEALTHY)
    with caplog.at_level(logging.WARNING, "loadwise"):
        fragile.kill()
        until(lambda: not one.connected and not other.connected)
        one.report_failure("during")
        other.report_success("before")
        assert one.status("during") is UNHEALTHY
        fragile.start()
        until(lambda: one.connected and other.connected)
    assert len(caplog.records) == 2  # one warning by each
    for tracker in (one, other, share(fragile.client())):
        sees(tracker, "during", UNHEALTHY)
        sees(tracker, "before", HEALTHY)
    one.report_failure("after")
    sees(other, "after", UNHEALTHY)


def test_a_flush_is_noticed_and_made_good(fragile: Valkey, prefix: str, share: Share) -> None:
    """After FLUSHALL what is known is told anew, so that newcomers learn it.

    It is noticed at the next look, although nobody has looked at the server since it was told.
    """
    one = share(fragile.client())
    one.report_failure("a")
    with fragile.client() as client:
        until(lambda: client.exists(f"{prefix}:health"))
        client.flushall()
    until(lambda: one.events["resynchronised"] == 1)
    sees(share(fragile.client()), "a", UNHEALTHY)


def test_a_flush_is_noticed_whatever_is_told_right_after(
    fragile: Valkey, prefix: str, share: Share
) -> None:
    """News that comes between a flush and the next look does not hide what was lost."""
    one, other = share(fragile.client()), share(fragile.client())
    one.report_failure("a")
    sees(other, "a", UNHEALTHY)
    with fragile.client() as client:
        client.flushall()
        other.report_failure("b")
        until(lambda: {b"n:a", b"n:b"} <= set(client.hkeys(f"{prefix}:health")))
        until(lambda: one.events["resynchronised"] == 1)


@pytest.mark.parametrize("garbled", [b"", b"\xff", b"-1", b"9" * 100])
def test_a_garbled_epoch_is_made_good(
    fragile: Valkey, prefix: str, share: Share, garbled: bytes
) -> None:
    """What does not tell the one epoch from another gives way at the next news; all go on."""
    one, other = share(fragile.client(), poll=0.05), share(fragile.client(), poll=0.05)
    one.report_failure("a")
    sees(other, "a", UNHEALTHY)
    with fragile.client() as client:
        client.hset(f"{prefix}:health", "e", garbled)
        other.report_failure("b")
        sees(one, "b", UNHEALTHY)
        until(lambda: client.hget(f"{prefix}:health", "e").isdigit())
    assert one.events["rejected"] == other.events["rejected"] == 0


def test_states_expire(share: Share, client: redis.Redis, prefix: str) -> None:
    """What others found out and nobody here has met with is forgotten, here and on the server."""
    one, other = share(poll=0.05, ttl=2.5), share(poll=0.05, ttl=2.5)
    heard: list[tuple[Any, ...]] = []
    other.subscribe(lambda *change: heard.append(change))
    one.report_failure("a")
    until(lambda: len(heard) >= 2)
    assert heard == [("a", HEALTHY, UNHEALTHY), ("a", UNHEALTHY, HEALTHY)]
    assert other.status("a") is HEALTHY
    assert one.status("a") is UNHEALTHY  # it has seen it fail itself
    until(lambda: not client.exists(f"{prefix}:health"))
    until(lambda: not any(known.at for _, known in one._known))
