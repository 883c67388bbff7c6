"""Waiters that cannot take a node, or are late to, keep nobody else from it."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Generator, Hashable, Mapping
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest
from tests.balancer.waiting.support import LONG, Waiting, until

from loadwise import Balancer, NoNodeAvailable, NoopCollector, QuotaTracker
from loadwise.testing import VirtualClock


async def wait_in(balancer: Balancer[str]) -> None:
    """Wait for a node, and let it go."""
    async with balancer.acquire_async(timeout=None):
        pass


@contextmanager
def abandoned(balancer: Balancer[str]) -> Generator[list[asyncio.Task[None]]]:
    """Have a task wait, and close its loop once the block is entered; give who holds the task."""
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(wait_in(balancer))]
    # Or it would complain of being pending, once it is collected.
    tasks[0]._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert balancer.waiting
    yield tasks
    tasks.clear()
    gc.collect()


def in_time(work: Callable[[], Any]) -> Any:
    """Return what a function returns in a thread of its own, which must not take for ever."""
    answers: list[Any] = []
    thread = Thread(target=lambda: answers.append(work()), daemon=True)
    thread.start()
    thread.join(LONG)
    assert not thread.is_alive()
    return answers[0]


def test_a_task_whose_loop_is_closed_is_passed_over() -> None:
    """Who ends a lease hears nothing of it, and the node is free for others."""
    balancer = Balancer(["a"], max_in_flight=1)
    held = balancer.acquire()
    with abandoned(balancer):
        assert held.success()
        assert balancer.acquire().success()
        assert not balancer.waiting


def test_a_thread_is_served_though_the_first_is_of_a_closed_loop() -> None:
    """Somebody else keeps the time, and is rung."""
    balancer = Balancer(["a"], max_in_flight=1)
    held = balancer.acquire()
    with abandoned(balancer):
        thread = Waiting(balancer)
        held.success()
        assert thread.result().success()
        until(lambda: not balancer.waiting)


def test_a_loop_that_is_blocked_holds_up_nobody() -> None:
    """Its task is the first, and cannot serve the others; they help themselves."""
    balancer = Balancer(["a", "b"], max_in_flight=1)
    held = {lease.node: lease for lease in (balancer.acquire(), balancer.acquire())}
    go_on = threading.Event()

    async def main() -> None:
        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        blocks.set()
        go_on.wait(LONG)
        await task

    async def wait() -> None:
        async with balancer.acquire_async(exclude={"b"}, timeout=None):
            pass

    blocks = threading.Event()
    blocked = Thread(target=lambda: asyncio.run(main()), daemon=True)
    blocked.start()
    assert blocks.wait(LONG)
    try:
        thread = Waiting(balancer)
        held["b"].success()
        lease = thread.result()
        assert lease.node == "b"
        assert lease.success()
    finally:
        go_on.set()
        held["a"].success()
        blocked.join(LONG)
    assert not blocked.is_alive()


def test_a_task_collected_while_nodes_are_looked_for_locks_nobody_out() -> None:
    """Its loop was closed before it took its node; collection ends it anywhere, in a lock, too."""
    balancer = Balancer(["a", "b"], max_in_flight=1)
    held = {lease.node: lease for lease in (balancer.acquire(), balancer.acquire())}
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(wait_in(balancer))]
    tasks[0]._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.run_until_complete(asyncio.sleep(0))
    held["a"].success()
    with pytest.raises(NoNodeAvailable):
        balancer.acquire()  # who was there before is given what is free
    loop.close()
    thread = Waiting(balancer, exclude={"a"})
    gc.disable()
    try:
        tasks.clear()

        def collects(_node: str) -> bool:
            gc.collect()
            return True

        assert in_time(lambda: refused(balancer, collects))
    finally:
        gc.enable()
    assert balancer.acquire().success()
    held["b"].success()
    assert thread.result().success()


def refused(balancer: Balancer[str], where: Callable[[str], bool]) -> bool:
    """Tell whether there is a node."""
    try:
        return balancer.acquire(where=where).success()
    except NoNodeAvailable:
        return True


def test_changes_that_nobody_looks_at_are_not_kept() -> None:
    """However many requests end while the first in the queue is of a closed loop."""
    balancer = Balancer(["a"], health=False)
    balancer.acquire().rate_limited(retry_after=60.0)
    with abandoned(balancer):
        assert balancer.lift("a")
        for _ in range(1000):
            balancer.acquire().success()
        assert len(balancer._queue._changes) <= 100


def test_a_pick_that_asks_a_slow_filter_holds_up_no_other() -> None:
    """Where nobody waits picks take no turns: a lock of the caller's would be held for ever."""
    balancer = Balancer(["a", "b"])
    asked, go_on = threading.Event(), threading.Event()

    def slow(_node: str) -> bool:
        asked.set()
        return go_on.wait(LONG)

    thread = Thread(target=lambda: balancer.pick(where=slow), daemon=True)
    thread.start()
    assert asked.wait(LONG)
    try:
        assert in_time(lambda: balancer.pick(exclude={"a"})) == "b"
    finally:
        go_on.set()
        thread.join(LONG)


class Interrupting(NoopCollector):
    """Is struck by Ctrl-C when it is told of a wait that was given up."""

    def on_wait(self, seconds: float, got: bool) -> None:  # noqa: FBT001 - as the collector's
        raise KeyboardInterrupt


@pytest.mark.usefixtures("_alarm")
def test_a_second_ctrl_c_while_a_collector_is_told_leaves_no_place() -> None:
    """Who gives up is out of the queue before anybody is told."""
    balancer = Balancer(["a"], max_in_flight=1, metrics=Interrupting())
    held = balancer.acquire()
    with pytest.raises(KeyboardInterrupt):
        balancer.acquire(timeout=None)
    assert not balancer.waiting
    held.success()
    assert balancer.acquire().success()


class Wrong(QuotaTracker):
    """Says that there is quota at once, and never gives any."""

    asked = 0

    def try_acquire(self, node_id: Hashable, amounts: Mapping[str, float] | None = None) -> None:
        self.asked += 1

    def available_at(self, node_id: Hashable, amounts: Mapping[str, float] | None = None) -> float:
        return self.clock()


def test_a_quota_that_tells_wrong_times_is_asked_less_and_less() -> None:
    """It may be on another machine, and keeps nobody busy."""
    clock = VirtualClock()
    quota = Wrong(clock)
    balancer = Balancer(["a"], quota=quota)
    with pytest.raises(NoNodeAvailable):
        balancer.acquire(timeout=10.0)
    assert clock() >= 10.0
    assert 100 < quota.asked < 300


class Passing:
    """A clock that goes on where one sleeps, and tells nobody."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_filters_that_take_their_time_are_not_asked_all_the_time() -> None:
    """Who waits looks again once a second, but not if that takes nearly as long."""
    clock = Passing()
    balancer = Balancer(["a", "b"], max_in_flight=1, clock=clock)
    held = [balancer.acquire(), balancer.acquire()]
    asked = 0

    def slow(_node: str) -> bool:
        nonlocal asked
        asked += 1
        clock.sleep(0.25)
        return True

    with pytest.raises(NoNodeAvailable):
        balancer.acquire(where=slow, timeout=100.0)
    assert 10 <= asked < 30
    for lease in held:
        lease.success()
