"""Strict quotas that processes share through a real server."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
import redis
from tests.integrations.redis.limits import rpm
from tests.real.redis.support import (
    PATIENCE,
    Peer,
    Valkey,
    all_at_once,
    hasten,
    most_in_any_window,
    until,
)

from loadwise import Balancer, Endpoint, NoNodeAvailable, QuotaConfig, QuotaDimension, QuotaTracker
from loadwise.errors import LoadwiseError
from loadwise.integrations.redis import SharedEvent, SharedQuota
from loadwise.testing import ManualClock

StartPeer = Callable[..., Peer]


def rests(quota: SharedQuota) -> bool:
    """Whether the node sits out, when a request asks for it."""
    return quota.try_acquire("node", {"rpm": 0}) is None


def is_awake(quota: SharedQuota) -> bool:
    """Whether the node does not sit out."""
    return not rests(quota)


@pytest.fixture
def share(client: redis.Redis, prefix: str, stack: ExitStack) -> Callable[..., SharedQuota]:
    """Make quotas that share the test's prefix; close them in the end."""

    def make(config: QuotaConfig | None = None, **settings: Any) -> SharedQuota:
        settings = {"timeout": PATIENCE} | settings
        quota = stack.enter_context(SharedQuota(client, prefix, **settings))
        if config is not None:
            quota.register("node", config)
        return quota

    return make


Share = Callable[..., SharedQuota]


@pytest.mark.parametrize(
    ("processes", "command"), [(2, "exhaust"), (8, "exhaust"), (8, "exhaust_balancer")]
)
def test_processes_admit_exactly_the_limit(
    valkey: Valkey, prefix: str, peer: StartPeer, processes: int, command: str
) -> None:
    """2, then 8 processes share a quota of 100 per window: exactly 100 requests are admitted."""
    peers = [peer(valkey, prefix, limit=100, window=120.0) for _ in range(processes)]
    granted = all_at_once(peers, command, 20)
    assert sum(granted) == 100


def test_no_window_holds_more_than_the_limit(valkey: Valkey, prefix: str, peer: StartPeer) -> None:
    """3 processes ask all the time for 4 windows: none of them, wherever it begins, is overfull.

    Yet most of what is allowed is used, as soon as the machine lets them: a window and a sixth of
    it after it was used, it is back.
    """
    peers = [peer(valkey, prefix, limit=30, window=0.6) for _ in range(3)]
    uses: list[tuple[float, float]] = []

    def most_is_used() -> bool:
        fresh = [tuple(use) for answer in all_at_once(peers, "hammer", 2.4) for use in answer]
        uses.extend(fresh)
        return len(fresh) >= 3 * 30

    until(most_is_used)
    assert most_in_any_window(uses, 0.6) <= 30


def is_refused(quota: SharedQuota, amounts: dict[str, float]) -> bool:
    """Whether a request is refused; if not, it is as if it had not been made."""
    reservation = quota.try_acquire("node", amounts)
    if reservation is not None:
        reservation.cancel()
    return reservation is None


def is_exhausted(quota: SharedQuota) -> bool:
    """Whether nothing is left, after the server was asked."""
    return is_refused(quota, {"rpm": 0.5}) and quota.remaining("node", "rpm") == 0


def test_decides_as_a_tracker_of_one_process_does(share: Share) -> None:
    """Whatever is acquired, settled and recorded in two shared quotas, one tracker agrees.

    500 random operations (seed 7) on two dimensions, within one window. What is settled and
    recorded arrives a moment later, so it may take a few tries until they agree.
    """
    rng = random.Random(7)
    config = QuotaConfig(
        [
            QuotaDimension("rpm", limit=60, window=600.0),
            QuotaDimension("tpm", limit=2_000.5, window=300.0, default_cost=0),
        ]
    )
    reference = QuotaTracker(ManualClock())
    reference.register("node", config)
    quotas = share(config), share(config)
    held: list[tuple[Any, Any]] = []
    refusals = 0
    for _ in range(500):
        quota = rng.choice(quotas)
        some = rng.randrange(200) / 4
        amounts: dict[str, float] = rng.choice([{}, {"tpm": 0.0}, {"tpm": some}, {"rpm": 2.0}])
        act = rng.random()
        if act < 0.65:
            expected = reference.try_acquire("node", amounts)
            if expected is None:
                refusals += 1
                until(partial(is_refused, quota, amounts))
            else:
                found = until(partial(quota.try_acquire, "node", amounts))
                assert found.amounts == expected.amounts
                held.append((expected, found))
        elif act < 0.98 and held:
            for each in held.pop(rng.randrange(len(held))):
                each.settle(amounts)
        else:
            assert reference.record_usage("node", amounts)
            assert quota.record_usage("node", amounts)
    assert refusals > 50
    left = pytest.approx(reference.remaining_by_dimension("node"))
    for quota in quotas:
        until(
            partial(
                lambda q: is_refused(q, {"rpm": 61}) and q.remaining_by_dimension("node") == left,
                quota,
            )
        )


def test_what_one_process_gives_back_another_gets(
    valkey: Valkey, prefix: str, peer: StartPeer, share: Share
) -> None:
    """A settles for less than it reserved: B, refused before, is granted the difference."""
    other = peer(valkey, prefix, limit=100)
    quota = share(rpm(100))
    assert other.ask("acquire", 100)
    assert quota.try_acquire("node") is None
    other.ask("settle", 97)
    reservation = until(lambda: quota.try_acquire("node", {"rpm": 3}))
    assert quota.try_acquire("node") is None
    reservation.cancel()
    reservation.cancel()
    with pytest.raises(LoadwiseError, match="already been settled"):
        reservation.settle({"rpm": 1})
    assert until(lambda: other.ask("acquire", 3))


def test_what_was_used_beyond_the_reservation_counts_everywhere(share: Share) -> None:
    """Settling above the reservation, and recording, is charged for all, above the limit too."""
    mine, yours = share(rpm(10)), share(rpm(10))
    reservation = mine.try_acquire("node", {"rpm": 1})
    assert reservation is not None
    assert yours.remaining("node", "rpm") == 10
    reservation.settle({"rpm": 6})
    assert mine.remaining("node", "rpm") == 4
    assert yours.record_usage("node", {"rpm": 7})
    for quota in (mine, yours):
        until(partial(is_exhausted, quota))
        assert quota.unavailable() == ["node"]
        assert not quota.is_available("node")


def test_what_was_recorded_counts_before_the_server_has_heard_of_it(share: Share) -> None:
    """A request that overtakes the news of use on its way to the server is refused all the same."""
    quota = share(rpm(10))
    quota.record_usage("node", {"rpm": 10})
    next(quota._due("node"), None)  # planned, not sent, unless the background has seen to it
    assert quota.try_acquire("node") is None
    until(partial(is_exhausted, quota))


def test_a_pause_holds_everywhere(share: Share) -> None:
    """A node that one process has sit out is left alone by all, until the pause is over."""
    mine, yours = share(rpm(10)), share(rpm(10))
    mine.mark_exhausted("node", 3.0)  # long enough to look at it on a busy machine
    assert mine.try_acquire("node") is None
    until(lambda: yours.try_acquire("node") is None)
    assert yours.rests_until("node") is not None
    balancer = Balancer(["node"], quota=yours)
    with pytest.raises(NoNodeAvailable) as refusal:
        balancer.acquire()
    assert refusal.value.reasons == {"rate_limited": 1}
    assert refusal.value.retry_after is not None
    assert until(lambda: yours.try_acquire("node"))
    until(lambda: mine.rests_until("node") is None)


def test_dimensions_are_charged_all_or_none(share: Share) -> None:
    """A request that does not fit in one dimension charges nothing in the others."""
    config = QuotaConfig([QuotaDimension("rpm", limit=10), QuotaDimension("tpm", limit=100)])
    mine, yours = share(config), share(config)
    assert mine.try_acquire("node", {"tpm": 101}) is None
    assert mine.try_acquire("node", {"rpm": 11}) is None
    reservation = yours.try_acquire("node", {"tpm": 100})
    assert reservation is not None
    assert reservation.amounts == {"rpm": 1, "tpm": 100}
    assert mine.try_acquire("node") is None
    assert mine.remaining_by_dimension("node") == {"rpm": 9, "tpm": 0}


def test_a_balancer_takes_it_for_a_quota(share: Share) -> None:
    """Nodes without quota are passed over, others are asked, and the lease settles."""
    quota = share(rpm(2))
    quota.register("other", rpm(3))
    balancer = Balancer(["node", "other"], quota=quota)
    leases = [balancer.acquire() for _ in range(5)]
    assert sorted(lease.node for lease in leases) == ["node"] * 2 + ["other"] * 3
    with pytest.raises(NoNodeAvailable) as refusal:
        balancer.acquire()
    assert refusal.value.reasons == {"quota": 2}
    assert refusal.value.retry_after == pytest.approx(60, abs=15)
    assert balancer.explain().ineligible == {"node": "quota", "other": "quota"}
    for lease in leases:
        lease.success()
    leases[0].settle({"rpm": 0})
    assert balancer.acquire().success()
    assert [status.quota_remaining for status in balancer.status()] == [{"rpm": 0}, {"rpm": 0}]


def test_one_request_is_one_round_trip(valkey: Valkey, prefix: str, stack: ExitStack) -> None:
    """A pick in strict mode sends one command; whatever else the quota is asked sends none."""
    client, sent = valkey.counting_client()
    quota = stack.enter_context(SharedQuota(client, prefix, timeout=PATIENCE))
    quota.register("node", rpm(1000))
    balancer = Balancer(["node"], quota=quota)
    balancer.acquire().success()
    before = sent["MainThread"]
    leases = [balancer.acquire() for _ in range(50)]
    assert sent["MainThread"] - before == 50
    for lease in leases:
        lease.success()
        lease.settle({"rpm": 0.5})
    quota.record_usage("node", {"rpm": 5})
    quota.mark_exhausted("node", 0.01)
    balancer.status()
    balancer.explain()
    assert sent["MainThread"] - before == 50


def test_ids_without_a_quota_are_unlimited(share: Share, client: redis.Redis, prefix: str) -> None:
    """Of nodes that are not registered nothing is kept on the server; a pause stays here."""
    quota = share()
    for node_id in ("free", 5, ("a", 1)):
        reservation = quota.try_acquire(node_id, {"rpm": 1e9})
        assert reservation is not None
        reservation.settle({"rpm": 3})
        assert quota.remaining(node_id, "rpm") == float("inf")
        assert not quota.record_usage(node_id, {"rpm": 1})
    quota.mark_exhausted(5, 30)
    assert quota.try_acquire(5) is None
    assert quota.unavailable() == [5]
    assert client.keys(f"{prefix}:*") == []


def test_removing_and_registering_again(share: Share) -> None:
    """Who removes a node is no longer limited; the others are, and so is who registers again."""
    mine, yours = share(rpm(10)), share(rpm(10))
    assert mine.try_acquire("node", {"rpm": 8})
    mine.remove("node")
    mine.remove("absent")
    assert mine.try_acquire("node", {"rpm": 100})
    assert mine.remaining_by_dimension("node") == {}
    assert yours.try_acquire("node", {"rpm": 3}) is None
    mine.register("node", rpm(12))
    assert mine.remaining("node", "rpm") == 4
    assert mine.try_acquire("node", {"rpm": 4})
    mine.register("node", rpm(20))
    assert mine.remaining("node", "rpm") == 8


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


def test_refuses_wrong_arguments(share: Share, client: redis.Redis) -> None:
    """What cannot be shared, and what is out of range, is refused by name."""
    quota = share(rpm(10))
    with pytest.raises(TypeError, match="the id is 5; in a shared quota it must be a str"):
        quota.register(5, rpm(10))
    with pytest.raises(TypeError, match="it must be a QuotaConfig"):
        quota.register("node", 5)  # type: ignore[arg-type]  # the error under test
    for config in (rpm(1e17), rpm(1, window=1e12), rpm(1, resolution=501)):
        with pytest.raises(ValueError, match="in a shared quota it must be at most"):
            quota.register("node", config)
    for amounts, message in (({"rpn": 1}, "did you mean 'rpm'"), ({"rpm": -1}, "at least 0")):
        with pytest.raises(ValueError, match=message):
            quota.try_acquire("node", amounts)
        with pytest.raises(ValueError, match=message):
            quota.record_usage("node", amounts)
    with pytest.raises(ValueError, match="finite and at least 0"):
        quota.mark_exhausted("node", -1)
    wrong: list[tuple[type[Exception], dict[str, Any]]] = [
        (ValueError, {"mode": "lax"}),
        (ValueError, {"on_outage": "panic"}),
        (ValueError, {"timeout": 0}),
        (ValueError, {"slice_share": 0}),
        (ValueError, {"slice_share": 1.5}),
        (ValueError, {"prefix": ""}),
        (ValueError, {"prefix": "\ud800"}),
        (TypeError, {"prefix": 5}),
        (TypeError, {"on_event": 5}),
    ]
    for kind, settings in wrong:
        with pytest.raises(kind, match=next(iter(settings))):
            SharedQuota(client, **settings)
    with pytest.raises(TypeError, match=r"it must be a redis\.Redis"):
        SharedQuota("localhost")  # type: ignore[arg-type]  # the error under test


def test_a_node_is_taken_by_its_id(share: Share) -> None:
    """A node in the place of its id is as good, for everything that is shared."""
    quota, node = share(), Endpoint("node")
    quota.register(node, rpm(4, 600.0))
    assert quota.record_usage(node, {"rpm": 1})
    assert quota.try_acquire(node, {"rpm": Decimal(2)}) is not None  # type: ignore[dict-item]
    assert quota.remaining(node, "rpm") == quota.remaining("node", "rpm") == 1
    quota.mark_exhausted(node, 60.0)
    assert quota.rests_until("node") is not None
    assert share(rpm(4, 600.0)).remaining(node, "rpm") == 1
    quota.remove(node)
    assert quota.unavailable() == []


def test_a_pause_is_lifted_everywhere(share: Share) -> None:
    """What one process lifts is over for all; what is used of the quota still counts."""
    mine, yours = share(rpm(10)), share(rpm(10))
    assert mine.try_acquire("node", {"rpm": 4})
    mine.mark_exhausted("node", 600.0)
    until(partial(rests, yours))
    balancer = Balancer(["node"], quota=yours)
    assert balancer.lift("node")
    assert balancer.acquire().success()
    until(partial(is_awake, mine))
    assert not mine.lift("node")
    until(lambda: mine.remaining("node", "rpm") == yours.remaining("node", "rpm") == 5)
    assert yours.rests_until("node") is None


def test_a_pause_of_no_time_lifts_one_everywhere(share: Share) -> None:
    """`mark_exhausted(id, 0)` ends a pause for all processes, whichever of them began it."""
    mine, yours = share(rpm(10)), share(rpm(10))
    mine.mark_exhausted("node", 600.0)
    until(partial(rests, yours))
    yours.mark_exhausted("node", 0)
    until(partial(is_awake, mine))
    assert yours.try_acquire("node")


def test_a_pause_that_begins_after_one_was_lifted_holds_everywhere(share: Share) -> None:
    """That a pause was lifted ends no later one, of this process or of another."""
    mine, yours = share(rpm(10)), share(rpm(10))
    for pauser, other in ((mine, yours), (yours, mine), (mine, yours)):
        pauser.mark_exhausted("node", 600.0)
        until(partial(rests, other))
        assert other.lift("node")
        until(partial(is_awake, pauser))
        other.mark_exhausted("node", 300.0)
        until(partial(rests, pauser))
        until_when = pauser.rests_until("node")
        assert until_when is not None
        assert until_when - pauser.clock() < 310
        assert pauser.lift("node")
        until(partial(is_awake, other))


def test_a_pause_lifted_during_an_outage_is_lifted_elsewhere_afterwards(
    fragile: Valkey, prefix: str, stack: ExitStack
) -> None:
    """It counts here at once, and elsewhere once the server is back, though that forgot it all."""
    quotas = [
        stack.enter_context(SharedQuota(fragile.client(), prefix, timeout=PATIENCE))
        for _ in range(2)
    ]
    for quota in quotas:
        quota.register("node", rpm(10))
    mine, yours = quotas
    mine.mark_exhausted("node", 600.0)
    until(partial(rests, yours))
    fragile.kill()
    until(lambda: not mine.connected)
    assert mine.lift("node")
    assert mine.try_acquire("node") is not None
    assert yours.rests_until("node") is not None
    fragile.start()
    until(partial(is_awake, yours))
    assert mine.rests_until("node") is None


def test_an_idle_process_sees_what_others_use(
    client: redis.Redis, prefix: str, stack: ExitStack
) -> None:
    """One that never makes a request sees what others have used: at first, and then soon."""
    idle, busy = (
        stack.enter_context(SharedQuota(client, prefix, timeout=PATIENCE)) for _ in range(2)
    )
    for quota in (idle, busy):
        quota.register("node", rpm(10))
    assert busy.try_acquire("node", {"rpm": 4})
    idle._shared["node"].synced -= 2.0  # as if that had been a while ago
    assert idle.remaining("node", "rpm") == 6
    assert busy.try_acquire("node", {"rpm": 6})
    until(lambda: idle.remaining("node", "rpm") == 0)
    assert not idle.is_available("node")
    assert idle.unavailable() == ["node"]
