"""Shared quotas over connections that are cut, at every point of every kind of call."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import redis
from tests.integrations.redis.limits import rpm
from tests.real.redis.proxy import CUTS, Fate, Proxy
from tests.real.redis.support import PATIENCE, Peer, Valkey, all_at_once, hasten, until

from loadwise.integrations.redis import SharedQuota


class Scissors:
    """Cut the next call of a kind, once."""

    def __init__(self, point: Fate) -> None:
        self.point = point
        self.armed = b""

    def __call__(self, request: bytes) -> Fate:
        """Return what becomes of a call."""
        if self.armed and self.armed in request:
            self.armed = b""
            return self.point
        return "pass"

    def arm(self, op: str) -> None:
        """Cut the next call of this kind."""
        self.armed = f'"op":"{op}"'.encode()

    def has_cut(self) -> bool:
        """Whether it has."""
        return not self.armed


@pytest.fixture(params=CUTS)
def scissors(request: pytest.FixtureRequest) -> Scissors:
    """Return what cuts at one of the points."""
    return Scissors(request.param)


@pytest.fixture
def share(
    valkey: Valkey, prefix: str, stack: ExitStack, scissors: Scissors
) -> Callable[..., SharedQuota]:
    """Make quotas behind the scissors; close them in the end."""
    proxy = stack.enter_context(Proxy(valkey.port, scissors))

    def make(**settings: Any) -> SharedQuota:
        client = redis.Redis(port=proxy.port)
        quota = SharedQuota(client, prefix, on_outage="refuse", timeout=PATIENCE, **settings)
        return hasten(stack.enter_context(quota))

    return make


@pytest.fixture
def others(client: redis.Redis, prefix: str, stack: ExitStack) -> Callable[[], float]:
    """Return a function that says what others see left, before long."""
    watcher = hasten(stack.enter_context(SharedQuota(client, prefix, timeout=PATIENCE)))
    watcher.register("node", rpm(100))
    return lambda: watcher.remaining("node", "rpm")


Share = Callable[..., SharedQuota]


def test_asking(share: Share, others: Callable[[], float], scissors: Scissors) -> None:
    """Who is cut off while asking gets nothing, and that is what counts, soon and for good."""
    quota = share()
    quota.register("node", rpm(100))
    assert quota.try_acquire("node", {"rpm": 1})
    scissors.arm("acquire")
    assert quota.try_acquire("node", {"rpm": 60}) is None
    assert scissors.has_cut()
    assert until(lambda: quota.try_acquire("node", {"rpm": 99}))
    assert quota.try_acquire("node") is None
    until(lambda: others() == 0)


def test_asking_without_more(share: Share, others: Callable[[], float], scissors: Scissors) -> None:
    """What a call that was cut off may have got is free again though nobody asks for more."""
    quota = share()
    quota.register("node", rpm(100))
    scissors.arm("acquire")
    assert quota.try_acquire("node", {"rpm": 60}) is None
    until(lambda: quota.connected and others() == 100)
    assert quota.remaining("node", "rpm") == 100


def test_telling(share: Share, others: Callable[[], float], scissors: Scissors) -> None:
    """What was settled, cancelled, recorded and paused arrives once, though the news is cut off."""
    quota = share()
    quota.register("node", rpm(100))
    settled = quota.try_acquire("node", {"rpm": 30})
    cancelled = quota.try_acquire("node", {"rpm": 20})
    assert settled is not None
    assert cancelled is not None
    scissors.arm("sync")
    settled.settle({"rpm": 10})
    until(scissors.has_cut)
    scissors.arm("sync")
    cancelled.cancel()
    until(scissors.has_cut)
    scissors.arm("sync")
    quota.record_usage("node", {"rpm": 7})
    until(scissors.has_cut)
    until(lambda: others() == 83)
    assert quota.remaining("node", "rpm") == 83


def test_registering_and_closing(
    share: Share, others: Callable[[], float], scissors: Scissors
) -> None:
    """A process that is cut off as it starts joins in soon; one that closes tells the rest."""
    quota = share()
    scissors.arm("sync")
    quota.register("node", rpm(100))
    assert scissors.has_cut()
    assert until(lambda: quota.try_acquire("node", {"rpm": 40}))
    quota.record_usage("node", {"rpm": 5})
    quota.close()
    until(lambda: others() == 55)


def test_taking_slices(share: Share, others: Callable[[], float], scissors: Scissors) -> None:
    """A slice that was granted and never heard of is free again; what is used counts."""
    quota = share(mode="leased", slice_share=0.5)
    quota.register("node", rpm(100))
    scissors.arm("take")
    assert quota.try_acquire("node", {"rpm": 5}) is None
    assert scissors.has_cut()
    assert until(lambda: quota.try_acquire("node", {"rpm": 5}))
    scissors.arm("take")
    assert until(lambda: scissors.has_cut() or quota.try_acquire("node", {"rpm": 5}))
    until(lambda: quota.connected)
    used = 100 - quota.remaining("node", "rpm")
    assert used >= 5
    quota.close()
    until(lambda: others() == 100 - used)


@pytest.mark.parametrize(("processes", "cost", "limit"), [(2, 4, 60), (4, 1, 40)])
def test_processes_admit_exactly_the_limit_though_a_tenth_of_all_messages_is_lost(
    valkey: Valkey,
    prefix: str,
    peer: Callable[..., Peer],
    stack: ExitStack,
    processes: int,
    cost: int,
    limit: int,
) -> None:
    """Of a strict quota, exactly the limit: each request and each reply is lost by 1 in 10."""
    rng = random.Random(5)

    def fate(_request: bytes) -> Fate:
        if rng.random() < 0.1:
            return "before request"
        return "before reply" if rng.random() < 0.1 else "pass"

    proxy = stack.enter_context(Proxy(valkey.port, fate))
    peers = [
        peer(proxy, prefix, limit=limit, window=600.0, on_outage="refuse") for _ in range(processes)
    ]
    assert sum(all_at_once(peers, "exhaust_connected", cost, 1)) == limit
    watcher = stack.enter_context(SharedQuota(valkey.client(), prefix, timeout=PATIENCE))
    watcher.register("node", rpm(limit, window=600.0))
    assert watcher.try_acquire("node") is None


@pytest.mark.parametrize("mode", ["strict", "leased"])
def test_closing(
    valkey: Valkey, prefix: str, others: Callable[[], float], scissors: Scissors, mode: Any
) -> None:
    """What the last call was to tell is told by another one, if that is cut off."""
    with Proxy(valkey.port, scissors) as proxy:
        quota = SharedQuota(redis.Redis(port=proxy.port), prefix, mode, timeout=PATIENCE)
        quota.register("node", rpm(100))
        assert quota.try_acquire("node", {"rpm": 1})
        quota._worker.close()  # so that nobody else does it
        quota.record_usage("node", {"rpm": 20})
        scissors.arm("sync")
        quota.close()
    assert scissors.has_cut()
    until(lambda: others() == 79)
