"""Attempts that wait for nodes which are full."""

from __future__ import annotations

import asyncio
import math
import threading
from typing import Any

import pytest
from tests.balancer.pacing.support import (
    STEADY,
    InOrder,
    Send,
    Sleeper,
    Tried,
    in_flight,
    send_sync,
)

from loadwise import (
    Balancer,
    Lease,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
)
from loadwise.balancer.acquiring import Acquiring


class Waiting(Balancer[str]):
    """A balancer that notes for how long it is asked to wait."""

    def __init__(self, sleeper: Sleeper) -> None:
        super().__init__(["a", "b"], InOrder(), clock=sleeper.clock, health=False)
        self.asked: list[tuple[str, float | None]] = []

    def acquire(self, *arguments: Any, **keywords: Any) -> Lease[str]:
        if "timeout" in keywords:
            self.asked.append(("acquire", keywords["timeout"]))
        return super().acquire(*arguments, **keywords)

    def acquire_async(self, *arguments: Any, **keywords: Any) -> Acquiring[str]:
        self.asked.append(("acquire_async", keywords["timeout"]))
        return super().acquire_async(*arguments, **keywords)


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({"timeout": 5.0}, [5.0, 5.0]),
        ({"timeout": None}, [math.inf, math.inf]),
        ({"timeout": 5.0, "deadline": 6.0}, [5.0, 4.0]),
        ({"timeout": None, "deadline": 6.0}, [6.0, 4.0]),
        ({"timeout": 0.0, "deadline": 6.0}, []),
        ({"timeout": 0, "backoff": STEADY}, []),
    ],
)
def test_the_timeout_is_that_of_acquire(
    send: Send, sleeper: Sleeper, keywords: dict[str, Any], expected: list[float | None]
) -> None:
    """Each attempt may wait for a node so long, but not past the deadline."""
    balancer = Waiting(sleeper)
    tried = Tried(1)

    def request(lease: Lease[str]) -> None:
        sleeper.clock.advance(2.0)
        tried(lease)

    send(sleeper.attempts(balancer, 2, **keywords), request)
    way = "acquire" if send is send_sync else "acquire_async"
    assert balancer.asked == [(way, each) for each in expected]
    assert tried.nodes == ["a", "b"]


def test_full_nodes_are_waited_for(send: Send) -> None:
    """With a timeout an attempt waits until a node has room: nobody is turned away."""
    balancer = Balancer(["a"], max_in_flight=1, health=False)
    most, done = [0], list[int]()

    def request(lease: Lease[str]) -> None:
        most.append(in_flight(balancer))

    def worker() -> None:
        for _ in range(25):
            send(balancer.attempts(1, timeout=60.0), request)
            done.append(1)

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (max(most), len(done)) == (1, 100)


def test_tasks_wait_for_full_nodes() -> None:
    """Those that wait let the one go on for which they wait."""

    async def main() -> None:
        balancer = Balancer(["a"], max_in_flight=1, health=False)

        async def request() -> None:
            for attempt in balancer.attempts(1, timeout=60.0):
                async with attempt:
                    await asyncio.sleep(0)

        await asyncio.gather(*(request() for _ in range(20)))
        assert balancer.status()[0].picks == 20

    asyncio.run(main())


def test_a_round_ends_where_the_others_are_full(send: Send, sleeper: Sleeper) -> None:
    """Without a timeout nobody waits for them; the next round finds who has room then."""
    balancer = sleeper.balancer("a", "b", max_in_flight=1)
    taken = balancer.acquire(exclude=["a"])
    tried = Tried(1)
    send(sleeper.attempts(balancer, 2, backoff=STEADY), tried)
    assert (tried.nodes, sleeper.slept) == (["a", "a"], [1.0])
    taken.success()


@pytest.mark.parametrize("max_waiting", [None, 0])
def test_a_new_round_waits_while_all_are_full(
    send: Send, sleeper: Sleeper, max_waiting: int | None
) -> None:
    """Nobody knows when there will be room, so it looks again after each pause."""
    balancer = sleeper.balancer("a", max_in_flight=1, max_waiting=max_waiting)
    taken = balancer.acquire()
    timeout = 0.0 if max_waiting is None else 60.0
    attempts = sleeper.attempts(balancer, 1, backoff=STEADY, timeout=timeout)
    assert attempts.pacing is not None
    sleep = attempts.pacing.sleep

    def until_there_is_room(seconds: float) -> None:
        sleep(seconds)
        if len(sleeper.slept) == 3:
            taken.success()

    async def until_there_is_room_async(seconds: float) -> None:
        until_there_is_room(seconds)

    attempts.pacing.sleep = until_there_is_room
    attempts.pacing.sleep_async = until_there_is_room_async
    tried = Tried(0)
    send(attempts, tried)
    assert (tried.nodes, sleeper.slept) == (["a"], [1.0, 2.0, 4.0])


def test_a_loop_of_words_goes_on_where_it_may_wait(send: Send, sleeper: Sleeper) -> None:
    """With all tried it ends, though it might wait: there is nobody to wait for."""
    tried = Tried(by_word=True)
    send(sleeper.attempts(Waiting(sleeper), 9, timeout=1.0), tried)
    assert tried.nodes == ["a", "b"]


def test_quota_that_comes_back_is_waited_for(send: Send, sleeper: Sleeper) -> None:
    """A request that no node can afford now is sent when one can."""
    quota = QuotaTracker(sleeper.clock)
    quota.register("a", QuotaConfig([QuotaDimension("rpm", limit=1, window=10.0)]))
    balancer = sleeper.balancer("a", quota=quota)
    for _ in range(2):
        send(sleeper.attempts(balancer, 1, backoff=STEADY, deadline=60.0), Tried(0))
    assert sum(sleeper.slept) >= 9.0
