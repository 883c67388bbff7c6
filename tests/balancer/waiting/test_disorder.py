"""Requests that wait while others come, go, are interrupted and fork lose nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager, suppress
from threading import Thread

import pytest
from tests.balancer.interrupting import strike_at
from tests.balancer.waiting.support import LONG, Waiting, run

from loadwise import (
    Balancer,
    NoNodeAvailable,
    RoundRobin,
)


class Holders:
    """Counts who holds a node, in threads and in tasks."""

    def __init__(self) -> None:
        self.most = {"a": 0, "b": 0}
        self.served: list[str] = []
        self._holding = {"a": 0, "b": 0}
        self._lock = threading.Lock()

    @contextmanager
    def hold(self, node: str, whose: str) -> Generator[None, None, None]:
        with self._lock:
            self._holding[node] += 1
            self.most[node] = max(self.most[node], self._holding[node])
            self.served.append(whose)
        try:
            yield
        finally:
            with self._lock:
                self._holding[node] -= 1


def fail_at_times(number: int) -> None:
    """Raise for one number of seven."""
    if number % 7 == 0:
        raise ValueError


def test_threads_and_tasks_share_two_slots() -> None:
    """Eight threads and a thousand tasks, with cancellations and errors: all are served."""
    balancer = Balancer(["a", "b"], max_in_flight=1, health=False)
    holders = Holders()

    def in_thread(number: int) -> None:
        for turn in range(40):
            with (
                suppress(ValueError),
                balancer.acquire(timeout=LONG) as lease,
                holders.hold(lease.node, "thread"),
            ):
                fail_at_times(number + turn)

    async def in_task(number: int) -> None:
        async with balancer.acquire_async(timeout=LONG) as lease:
            with holders.hold(lease.node, "task"):
                await asyncio.sleep(0)
                fail_at_times(number)

    async def all_tasks() -> int:
        tasks = [asyncio.ensure_future(in_task(number)) for number in range(1000)]
        for number in range(20):
            await asyncio.sleep(0)
            tasks[random.Random(number).randrange(1000)].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        return sum(isinstance(each, asyncio.CancelledError) for each in done)

    threads = [Thread(target=in_thread, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    cancelled = run(all_tasks())
    for thread in threads:
        thread.join(LONG)
    assert not any(thread.is_alive() for thread in threads)
    assert holders.served.count("thread") == 320
    assert 1000 - cancelled <= holders.served.count("task") <= 1000
    assert holders.most == {"a": 1, "b": 1}
    assert not balancer.waiting
    held = [balancer.acquire(), balancer.acquire()]
    assert {lease.node for lease in held} == {"a", "b"}
    for lease in held:
        lease.success()


def test_members_change_while_threads_wait() -> None:
    """Nodes come and go, are drained and come back: no slot and no place is lost."""
    balancer = Balancer(["a", "b", "c"], RoundRobin(), max_in_flight=1)
    done: list[int] = []

    def work() -> None:
        for number in range(80):
            with balancer.acquire(timeout=LONG):
                done.append(number)

    threads = [Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    draw = random.Random(1)
    while any(thread.is_alive() for thread in threads):
        if draw.random() < 0.5:
            balancer.replace(draw.choice([["a"], ["a", "b"], ["b", "c", "a"], ["c", "a"]]))
        else:
            balancer.drain("a")
            balancer.resume("a")
    for thread in threads:
        thread.join(LONG)
    assert len(done) == 480
    balancer.replace(["a", "b", "c"])
    held = [balancer.acquire() for _ in range(3)]
    for lease in held:
        lease.success()
    assert not balancer.waiting


@pytest.mark.usefixtures("_alarm")
def test_ctrl_c_ends_a_wait() -> None:
    """And leaves no place behind."""
    balancer = Balancer(["a"], max_in_flight=1)
    held = balancer.acquire()
    with pytest.raises(KeyboardInterrupt):
        balancer.acquire(timeout=None)
    assert not balancer.waiting
    held.success()
    assert balancer.acquire().success()


def test_ctrl_c_anywhere_in_a_wait_loses_nothing() -> None:
    """In joining, in serving, in taking what was given: the slot is free again each time."""
    balancer = Balancer(["a", "b"], max_in_flight=1)

    def work() -> None:
        held = [balancer.acquire(), balancer.acquire()]
        try:
            with pytest.raises(NoNodeAvailable):
                balancer.acquire(timeout=1e-9)
        finally:
            for lease in held:
                lease.success()
        balancer.acquire(timeout=1.0).success()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        place = 0
        while strike_at(place, work):
            place += 1
            gc.collect(0)
            assert not balancer.waiting, place
            held = [balancer.acquire(), balancer.acquire()]
            for lease in held:
                lease.success()
            assert place < 5000
    assert place > 100


def test_ctrl_c_while_others_are_served_loses_nobody() -> None:
    """The one who serves may be struck down: those who wait are served all the same."""
    balancer = Balancer(["a"], max_in_flight=1)
    place = 0
    while place < 200:
        held = balancer.acquire()
        waiting = [Waiting(balancer), Waiting(balancer)]
        held.success()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)

            def ask() -> None:
                try:
                    balancer.acquire().success()
                except NoNodeAvailable:
                    return

            struck = strike_at(place, ask)
        for each in waiting:
            each.result().success()
        place += 3
        if not struck:
            break
    assert balancer.acquire().success()


def test_nobody_waits_in_a_forked_child() -> None:
    """The parent's threads are not there, and its requests are not the child's."""
    if not hasattr(os, "fork"):
        pytest.skip("there is no fork on this system")
    balancer = Balancer(["a"], max_in_flight=1)
    held = balancer.acquire()
    each = Waiting(balancer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads and fork
        child = os.fork()
    if not child:
        code = 1
        try:
            lease = balancer.acquire(timeout=1.0)
            code = 0 if not balancer.waiting else 2
            lease.success()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert each.waits
    held.success()
    assert each.result().success()
