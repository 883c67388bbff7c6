"""Health that processes share through a real server."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from threading import Event, current_thread
from typing import Any, ClassVar, cast

import pytest
import redis
from tests.real.redis.support import DEADLINE, PATIENCE, Peer, Valkey, until

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    HealthStatus,
    HealthTracker,
    NodeHealth,
    NoNodeAvailable,
)
from loadwise.integrations.redis import SharedEvent, SharedHealth
from loadwise.integrations.redis._connection import HEALTH_PUT, run
from loadwise.integrations.redis._health_protocol import (
    MOST_NODES,
    Note,
    Put,
    encode_note,
    parse_put,
)

pytestmark = pytest.mark.slow

HEALTHY, UNHEALTHY = HealthStatus.HEALTHY, HealthStatus.UNHEALTHY
ABRUPT = ConsecutiveFailurePolicy(failure_threshold=1, recovery_successes=1)


@pytest.fixture
def share(client: redis.Redis, prefix: str) -> Iterator[Callable[..., SharedHealth]]:
    """Make trackers that share the test's prefix; close them in the end."""
    made: list[SharedHealth] = []

    def make(using: redis.Redis | None = None, **settings: Any) -> SharedHealth:
        settings = dict[str, Any](policy=ABRUPT, timeout=PATIENCE) | settings
        made.append(SharedHealth(using or client, prefix, **settings))
        made[-1].catch_up()  # as with the first request
        return made[-1]

    yield make
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(SharedHealth.close, made))


Share = Callable[..., SharedHealth]


def has_passed(moment: float) -> bool:
    """Whether it is later than that."""
    return time.monotonic() > moment


def sees(tracker: HealthTracker, node_id: str, status: HealthStatus) -> None:
    """Wait until a tracker has a node in this state."""
    until(lambda: tracker.status(node_id) is status)


def test_other_processes_see_a_change_within_a_second(
    valkey: Valkey, prefix: str, peer: Callable[..., Peer]
) -> None:
    """What process A finds out, process B sees within a second, and the other way round.

    The clock is that of the machine, the same for both. The machine may be busy, so it is tried
    with other nodes until it lets them.
    """
    one, other = peer(valkey, prefix), peer(valkey, prefix)
    assert one.ask("ready")
    assert other.ask("ready")
    numbers = count()

    def is_quick(teller: Peer, listener: Peer) -> bool:
        node_id = f"node-{next(numbers)}"
        failed: float = teller.ask("fail", node_id, 3)
        seen: float = listener.ask("see", node_id, "UNHEALTHY", DEADLINE)
        return seen - failed < 1

    until(partial(is_quick, one, other))
    until(partial(is_quick, other, one))


def test_a_balancer_avoids_what_another_process_found_down(share: Share) -> None:
    """A failure that one balancer met keeps another off the node, and counts as a change there."""
    mine, yours = share(), share()
    began = time.monotonic()
    first = Balancer(["a", "b"], health=mine)
    second = Balancer(["a", "b"], health=yours)
    heard: list[tuple[Any, ...]] = []
    yours.subscribe(lambda *change: heard.append(change))
    first.acquire(exclude={"b"}).failure("refused")
    sees(yours, "a", UNHEALTHY)
    assert {second.pick() for _ in range(20)} == {"b"}
    until(lambda: heard)  # it is told of a moment after it can be seen
    assert heard == [("a", HEALTHY, UNHEALTHY)]
    reason = yours.health("a").reason
    assert reason == "1 failure, the last: refused (found out by another process)"
    with pytest.raises(NoNodeAvailable) as refusal:
        second.acquire(exclude={"b"})
    lasted = time.monotonic() - began
    assert refusal.value.retry_after == pytest.approx(10, abs=lasted + 0.1)
    mine.report_success("a")
    sees(yours, "a", HEALTHY)
    assert {second.pick() for _ in range(50)} == {"a", "b"}


def test_each_change_is_told_once(share: Share, client: redis.Redis, prefix: str) -> None:
    """What is taken over is not told again: two changes are two messages, among 5 trackers."""
    trackers = [share() for _ in range(5)]
    listener = cast("Any", client).pubsub(ignore_subscribe_messages=True)
    listener.subscribe(f"{prefix}:health")
    until(lambda: client.pubsub_numsub(f"{prefix}:health")[0][1] == 6)
    trackers[0].report_failure("a")
    for tracker in trackers:
        sees(tracker, "a", UNHEALTHY)
    trackers[3].report_success("a")
    for tracker in trackers:
        sees(tracker, "a", HEALTHY)
    trackers[1].report_failure("b")
    for tracker in trackers:
        sees(tracker, "b", UNHEALTHY)
    told: list[dict[str, Any]] = []

    def hear() -> bool:
        message = listener.get_message(timeout=0.1)
        if message is not None:
            told.append(json.loads(message["data"].split(b" ", 2)[2]))
        return message is None and len(told) >= 3

    until(hear)
    assert [(each["id"], each["status"]) for each in told] == [
        ("a", "UNHEALTHY"),
        ("a", "HEALTHY"),
        ("b", "UNHEALTHY"),
    ]
    listener.close()


@pytest.mark.parametrize("refused", ["resetchannels", "-publish", "-subscribe"])
def test_a_user_without_channels_polls(
    valkey: Valkey,
    share: Share,
    client: redis.Redis,
    prefix: str,
    caplog: pytest.LogCaptureFixture,
    refused: str,
) -> None:
    """Who may not publish or subscribe tells and finds out all the same; one error says why not.

    Nor is it an outage, or lost that somebody else has changed meanwhile.
    """
    user = f"{prefix}-user"
    cast("Any", client).execute_command(
        "ACL", "SETUSER", user, "on", "nopass", "~*", "&*", "+@all", refused
    )
    limited = share(valkey.client(username=user, password="any"), poll=0.1)  # noqa: S106 - there is none
    other = share(poll=0.1)
    with caplog.at_level(logging.WARNING, "loadwise"):
        for _ in range(3):
            limited.report_failure("a")
            sees(other, "a", UNHEALTHY)
            other.report_success("a")
            sees(limited, "a", HEALTHY)
        until(lambda: caplog.records)
    client.acl_deluser(user)
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert f"refuses the channel '{prefix}:health'" in record.getMessage()
    assert "found by polling" in record.getMessage()
    assert limited.connected
    assert limited.events == dict.fromkeys(limited.events, 0)


def test_a_channel_that_is_allowed_again_is_used_after_an_outage(
    fragile: Valkey, share: Share, prefix: str
) -> None:
    """A user that was refused the channel asks for it when the server is back."""
    with fragile.client() as client:
        client.acl_setuser("limited", enabled=True, nopass=True, commands=["+@all"], keys=["*"])
        limited = share(
            fragile.client(username="limited", password="any"),  # noqa: S106 - there is none
            poll=0.1,
        )
        other = share(fragile.client())
        other.report_failure("a")
        sees(limited, "a", UNHEALTHY)
        channel = f"{prefix}:health"
        assert client.pubsub_numsub(channel)[0][1] <= 1
        client.acl_setuser("limited", enabled=True, channels=["*"])
        assert limited._sync is not None
        limited._sync.breaker.failed(TimeoutError("as it would be"))
        until(lambda: client.pubsub_numsub(channel)[0][1] == 2)


def test_a_broken_subscription_is_made_anew(share: Share, client: redis.Redis) -> None:
    """When the server cuts off all who listen, they subscribe again and go on."""
    teller, listener = share(poll=60.0), share(poll=60.0)
    for i in range(3):
        until(lambda: len(client.client_list(_type="pubsub")) >= 2)
        teller.report_failure(f"node-{i}")
        sees(listener, f"node-{i}", UNHEALTHY)
        client.client_kill_filter(_type="pubsub")
        until(lambda: len(client.client_list(_type="pubsub")) >= 2)


def test_who_starts_later_learns_what_is_known(
    share: Share, client: redis.Redis, prefix: str
) -> None:
    """States are kept for newcomers, with their times, in a HASH that expires."""
    began = time.monotonic()
    teller = share(policy=None, ttl=100.0)
    for _ in range(3):
        teller.report_failure("a", "refused")
    until(lambda: client.exists(f"{prefix}:health"))
    newcomer = share(policy=None)
    sees(newcomer, "a", UNHEALTHY)
    left = client.pttl(f"{prefix}:health")
    # What has waited on its way, for no longer than all this took, seems that much younger.
    lasted = time.monotonic() - began
    mine, theirs = teller.health("a"), newcomer.health("a")
    assert theirs.consecutive_failures == 3
    assert mine.last_failure is not None
    assert theirs.last_failure == pytest.approx(mine.last_failure, abs=lasted)
    assert theirs.down_since == pytest.approx(theirs.last_failure)
    assert newcomer.next_probe("a") == pytest.approx(mine.last_failure + 10.0, abs=lasted)
    assert 100_000 - 1000 * lasted - 1 <= left <= 100_000


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


def test_removed_nodes_stay_removed(share: Share) -> None:
    """A node that this process forgot does not come back by old news; it does by new ones."""
    one, other = share(poll=0.05), share(poll=0.05)
    one.report_failure("a")
    sees(other, "a", UNHEALTHY)
    other.remove("a")
    one.report_failure("b")
    sees(other, "b", UNHEALTHY)
    assert other.status("a") is HEALTHY
    one.report_success("a")
    one.report_failure("a")
    sees(other, "a", UNHEALTHY)


def test_ids_that_are_no_str_stay_here(share: Share, caplog: pytest.LogCaptureFixture) -> None:
    """They are judged like any other, in this process alone, and one warning says so."""
    one, other = share(), share()
    with caplog.at_level(logging.WARNING, "loadwise"):
        one.report_failure(5)
        one.report_failure(("a", 1))
    assert one.status(5) is UNHEALTHY
    assert caplog.messages == ["the health of 5 is not shared: its id is no str"]
    one.report_failure("a")
    sees(other, "a", UNHEALTHY)
    assert other.status(5) is HEALTHY
    one.remove(5)
    one.report_failure("x" * 2000)
    until(lambda: one.events["rejected"] == 1)


def test_closing(valkey: Valkey, prefix: str) -> None:
    """Closing tells the rest; the tracker works on alone, and closing twice is harmless."""
    tracker = SharedHealth(valkey.client(), prefix, ABRUPT, poll=60.0)
    tracker.report_failure("a")
    tracker.close()
    tracker.close()
    assert not tracker.connected
    tracker.report_failure("b")
    assert tracker.status("b") is UNHEALTHY
    with SharedHealth(valkey.client(), prefix) as other:
        sees(other, "a", UNHEALTHY)
        assert other.status("b") is HEALTHY


def test_closing_before_the_background_has_begun(valkey: Valkey, prefix: str) -> None:
    """What was found out until then is told, although nobody has looked at the server yet."""
    tracker = SharedHealth(valkey.client(), prefix, ABRUPT, timeout=PATIENCE)
    tracker.catch_up()
    sync = tracker._sync
    assert sync is not None
    sync._sender.close()
    sync._ahead = None  # as it is before the first look, should the thread be slow to begin
    tracker.report_failure("a")
    tracker.close()
    with SharedHealth(valkey.client(), prefix, timeout=PATIENCE) as other:
        sees(other, "a", UNHEALTHY)


def test_refuses_wrong_arguments(client: redis.Redis) -> None:
    """What is of the wrong kind or out of range is refused by name."""
    wrong: list[dict[str, Any]] = [{"ttl": 0}, {"poll": -1}, {"timeout": float("inf")}]
    for settings in [*wrong, {"prefix": ""}, {"prefix": "\ud800"}]:
        with pytest.raises(ValueError, match=next(iter(settings))):
            SharedHealth(client, **settings)
    with pytest.raises(TypeError, match="timeout is '1'; it must be a number"):
        SharedHealth(client, timeout="1")  # type: ignore[arg-type]  # the error under test
    with pytest.raises(TypeError, match="policy is 5"):
        SharedHealth(client, policy=5)  # type: ignore[arg-type]  # the error under test
    with pytest.raises(TypeError, match=r"it must be a redis\.Redis"):
        SharedHealth("localhost")  # type: ignore[arg-type]  # the error under test
