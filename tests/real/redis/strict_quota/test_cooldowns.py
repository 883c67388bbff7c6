"""Cooldowns of nodes with strict quotas: one process begins or lifts them, all keep to them."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

import pytest
from tests.integrations.redis.limits import rpm
from tests.real.redis.strict_quota.support import Share, is_awake, rests
from tests.real.redis.support import PATIENCE, Valkey, hasten, until

from loadwise import Balancer, NoNodeAvailable
from loadwise.integrations.redis import SharedQuota


def test_a_pause_holds_everywhere(share: Share) -> None:
    """A node that one process puts on cooldown is left alone by all, until the cooldown is over."""
    mine, yours = share(rpm(10)), share(rpm(10))
    mine.mark_exhausted("node", 3.0)  # long enough to look at it on a busy machine
    assert mine.try_acquire("node") is None
    until(lambda: yours.try_acquire("node") is None)
    assert yours.cooldown_until("node") is not None
    balancer = Balancer(["node"], quota=yours)
    with pytest.raises(NoNodeAvailable) as refusal:
        balancer.acquire()
    assert refusal.value.reasons == {"rate_limited": 1}
    assert refusal.value.retry_after is not None
    assert until(lambda: yours.try_acquire("node"))
    until(lambda: mine.cooldown_until("node") is None)


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
    assert yours.cooldown_until("node") is None


def test_a_pause_of_no_time_lifts_one_everywhere(share: Share) -> None:
    """`mark_exhausted(id, 0)` ends a cooldown for all processes, whichever of them began it."""
    mine, yours = share(rpm(10)), share(rpm(10))
    mine.mark_exhausted("node", 600.0)
    until(partial(rests, yours))
    yours.mark_exhausted("node", 0)
    until(partial(is_awake, mine))
    assert yours.try_acquire("node")


def test_a_pause_that_begins_after_one_was_lifted_holds_everywhere(share: Share) -> None:
    """That a cooldown was lifted ends no later one, of this process or of another."""
    mine, yours = hasten(share(rpm(10))), hasten(share(rpm(10)))
    for pauser, other in ((mine, yours), (yours, mine), (mine, yours)):
        pauser.mark_exhausted("node", 600.0)
        until(partial(rests, other))
        assert other.lift("node")
        until(partial(is_awake, pauser))
        other.mark_exhausted("node", 300.0)
        until(partial(rests, pauser))
        until_when = pauser.cooldown_until("node")
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
    assert yours.cooldown_until("node") is not None
    fragile.start()
    until(partial(is_awake, yours))
    assert mine.cooldown_until("node") is None
