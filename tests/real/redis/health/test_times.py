"""Shared health with late and wrong times: the later change holds, and nothing lasts for ever."""

from __future__ import annotations

import time
from functools import partial
from threading import Event, current_thread
from typing import Any, ClassVar, cast

import pytest
import redis
from tests.real.redis.health.support import HEALTHY, UNHEALTHY, Share, has_passed, sees
from tests.real.redis.support import Valkey, until

from loadwise import HealthStatus, NodeHealth
from loadwise.integrations.redis import SharedEvent
from loadwise.integrations.redis._connection import HEALTH_PUT, run
from loadwise.integrations.redis._health_protocol import (
    MOST_NODES,
    Note,
    Put,
    encode_note,
    parse_put,
)

pytestmark = pytest.mark.slow


def test_the_later_change_holds(share: Share, client: redis.Redis, prefix: str) -> None:
    """News that is older than what is known changes nothing, whenever it arrives."""
    one, other = share(), share()
    one.report_failure("a")
    sees(other, "a", UNHEALTHY)
    now = int(client.time()[0]) * 1_000_000
    old = encode_note(NodeHealth("a"), 0.0)
    fresh = encode_note(NodeHealth("b", UNHEALTHY, reason="seen"), 0.0)

    def is_heard() -> bool:
        for at, note in ((now - 5_000_000, old), (now - 1_000_000, fresh)):
            client.publish(f"{prefix}:health", f"{now} {at} ".encode() + note)
        return one.status("b") is other.status("b") is UNHEALTHY

    until(is_heard)  # by both, who may not have begun to listen at first
    for tracker in (one, other):
        assert tracker.status("a") is UNHEALTHY


@pytest.mark.parametrize("claimed", ["now", "an hour ahead"])
def test_a_message_dated_ahead_silences_nothing(
    share: Share, client: redis.Redis, prefix: str, claimed: str
) -> None:
    """It is rejected, whatever it says that the time is, and what happens later is news."""
    heard: list[SharedEvent] = []
    one, other = share(), share(on_event=heard.append)
    one.report_failure("a")
    sees(other, "a", UNHEALTHY)
    now = int(client.time()[0]) * 1_000_000
    ahead = now + 3600 * 1_000_000
    forged = encode_note(NodeHealth("a"), 0.0)
    message = f"{ahead if claimed != 'now' else now} {ahead} ".encode() + forged

    def is_heard() -> bool:
        client.publish(f"{prefix}:health", message)  # again, should nobody have subscribed yet
        return bool(heard)

    until(is_heard)
    assert "dated 3" in heard[0].detail
    assert heard[0].detail.endswith(" s ahead")
    assert other.status("a") is UNHEALTHY
    one.report_success("a")
    sees(other, "a", HEALTHY)


def test_an_entry_dated_ahead_gives_way(share: Share, client: redis.Redis, prefix: str) -> None:
    """What the HASH says happens in half a minute has happened just now: what comes later holds."""
    one, other = share(poll=0.05), share(poll=0.05)
    other.report_success("b")
    until(lambda: client.pubsub_numsub(f"{prefix}:health")[0][1] == 2)
    now = int(client.time()[0]) * 1_000_000
    note = encode_note(NodeHealth("a", UNHEALTHY, reason="forged"), 0.0)
    entry = f"{now + 30 * 1_000_000} ".encode() + note
    client.hset(f"{prefix}:health", mapping={"v": "1", "changed": "1", "n:a": entry})
    for tracker in (one, other):
        sees(tracker, "a", UNHEALTHY)
    one.report_success("a")
    sees(other, "a", HEALTHY)
    other.report_failure("a")
    sees(one, "a", UNHEALTHY)


def test_a_clock_set_back_makes_no_news_seem_old(share: Share) -> None:
    """Known times that lie ahead of what the server's clock says now count as now."""
    tracker = share()
    late, early = 7_200_000_000, 3_600_000_000

    def note(status: HealthStatus, at: int) -> Note:
        return Note(NodeHealth("a", status), at, tracker.clock())

    assert tracker._adopt(note(UNHEALTHY, late))
    assert not tracker._adopt(note(HEALTHY, early))
    tracker._expire(300.0, 0, early)
    assert not tracker._adopt(note(HEALTHY, early - 1))
    assert tracker._adopt(note(HEALTHY, early + 1))
    tracker.remove("a")


def test_strangers_make_room(share: Share) -> None:
    """Of nodes that only others have met a process keeps so many; the oldest news goes first."""
    tracker = share()
    heard: list[tuple[Any, ...]] = []
    tracker.report_failure("met")
    tracker.subscribe(lambda *change: heard.append(change))

    def adopt(name: str, at: int) -> bool:
        return tracker._adopt(Note(NodeHealth(name, UNHEALTHY), at, tracker.clock()))

    for i in range(MOST_NODES):
        assert adopt(f"stranger-{i}", 10 + i)
    assert adopt("stranger-0", MOST_NODES + 20) is False  # it is down already, as of later
    heard.clear()
    assert adopt("member", MOST_NODES + 30)
    assert heard == [("stranger-1", UNHEALTHY, HEALTHY), ("member", HEALTHY, UNHEALTHY)]
    assert len(tracker.down()) == MOST_NODES + 1
    assert tracker.status("stranger-0") is tracker.status("met") is UNHEALTHY


def test_a_full_hash_makes_room(share: Share, client: redis.Redis, prefix: str) -> None:
    """When it has as many nodes as may be, news displaces the oldest, and what is unreadable."""
    key = f"{prefix}:health"
    now = int(client.time()[0]) * 1_000_000
    old = {
        f"n:{i}": f"{now - 10_000_000 + i} ".encode() + encode_note(NodeHealth(f"{i}"), 0.0)
        for i in range(MOST_NODES - 10)
    }
    fields: dict[Any, Any] = {"v": "1"} | old | {f"n:odd-{i}": b"" for i in range(100)}
    client.hset(key, mapping=fields)
    one, other = share(poll=0.05), share(poll=0.05)
    one.report_failure("a")
    sees(other, "a", UNHEALTHY)
    left = set(client.hkeys(key))
    newest = f"n:{MOST_NODES - 11}".encode()
    assert {b"n:a", newest} < left
    assert not {b"n:0", b"n:odd-0"} & left
    assert len(left) <= MOST_NODES * 3 // 4 + 4


def test_news_that_had_to_wait_is_as_old_as_it_is(
    fragile: Valkey, prefix: str, share: Share
) -> None:
    """While the server hangs, A finds a node well and later B finds it down again: it is down.

    Who gets through first afterwards makes no difference, in 4 rounds. The two lie 0.4 s apart,
    far more than clocks can differ that were set by answers within 0.05 s, on a busy machine too.
    """
    one, other = share(fragile.client(), timeout=0.05), share(fragile.client(), timeout=0.05)
    one.report_failure("a")
    sees(other, "a", UNHEALTHY)
    for first, second in ((one, other), (other, one)) * 2:
        fragile.freeze()
        first.report_success("a")
        assert first.status("a") is HEALTHY
        until(partial(has_passed, time.monotonic() + 0.4))
        second.report_success("a")
        second.report_failure("a")
        until(lambda: not one.connected and not other.connected)
        fragile.thaw()
        until(lambda: one.connected and other.connected)
        sees(first, "a", UNHEALTHY)
        assert second.status("a") is UNHEALTHY


class HeldUp(redis.Connection):
    """Once, when asked to, hands an answer to the thread that looks a second after it came."""

    wanted: ClassVar[Event]
    over: ClassVar[Event]

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Read, and dawdle if it is time for that."""
        answer = super().read_response(*args, **kwargs)
        if self.wanted.is_set() and current_thread().name.startswith("loadwise tells"):
            self.wanted.clear()
            self.over.wait(1.0)
            self.over.set()
        return answer


def test_a_process_that_was_held_up_still_knows_when_things_happened(
    valkey: Valkey, share: Share
) -> None:
    """What it finds out right after somebody else's news is the later of the two.

    It was suspended for a second while it looked at the server, and so that answer says little of
    how far their clocks are apart.
    """
    HeldUp.wanted, HeldUp.over = Event(), Event()
    pool = redis.ConnectionPool(connection_class=HeldUp, port=valkey.port)
    one, other = share(redis.Redis(connection_pool=pool), poll=60.0, timeout=0.5), share()
    one.report_failure("a")
    sees(other, "a", UNHEALTHY)
    sync = one._sync
    assert sync is not None
    HeldUp.wanted.set()
    sync._next_look = time.monotonic()
    sync.wake()
    until(HeldUp.over.is_set)
    one.report_failure("b")
    sees(other, "b", UNHEALTHY)  # so what came late has been taken in
    other.report_success("a")
    sees(one, "a", HEALTHY)
    one.report_failure("a")
    sees(other, "a", UNHEALTHY)
    assert one.status("a") is UNHEALTHY


def test_a_note_that_arrives_late_keeps_its_time(client: redis.Redis, prefix: str) -> None:
    """The server keeps the time a note tells, prefers what is later, and believes in no future."""
    key = f"{prefix}:health".encode()
    note = encode_note(NodeHealth("a", UNHEALTHY), 0.0)
    now = int(client.time()[0]) * 1_000_000

    def put(at: int) -> Put:
        arguments = ("PUBLISH", "a", note, at, 10**7, 10**4)
        return parse_put(run(cast("Any", client), HEALTH_PUT, key, *arguments), 0.0)

    first = put(now - 5_000_000)
    assert (first.at, first.later) == (now - 5_000_000, None)
    assert put(now - 3_000_000) == Put(now - 3_000_000, first.epoch)
    late = put(now - 4_000_000)
    assert late.at == 0
    assert late.later is not None
    assert late.later.at == now - 3_000_000
    assert now <= put(now * 2).at < now + 60_000_000


def test_reports_send_nothing_themselves(valkey: Valkey, share: Share) -> None:
    """The thread that reports, and the one that asks, never touches the network."""
    client, sent = valkey.counting_client()
    tracker = share(client)
    other = share()
    before = sent["MainThread"]
    for i in range(100):
        tracker.report_failure(f"node-{i}")
        tracker.down()
        tracker.next_change()
    assert sent["MainThread"] == before
    until(lambda: len(other.snapshot()) == 100)
    assert {node_id for node_id, _ in other.down()} == tracker.snapshot().keys()
