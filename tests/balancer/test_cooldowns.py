"""Cooldowns: who is on cooldown, until when, why, and how to end that."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from threading import Barrier, Thread
from typing import Any

import pytest

from loadwise import (
    Balancer,
    Cooldown,
    NodeStatus,
    NoNodeAvailable,
    NoopCollector,
    Outcome,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    UnknownNode,
)
from loadwise.testing import ManualClock


def cooldown_of(balancer: Balancer[Any], node: str = "a") -> Cooldown | None:
    """One member's cooldown."""
    statuses: dict[object, NodeStatus] = {status.id: status for status in balancer.status()}
    return statuses[node].cooldown


class Busy(Exception):  # noqa: N818 - as a client of the user's own may name it
    """What a client raises for a 429."""


@pytest.mark.parametrize("how", ["word", "said", "paused", "failure", "silent", "raised", "report"])
def test_the_reason_is_that_of_the_request(how: str) -> None:
    """However it was said, the status tells in words why a node is on cooldown, and how long."""
    clock = ManualClock(100.0)
    balancer = Balancer(
        ["a"], clock=clock, failures=lambda _: Outcome.RATE_LIMITED, panic_threshold=None
    )
    expected = {
        "word": (1.0, "rate limited"),
        "said": (2.5, "429 from the server, retry after 2.5 s"),
        "paused": (30.0, "rate limited, retry after 30 s"),
        "failure": (4.0, "failure: 503, retry after 4 s"),
        "silent": (4.0, "failure, retry after 4 s"),
        "raised": (1.0, "Busy: 429"),
        "report": (1.0, "too many"),
    }
    if how == "raised":
        with pytest.raises(Busy), balancer.acquire():
            raise Busy("429")
    elif how == "report":
        balancer.report("a", Outcome.RATE_LIMITED, reason="too many")
    else:
        lease = balancer.acquire()
        if how == "word":
            lease.rate_limited()
        elif how == "said":
            lease.rate_limited(2.5, "429 from the server")
        elif how == "paused":
            lease.rate_limited(30)
        elif how == "failure":
            lease.failure("503", 4.0)
        else:
            lease.failure(retry_after=4)
    seconds, reason = expected[how]
    found = cooldown_of(balancer)
    assert found == Cooldown(seconds, 100.0 + seconds, reason)
    clock.advance(seconds / 2)
    found = cooldown_of(balancer)
    assert found == Cooldown(seconds / 2, 100.0 + seconds, reason)
    told = balancer.explain()
    assert told.ineligible == {"a": "rate_limited"}
    assert told.cooldowns == {"a": found}
    assert f"'a': rate_limited ({reason}; {seconds / 2:.3g} s left)" in str(told)
    with pytest.raises(NoNodeAvailable, match=r"^no node .*: of 1 node 1 rate limited; retry"):
        balancer.pick()
    clock.advance(seconds / 2)
    assert cooldown_of(balancer) is None
    assert balancer.explain().cooldowns == {}
    assert balancer.pick() == "a"


def test_the_reason_is_that_of_the_longest() -> None:
    """A shorter cooldown changes neither the end nor the reason; a longer one changes both."""
    clock = ManualClock()
    quota = QuotaTracker(clock)
    balancer = Balancer(["a"], quota=quota, clock=clock)
    leases = [balancer.acquire() for _ in range(3)]
    leases[0].rate_limited(10.0, "first")
    leases[1].rate_limited(5.0, "second")
    assert cooldown_of(balancer) == Cooldown(10.0, 10.0, "first, retry after 10 s")
    leases[2].rate_limited(20.0, "third")
    assert cooldown_of(balancer) == Cooldown(20.0, 20.0, "third, retry after 20 s")
    quota.mark_exhausted("a", 30.0)
    assert cooldown_of(balancer) == Cooldown(30.0, 30.0, "marked as exhausted")
    clock.advance(40.0)
    quota.mark_exhausted("a", 1.0)
    assert cooldown_of(balancer) == Cooldown(1.0, 41.0, "marked as exhausted")


def test_a_node_out_of_quota_is_on_no_cooldown() -> None:
    """It is on cooldown as well, but for a reason that the quota tells."""
    quota = QuotaTracker(ManualClock())
    quota.register("a", QuotaConfig([QuotaDimension("rpm", limit=1)]))
    balancer = Balancer(["a"], quota=quota)
    balancer.acquire().success()
    assert cooldown_of(balancer) is None
    assert not balancer.lift("a")
    with pytest.raises(NoNodeAvailable, match="quota"):
        balancer.pick()


def test_to_lift_a_cooldown_ends_it_and_nothing_else() -> None:
    """Quota, health and drains are as before; picks see it at once."""
    clock = ManualClock()
    quota = QuotaTracker(clock)
    quota.register("a", QuotaConfig([QuotaDimension("rpm", limit=3)]))
    balancer = Balancer(["a", "b"], quota=quota, clock=clock)
    balancer.acquire(exclude=["b"]).failure("busy", 60.0)
    before = balancer.status()[0]
    with pytest.raises(NoNodeAvailable):
        balancer.pick(exclude=["b"])
    assert balancer.lift("a")
    assert not balancer.lift("a")
    after = balancer.status()[0]
    assert (before.cooldown is None, after.cooldown) == (False, None)
    assert after.quota_remaining == before.quota_remaining == {"rpm": 2}
    assert after.health_reason == before.health_reason
    assert balancer.pick(exclude=["b"]) == "a"
    balancer.drain("a")
    quota.mark_exhausted("a", 60.0)
    assert balancer.lift("a")
    assert balancer.status()[0].drained
    assert not balancer.lift("b")


def test_a_cooldown_after_one_that_was_lifted_has_its_own_reason() -> None:
    """Also if another has begun it, and it is over sooner."""
    clock = ManualClock()
    quota = QuotaTracker(clock)
    balancer = Balancer(["a"], quota=quota, clock=clock)
    balancer.acquire().rate_limited(60.0)
    balancer.lift("a")
    quota.mark_exhausted("a", 10.0)
    assert cooldown_of(balancer) == Cooldown(10.0, 10.0, "marked as exhausted")


def test_a_quota_that_is_used_up_still_rules_the_node_out() -> None:
    """The reason is another one then, and is told even where the end is the same."""
    clock = ManualClock()
    quota = QuotaTracker(clock)
    quota.register("a", QuotaConfig([QuotaDimension("rpm", limit=1, window=60.0, resolution=1)]))
    balancer = Balancer(["a"], quota=quota, clock=clock)
    balancer.acquire().rate_limited(60.0)
    assert balancer.explain().ineligible == {"a": "rate_limited"}
    version = quota.version
    assert balancer.lift("a")
    assert quota.version != version
    assert balancer.explain().ineligible == {"a": "quota"}
    with pytest.raises(NoNodeAvailable, match="1 quota"):
        balancer.pick()


def test_strangers_cannot_be_lifted() -> None:
    """The error names the balancer and the nearest id."""
    with pytest.raises(UnknownNode, match=r"'search' has no node with id 'nod-1'.*'node-1'"):
        Balancer(["node-1"], name="search").lift("nod-1")


class Own:
    """A source that has all of the protocol and nothing besides."""

    def __init__(self, quota: QuotaTracker) -> None:
        self._quota = quota

    def __getattr__(self, name: str) -> object:
        if name in ("lift", "changes", "changed_since"):
            raise AttributeError(name)
        return getattr(self._quota, name)


def test_a_source_of_ones_own_need_not_know_how_to_lift() -> None:
    """It works as ever; who asks for it is told what is missing, and nothing changes."""
    source: Any = Own(QuotaTracker(ManualClock()))
    balancer = Balancer(["a"], quota=source)
    assert not balancer.lift("a")
    balancer.acquire().rate_limited(60.0)
    with pytest.raises(TypeError, match=r"node 'a' cannot be lifted.*Own.*no lift\(node_id\)"):
        balancer.lift("a")
    found = cooldown_of(balancer)
    assert found is not None
    assert found.reason == "rate limited, retry after 60 s"


def test_a_lift_that_is_to_be_awaited_is_refused() -> None:
    """The balancer would not await it, and say that it was lifted."""

    class Later(QuotaTracker):
        async def lift(self, node_id: Hashable) -> bool:  # type: ignore[override]
            return True

    with pytest.raises(TypeError, match="whose lift is to be awaited"):
        Balancer(["a"], quota=Later())


class Diary(NoopCollector):
    """Writes down when cooldowns begin."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def on_cooldown(self, node_id: Hashable, seconds: float) -> None:
        self.events.append((node_id, seconds))


def test_collectors_hear_when_a_cooldown_begins() -> None:
    """Once, though it is prolonged; again after it is over, or was lifted."""
    clock, diary = ManualClock(), Diary()
    balancer = Balancer(["a"], clock=clock, metrics=diary)
    leases = [balancer.acquire() for _ in range(3)]
    leases[0].rate_limited(2.0)
    leases[1].rate_limited(5.0)
    leases[2].failure("x", 1.0)
    assert diary.events == [("a", 2.0)]
    clock.advance(5.0)
    balancer.acquire().failure("x", 3.0)
    balancer.lift("a")
    balancer.report("a", Outcome.RATE_LIMITED)
    assert diary.events == [("a", 2.0), ("a", 3.0), ("a", 1.0)]
    clock.advance(1.0)
    balancer.acquire().rate_limited(0.0)
    assert len(diary.events) == 3


def test_requests_refused_at_once_are_one_cooldown() -> None:
    """Threads that all hear a 429 begin it once."""
    for _ in range(30):
        diary, start = Diary(), Barrier(4, timeout=20)
        balancer = Balancer(["a"], metrics=diary)
        leases = [balancer.acquire() for _ in range(4)]

        def work(number: int, leases: list[Any] = leases, start: Barrier = start) -> None:
            start.wait()
            leases[number].rate_limited(30.0)

        threads = [Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=20)
        assert diary.events == [("a", 30.0)]


def test_to_lift_a_cooldown_wakes_who_waits_for_its_end() -> None:
    """The request that waits gets the node at once, and the collector hears that it waited."""
    waits: list[bool] = []

    class Waits(NoopCollector):
        def on_wait(self, seconds: float, got: bool) -> None:  # noqa: FBT001 - as it is called
            waits.append(got)

    balancer = Balancer(["a"], clock=ManualClock(), metrics=Waits())
    balancer.acquire().rate_limited(600.0)

    async def request() -> bool:
        async with balancer.acquire_async(timeout=None) as lease:
            return lease.success()

    async def main() -> bool:
        task = asyncio.create_task(request())
        await turns()
        assert balancer.status_dict()["waiting"] == 1
        assert balancer.lift("a")
        await turns()
        assert task.done()  # though it would have looked again by itself, later
        return await task

    async def turns() -> None:
        for _ in range(10):  # of the loop; the request needs one or two
            await asyncio.sleep(0)

    assert asyncio.run(main())
    assert waits == [True]
