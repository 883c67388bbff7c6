"""Requests that wait for a node get it in order, in time, and lose nothing on the way."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import threading
import time
import warnings
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

import pytest
import trio
from tests.balancer.test_lease import strike_at
from tests.compiled import wrong_type

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    Endpoint,
    HealthTracker,
    Lease,
    NoNodeAvailable,
    NoopCollector,
    Outcome,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    RoundRobin,
    SelectionContext,
)
from loadwise.testing import ManualClock

LONG = 20.0
"""Seconds after which a test gives up."""


class Waits(NoopCollector):
    """Remembers what it is told of waits."""

    def __init__(self) -> None:
        self.told: list[tuple[float, bool]] = []
        self.reasons: list[str] = []

    def on_wait(self, seconds: float, got: bool) -> None:  # noqa: FBT001 - as the collector's
        self.told.append((seconds, got))

    def on_unavailable(self, reason: str) -> None:
        self.reasons.append(reason)


class Waiting:
    """A thread that waits for a node."""

    def __init__(self, balancer: Balancer[Any], **keywords: Any) -> None:
        self.lease: Lease[Any] | None = None
        self.error: BaseException | None = None
        self._thread = Thread(target=self._work, args=(balancer, keywords), daemon=True)
        before = balancer.waiting
        self._thread.start()
        until(lambda: balancer.waiting > before or not self._thread.is_alive())

    def _work(self, balancer: Balancer[Any], keywords: dict[str, Any]) -> None:
        try:
            self.lease = balancer.acquire(**{"timeout": None, **keywords})
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    @property
    def waits(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> Lease[Any]:
        self._thread.join(LONG)
        assert not self.waits
        if self.error is not None:
            raise self.error
        assert self.lease is not None
        return self.lease


def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds, not for ever."""
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.0005)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine, not for ever."""
    return asyncio.run(asyncio.wait_for(coroutine, LONG))


def test_a_freed_node_goes_to_the_longest_waiting() -> None:
    """In order of arrival, one each."""
    balancer = Balancer(["a"], max_in_flight=1)
    held = balancer.acquire()
    waiting = [Waiting(balancer) for _ in range(5)]
    assert balancer.waiting == 5
    for each in waiting:
        held.success()
        held = each.result()
        assert [other.waits for other in waiting].count(True) == balancer.waiting
    held.success()
    assert not balancer.waiting


def test_nobody_waits_behind_one_that_the_node_cannot_serve() -> None:
    """A request for one node does not hold up those for another, and keeps its place."""
    balancer = Balancer(["a", "b"], max_in_flight=1)
    held = {lease.node: lease for lease in (balancer.acquire(), balancer.acquire())}
    picky = Waiting(balancer, exclude=["b"])
    other = Waiting(balancer, where=lambda node: node == "b")
    plain = Waiting(balancer)
    held.pop("b").success()
    held["b"] = other.result()
    assert picky.waits
    assert plain.waits
    held.pop("a").success()
    held["a"] = picky.result()
    held.pop("b").success()
    held["b"] = plain.result()
    for lease in held.values():
        lease.success()


def test_who_does_not_wait_never_overtakes() -> None:
    """A node that is free goes to those who wait first."""
    balancer = Balancer(["a"], max_in_flight=1)
    held = balancer.acquire()
    waiting = [Waiting(balancer) for _ in range(3)]
    for each in waiting:
        held.success()
        with pytest.raises(NoNodeAvailable):
            balancer.acquire()
        with pytest.raises(NoNodeAvailable):
            balancer.pick()
        held = each.result()
    held.success()
    assert balancer.acquire().success()


def test_time_runs_out() -> None:
    """The error says why, the wait is told, and the place is free."""
    waits = Waits()
    balancer = Balancer(["a"], max_in_flight=1, metrics=waits)
    held = balancer.acquire()
    with pytest.raises(NoNodeAvailable, match="1 full"):
        balancer.acquire(timeout=0.01)
    [(seconds, got)] = waits.told
    assert seconds >= 0.01
    assert not got
    assert waits.reasons == ["full"]
    assert not balancer.waiting
    held.success()
    assert balancer.acquire(timeout=0.01).success()
    assert len(waits.told) == 1  # it did not have to wait


@pytest.mark.parametrize(
    ("balancer", "keywords", "reason"),
    [
        (lambda: Balancer([]), {}, "empty"),
        (lambda: Balancer(["a"]), {"exclude": ["a"]}, "excluded"),
        (lambda: Balancer(["a"]), {"where": lambda _: False}, "filtered"),
        (lambda: Balancer(["a"], where=lambda _: False), {}, "filtered"),
        (lambda: Balancer([Endpoint("a", weight=0)]), {}, "drained"),
    ],
)
def test_what_time_cannot_mend_raises_at_once(
    balancer: Callable[[], Balancer[Any]], keywords: dict[str, Any], reason: str
) -> None:
    """Whatever the timeout, in threads and in tasks."""

    async def in_task() -> None:
        await balancer().acquire_async(timeout=None, **keywords)

    with pytest.raises(NoNodeAvailable) as refused:
        balancer().acquire(timeout=None, **keywords)
    assert refused.value.reason == reason
    with pytest.raises(NoNodeAvailable) as refused:
        run(in_task())
    assert refused.value.reason == reason


def test_a_cost_beyond_every_limit_raises_at_once() -> None:
    """Such quota never comes."""
    quota = QuotaTracker()
    quota.register("a", QuotaConfig([QuotaDimension("tpm", limit=10, window=60.0)]))
    balancer = Balancer(["a"], quota=quota)
    with pytest.raises(NoNodeAvailable, match="quota"):
        balancer.acquire(cost={"tpm": 11}, timeout=None)


@pytest.mark.parametrize("wrong", [-1, -0.001, float("nan")])
def test_wrong_timeouts(wrong: float) -> None:
    """They are refused also where nobody would have to wait."""
    balancer = Balancer(["a"])
    with pytest.raises(ValueError, match="timeout is"):
        balancer.acquire(timeout=wrong)
    with pytest.raises(ValueError, match="timeout is"):
        balancer.acquire_async(timeout=wrong)
    with pytest.raises(TypeError, match=wrong_type("timeout is 'x'; it must be a number")):
        balancer.acquire(timeout="x")  # type: ignore[arg-type]


@pytest.mark.parametrize("most", [0, 1, 3])
def test_the_queue_is_bounded(most: int) -> None:
    """Beyond it requests are refused at once, with a reason of its own."""
    waits = Waits()
    balancer = Balancer(["a", "b"], max_in_flight=1, max_waiting=most, metrics=waits)
    held = [balancer.acquire(), balancer.acquire()]
    waiting = [Waiting(balancer) for _ in range(most)]
    with pytest.raises(NoNodeAvailable, match="2 waited for by too many") as refused:
        balancer.acquire(timeout=None)
    assert refused.value.reason == "queue"
    assert waits.reasons == ["queue"]
    assert not waits.told  # for it did not wait
    for each in waiting:
        held.pop(0).success()
        held.append(each.result())
    for lease in held:
        lease.success()
    with pytest.raises(ValueError, match="max_waiting is -1; it must be at least 0"):
        Balancer(["a"], max_waiting=-1)


def test_a_cooldown_a_quota_and_a_probe_are_waited_for() -> None:
    """What comes by time alone comes when the clock gets there, and no sooner."""
    clock = ManualClock()
    quota = QuotaTracker(clock)
    quota.register("a", QuotaConfig([QuotaDimension("rpm", limit=1, window=60.0)]))
    health = HealthTracker(ConsecutiveFailurePolicy(probe_interval=10.0), clock=clock)
    balancer = Balancer(["a"], quota=quota, health=health, panic_threshold=None, clock=clock)
    balancer.acquire().rate_limited(5.0)
    each = Waiting(balancer)
    clock.advance(59.9)
    assert each.waits
    clock.advance(0.2)
    each.result().success()
    clock.advance(61.0)
    for _ in range(3):
        health.report_failure("a")
    each = Waiting(balancer)
    clock.advance(9.9)
    assert each.waits
    clock.advance(0.2)
    each.result().success()


def test_nodes_that_come_back_together_serve_as_many_as_they_can() -> None:
    """One change may be enough for several who wait."""
    clock = ManualClock()
    balancer = Balancer(["a", "b", "c"], max_in_flight=1, clock=clock)
    for lease in [balancer.acquire() for _ in range(3)]:
        lease.rate_limited(5.0)
    waiting = [Waiting(balancer) for _ in range(4)]
    clock.advance(5.0)
    held = [each.result() for each in waiting[:3]]
    assert {lease.node for lease in held} == {"a", "b", "c"}
    assert waiting[3].waits
    for lease in held:
        lease.success()
    waiting[3].result().success()


def test_a_deadline_goes_by_the_balancers_clock() -> None:
    """So tests of a user's own need not sleep."""
    clock = ManualClock()
    balancer = Balancer(["a"], max_in_flight=1, clock=clock)
    held = balancer.acquire()
    each = Waiting(balancer, timeout=3.0)
    clock.advance(2.9)
    assert each.waits
    clock.advance(0.1)
    with pytest.raises(NoNodeAvailable):
        each.result()
    held.success()


def test_a_real_cooldown_is_slept_through() -> None:
    """The first in the queue wakes by itself."""
    balancer = Balancer(["a"])
    balancer.acquire().rate_limited(0.05)
    started = time.monotonic()
    with balancer.acquire(timeout=LONG) as lease:
        assert lease.node == "a"
    assert 0.03 < time.monotonic() - started < 0.9  # not only when it looks again anyway


@pytest.mark.parametrize(
    "change",
    [
        lambda balancer: balancer.add("b"),
        lambda balancer: balancer.replace(["b"]),
        lambda balancer: balancer.resume("c"),
    ],
)
def test_members_that_come_serve_those_who_wait(change: Callable[[Balancer[str]], None]) -> None:
    """Nobody has to end for that."""
    balancer = Balancer(["a", "c"], max_in_flight=1)
    balancer.drain("c")
    held = balancer.acquire()
    each = Waiting(balancer)
    change(balancer)
    assert each.result().success()
    held.success()


def test_members_that_go_leave_nobody_waiting_in_vain() -> None:
    """What no time can mend any more is said at once."""
    balancer = Balancer(["a"], max_in_flight=1)
    held = balancer.acquire()
    each = Waiting(balancer)
    balancer.remove("a")
    with pytest.raises(NoNodeAvailable, match="it has no nodes"):
        each.result()
    held.success()


def test_a_context_that_excludes_by_index_excludes_the_same_nodes_later() -> None:
    """Indices change with the members, so they are taken for the ids they stood for."""
    balancer = Balancer(["a", "b"], max_in_flight=1)
    held = {lease.node: lease for lease in (balancer.acquire(), balancer.acquire())}
    each = Waiting(balancer, context=SelectionContext(exclude=frozenset({1})))
    balancer.replace(["b", "c", "a"])
    lease = each.result()
    assert lease.node == "c"
    lease.success()
    for lease in held.values():
        lease.success()


def test_the_end_of_a_probe_is_waited_for() -> None:
    """A node whose one probe is under way may come back by it."""
    clock = ManualClock()
    balancer = Balancer(["a"], panic_threshold=None, clock=clock)
    for _ in range(3):
        balancer.report("a", Outcome.FAILURE)
    clock.advance(10.0)
    probe = balancer.acquire()
    each = Waiting(balancer)
    probe.success()
    assert each.result().success()


def test_quota_given_back_is_waited_for() -> None:
    """A settlement frees what the estimate took too much."""
    clock = ManualClock()
    quota = QuotaTracker(clock)
    quota.register("a", QuotaConfig([QuotaDimension("tpm", limit=100, window=60.0)]))
    balancer = Balancer(["a"], quota=quota, clock=clock)
    lease = balancer.acquire(cost={"tpm": 80})
    each = Waiting(balancer, cost={"tpm": 50})
    less = Waiting(balancer, cost={"tpm": 20})
    less.result().success()
    assert each.waits
    lease.success()
    lease.settle({"tpm": 10})
    each.result().success()


def test_a_dropped_lease_wakes_who_waits() -> None:
    """Its slot is given back in the middle of anything."""
    balancer = Balancer(["a"], max_in_flight=1)
    held: Lease[str] | None = balancer.acquire()
    assert held is not None
    each = Waiting(balancer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        held = None
        gc.collect()
    assert each.result().success()


def test_a_filter_that_fails_fails_its_own_request() -> None:
    """Not the one at whose end it was asked."""
    balancer = Balancer(["a"], max_in_flight=1)
    held = balancer.acquire()
    calls: list[str] = []

    def where(node: str) -> bool:
        calls.append(node)
        if len(calls) > 2:
            raise KeyError(node)
        return True

    broken = Waiting(balancer, where=where)
    plain = Waiting(balancer)
    assert held.success()
    with pytest.raises(KeyError):
        broken.result()
    assert plain.result().success()


def test_a_request_within_the_search_for_another_is_served_or_refused() -> None:
    """A filter that asks the same balancer gets no further than an answer."""
    balancer = Balancer(["a", "b"], max_in_flight=1)
    held = [balancer.acquire(), balancer.acquire()]
    errors: list[BaseException] = []

    def where(node: str) -> bool:
        if balancer.waiting:
            try:
                balancer.acquire(timeout=1.0).cancel()
            except (NoNodeAvailable, RuntimeError) as error:
                errors.append(error)
        return node == "a"

    each = Waiting(balancer, where=where)
    for lease in held:
        lease.success()
    assert each.result().success()
    assert any(isinstance(error, RuntimeError) for error in errors)


def test_a_thread_with_an_event_loop_is_told_what_to_await() -> None:
    """To wait there would stop the loop; what need not wait is given."""
    balancer = Balancer(["a"], max_in_flight=1)

    async def work() -> None:
        lease = balancer.acquire(timeout=1.0)
        with pytest.raises(RuntimeError, match=r"await acquire_async\(timeout=...\) instead"):
            balancer.acquire(timeout=1.0)
        lease.success()

    run(work())
    trio.run(work)


def test_a_task_needs_a_loop_to_wait_in() -> None:
    """Elsewhere there is nothing to wake it; what need not wait is given."""
    balancer = Balancer(["a"], max_in_flight=1)

    def drive(awaitable: Any) -> Any:
        steps = awaitable.__await__()
        try:
            next(steps)
        except StopIteration as end:
            return end.value
        raise AssertionError

    lease = drive(balancer.acquire_async())
    with pytest.raises(RuntimeError, match="asyncio or trio"):
        drive(balancer.acquire_async(timeout=1.0))
    lease.success()


def test_a_lease_to_come_is_awaited_once() -> None:
    """A second time it would take another slot, of which nobody knows."""
    balancer = Balancer(["a"], max_in_flight=2)

    async def work() -> None:
        coming = balancer.acquire_async()
        lease = await coming
        with pytest.raises(RuntimeError, match="awaited already; call acquire_async"):
            await coming
        with pytest.raises(RuntimeError, match="awaited already"):
            async with coming:
                pass
        assert balancer.status()[0].in_flight == 1
        lease.success()

    run(work())


def test_tasks_wait_in_order() -> None:
    """With `await` and with ``async with``, in asyncio."""
    balancer = Balancer(["a"], max_in_flight=1)
    order: list[int] = []

    async def work(number: int) -> None:
        if number % 2:
            async with balancer.acquire_async(timeout=None) as lease:
                order.append(number)
                await asyncio.sleep(0)
                assert lease.node == "a"
            return
        with await balancer.acquire_async(timeout=LONG):
            order.append(number)
            await asyncio.sleep(0)

    async def all_of_them() -> None:
        await asyncio.gather(*[work(number) for number in range(50)])

    run(all_of_them())
    assert order == list(range(50))


def test_tasks_of_trio_wait_in_order() -> None:
    """And those that are cancelled lose their place."""
    balancer = Balancer(["a"], max_in_flight=1)
    order: list[int] = []

    async def work(number: int) -> None:
        with trio.move_on_after(0.01 if number == 3 else LONG):
            async with balancer.acquire_async(timeout=None):
                order.append(number)
                await trio.sleep(0.0)

    async def all_of_them() -> None:
        async with trio.open_nursery() as nursery:
            held = balancer.acquire()
            for number in range(10):
                nursery.start_soon(work, number)
                await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(0.02)
            held.success()

    trio.run(all_of_them)
    assert order == [0, 1, 2, 4, 5, 6, 7, 8, 9]


def test_a_timeout_in_a_task() -> None:
    """The place is free, and the error says why."""
    balancer = Balancer(["a"], max_in_flight=1)

    async def work() -> None:
        held = balancer.acquire()
        with pytest.raises(NoNodeAvailable, match="1 full"):
            await balancer.acquire_async(timeout=0.01)
        with pytest.raises(NoNodeAvailable, match="1 full"):
            await balancer.acquire_async()
        assert not balancer.waiting
        held.success()

    run(work())


def test_a_cancelled_task_loses_its_place_and_no_slot() -> None:
    """Before it is given a node, and at the very moment."""
    waits = Waits()
    balancer = Balancer(["a"], max_in_flight=1, metrics=waits)

    async def work() -> None:
        held = balancer.acquire()
        tasks = [asyncio.ensure_future(balancer.acquire_async(timeout=None)) for _ in range(4)]
        await asyncio.sleep(0)
        assert balancer.waiting == 4
        tasks[1].cancel()
        await asyncio.sleep(0)
        held.success()  # wakes the first
        tasks[0].cancel()  # which has not run since
        held = await tasks[2]
        assert balancer.waiting == 1
        held.success()
        (await tasks[3]).success()
        assert tasks[0].cancelled()
        assert tasks[1].cancelled()

    run(work())
    assert [got for _, got in waits.told].count(True) == 2
    assert balancer.acquire().success()


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


@pytest.fixture
def _alarm() -> Iterator[None]:
    """Raise KeyboardInterrupt a moment from now in the main thread, as Ctrl-C does."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


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
