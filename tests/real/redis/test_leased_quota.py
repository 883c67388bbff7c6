"""Leased quotas that processes share through a real server."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Literal

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

from loadwise import Balancer, QuotaConfig, QuotaDimension
from loadwise.integrations.redis import SharedQuota


def names_of(config: QuotaConfig) -> list[str]:
    """Return the names of the dimensions."""
    return [dimension.name for dimension in config.dimensions]


@pytest.fixture
def share(client: redis.Redis, prefix: str, stack: ExitStack) -> Callable[..., SharedQuota]:
    """Make leased quotas that share the test's prefix and hold a slice; close them in the end."""

    def make(config: QuotaConfig, **settings: Any) -> SharedQuota:
        settings = {"timeout": PATIENCE} | settings
        quota = stack.enter_context(SharedQuota(client, prefix, "leased", **settings))
        quota.register("node", config)
        first = quota.try_acquire("node", dict.fromkeys(names_of(config), 0))
        assert first is not None
        return quota

    return make


Share = Callable[..., SharedQuota]


def test_no_window_holds_more_than_the_limit(
    valkey: Valkey, prefix: str, peer: Callable[..., Peer]
) -> None:
    """4 processes ask all the time for 4 windows: none of them, wherever it begins, is overfull.

    Yet most of what is allowed is used, by somebody, as soon as the machine lets them: a process
    that is kept waiting for longer than a slice lives, 70 ms here, cannot use what it was given.
    """
    peers = [peer(valkey, prefix, limit=100, window=0.7, mode="leased") for _ in range(4)]
    uses: list[tuple[float, float]] = []

    def most_is_used() -> bool:
        fresh = [tuple(use) for answer in all_at_once(peers, "hammer", 2.8) for use in answer]
        uses.extend(fresh)
        return len(fresh) >= 2 * 100

    until(most_is_used)
    assert most_in_any_window(uses, 0.7) <= 100


def test_a_pick_never_waits_for_the_network(valkey: Valkey, prefix: str, stack: ExitStack) -> None:
    """After the first pick the thread that picks sends nothing; the background takes slices."""
    client, sent = valkey.counting_client()
    quota = stack.enter_context(SharedQuota(client, prefix, "leased", timeout=PATIENCE))
    quota.register("node", rpm(100_000))
    balancer = Balancer(["node"], quota=quota)
    balancer.acquire().success()
    before = sent["MainThread"]
    for _ in range(1000):
        balancer.acquire().success()
    assert sent["MainThread"] == before
    assert quota.remaining("node", "rpm") <= 100_000 - 1000


def test_exactly_the_limit_is_granted_in_the_end(share: Share) -> None:
    """Of a window that none leaves, two processes together get all that is allowed, and no more."""
    quotas = share(rpm(100, window=300.0)), share(rpm(100, window=300.0))
    granted = [0, 0]

    def ask() -> bool:
        for i, quota in enumerate(quotas):
            granted[i] += quota.try_acquire("node") is not None
        return sum(granted) >= 100

    until(ask)
    for _ in range(50):
        ask()
    assert sum(granted) == 100
    assert min(granted) > 0


def test_a_large_request_is_served_when_enough_was_taken(share: Share) -> None:
    """One that exceeds what is held is refused, and more is taken, so that the next succeeds."""
    quota = share(
        QuotaConfig(
            [
                QuotaDimension("rpm", limit=1000),
                QuotaDimension("tpm", limit=10_000, default_cost=0),
            ]
        ),
        slice_share=0.01,
    )
    assert quota.try_acquire("node", {"tpm": 9_000}) is None
    reservation = until(lambda: quota.try_acquire("node", {"tpm": 9_000}))
    assert reservation.amounts == {"rpm": 1, "tpm": 9_000}
    assert quota.try_acquire("node", {"tpm": 5_000}) is None
    reservation.settle({"tpm": 100})
    assert until(lambda: quota.try_acquire("node", {"tpm": 5_000}))


def test_what_is_settled_is_usable_at_once(share: Share) -> None:
    """Units given back go to the slice they came from; units used beyond it are charged."""
    quota = share(rpm(10), slice_share=0.5)
    first = quota.try_acquire("node", {"rpm": 4})
    assert first is not None
    first.settle({"rpm": 1})
    second = quota.try_acquire("node", {"rpm": 4})
    assert second is not None
    second.settle({"rpm": 9})
    until(lambda: quota.remaining("node", "rpm") == 0)
    assert not quota.is_available("node")
    assert quota.unavailable() == ["node"]


def test_what_nobody_uses_goes_back(
    share: Share, client: redis.Redis, prefix: str, stack: ExitStack
) -> None:
    """Closing gives back what is held; idling gives back nearly all of it."""
    config = rpm(100, window=1.0)
    idle, busy = share(config, slice_share=0.5), share(config, slice_share=0.5)
    granted = 0

    def take() -> bool:
        nonlocal granted
        granted += busy.try_acquire("node") is not None
        return granted >= 98

    assert idle.is_available("node")
    until(take)  # all but the little that the idle one keeps ready
    assert granted <= 99
    busy.close()
    idle.close()
    until(lambda: not client.exists(f"{prefix}:quota:node"))
    fresh = share(rpm(100, window=60.0))
    assert fresh.remaining("node", "rpm") == 100
    fresh.close()
    strict = stack.enter_context(SharedQuota(client, prefix, timeout=PATIENCE))
    strict.register("node", config)
    assert strict.remaining("node", "rpm") == 100


def test_a_slice_counts_until_a_window_after_its_end(
    share: Share, client: redis.Redis, prefix: str, stack: ExitStack
) -> None:
    """What may be used up to 5 s after it was taken counts until a window after those 5 s.

    And until the bucket that they fall into is over, 10 s later at most.
    """
    began = time.monotonic()
    share(rpm(100, window=60.0), slice_share=0.5)
    strict = stack.enter_context(SharedQuota(client, prefix, timeout=PATIENCE))
    strict.register("node", rpm(100, window=60.0))
    free = strict.available_at("node", {"rpm": 100})
    assert began + 60.0 + 5.0 <= free <= time.monotonic() + 60.0 + 5.0 + 10.0 + 1.0


def test_removing_gives_back_what_is_held(share: Share) -> None:
    """Who removes a node leaves all of its quota to the others."""
    mine, yours = share(rpm(100), slice_share=0.5), share(rpm(100), slice_share=0.5)
    mine.remove("node")
    assert mine.try_acquire("node", {"rpm": 1000})
    assert until(lambda: yours.try_acquire("node", {"rpm": 100}))


def test_a_pause_holds_everywhere(share: Share) -> None:
    """A node that one process puts on cooldown is soon left alone by the others, too."""
    mine, yours = share(rpm(100, window=2.0)), share(rpm(100, window=2.0))
    mine.mark_exhausted("node", 3.0)  # long enough to look at it on a busy machine
    assert mine.try_acquire("node") is None
    until(lambda: yours.try_acquire("node") is None)
    assert until(lambda: mine.try_acquire("node") and yours.try_acquire("node"))


@pytest.mark.parametrize("on_outage", ["local", "refuse"])
def test_an_outage(
    fragile: Valkey, prefix: str, stack: ExitStack, on_outage: Literal["local", "refuse"]
) -> None:
    """What is held may still be used; beyond it, the policy for outages decides."""
    quota = stack.enter_context(
        SharedQuota(
            fragile.client(), prefix, "leased", on_outage, slice_share=0.2, timeout=PATIENCE
        )
    )
    quota.register("node", rpm(100))
    assert quota.try_acquire("node")
    fragile.kill()
    granted = 1 + sum(quota.try_acquire("node") is not None for _ in range(19))
    assert granted == 20
    until(lambda: not quota.connected)
    granted += sum(quota.try_acquire("node") is not None for _ in range(200))
    assert granted == (100 if on_outage == "local" else 20)
    fragile.start()
    until(lambda: quota.connected)
    other = stack.enter_context(SharedQuota(fragile.client(), prefix, timeout=PATIENCE))
    other.register("node", rpm(100))
    assert until(lambda: other.remaining("node", "rpm") <= 100 - granted)
    if on_outage == "refuse":
        assert until(lambda: quota.try_acquire("node"))


def test_a_flush(fragile: Valkey, prefix: str, stack: ExitStack) -> None:
    """What is held when the server forgets all is told anew, as used."""
    quota = stack.enter_context(
        SharedQuota(fragile.client(), prefix, "leased", slice_share=0.2, timeout=PATIENCE)
    )
    hasten(quota).register("node", rpm(100))
    for _ in range(10):
        assert quota.try_acquire("node")
    with fragile.client() as client:
        client.flushall()
    until(lambda: quota.events["resynchronised"] == 1)
    other = stack.enter_context(SharedQuota(fragile.client(), prefix, timeout=PATIENCE))
    other.register("node", rpm(100))
    assert other.try_acquire("node", {"rpm": 91}) is None
