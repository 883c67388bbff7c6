"""Strict quotas that processes share through a real server."""

from __future__ import annotations

import random
from contextlib import ExitStack
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
import redis
from tests.integrations.redis.limits import rpm
from tests.real.redis.strict_quota.support import Share, StartPeer, is_exhausted, is_refused
from tests.real.redis.support import PATIENCE, Valkey, all_at_once, most_in_any_window, until

from loadwise import Balancer, Endpoint, NoNodeAvailable, QuotaConfig, QuotaDimension, QuotaTracker
from loadwise.errors import LoadwiseError
from loadwise.integrations.redis import SharedQuota
from loadwise.testing import ManualClock


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
    """Of nodes that are not registered nothing is kept on the server; a cooldown stays here."""
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
    with pytest.raises(ValueError, match="at least 0"):
        quota.record_usage("node", {"rpm": -1})
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
    assert quota.cooldown_until("node") is not None
    assert share(rpm(4, 600.0)).remaining(node, "rpm") == 1
    quota.remove(node)
    assert quota.unavailable() == []


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
    idle._nodes["node"].synced -= 2.0  # as if that had been a while ago
    assert idle.remaining("node", "rpm") == 6
    assert busy.try_acquire("node", {"rpm": 6})
    until(lambda: idle.remaining("node", "rpm") == 0)
    assert not idle.is_available("node")
    assert idle.unavailable() == ["node"]


def test_use_of_what_a_node_does_not_limit_is_free(share: Share) -> None:
    """As with a `QuotaTracker`: nothing is charged for it, and the rest is."""
    quota = share(rpm(10))
    assert quota.record_usage("node", {"rpm": 2, "images": 5})
    assert quota.remaining_by_dimension("node") == {"rpm": 8}
