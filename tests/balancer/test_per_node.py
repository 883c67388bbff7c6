"""One object for each node: made once, whatever comes at the same time, and closed once."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import warnings
import weakref
from collections.abc import Callable
from threading import Barrier, Event, Thread
from typing import Any

import pytest
from tests.balancer.test_forked_balancer import in_child

from loadwise import (
    Balancer,
    Endpoint,
    InFlight,
    Lease,
    LeastLoad,
    LoadwiseError,
    NoopCollector,
    PeakEwma,
    PerNode,
    PowerOfTwoChoices,
    RoundRobin,
    by_id,
)
from loadwise.testing import ManualClock

SECONDS = 10.0
"""Longer than anything here takes, so that what hangs is a failure."""


class Thing:
    """An object that is made for a node, and tells what became of it."""

    def __init__(self, node: object) -> None:
        self.node = node
        self.closed = 0

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.closed += 1


WRONG: list[tuple[Any, ...]] = [(None,), (Thing, "close")]


class Maker:
    """Makes things, and remembers them."""

    def __init__(self, errors: int = 0) -> None:
        self.made: list[Thing] = []
        self.errors = errors

    def __call__(self, node: object) -> Thing:
        if self.errors:
            self.errors -= 1
            raise ConnectionError(f"{node} refused")
        self.made.append(Thing(node))
        return self.made[-1]

    async def later(self, node: object) -> Thing:
        await asyncio.sleep(0)
        return self(node)

    @property
    def closed(self) -> list[int]:
        return [thing.closed for thing in self.made]


STRATEGIES: dict[str, Callable[[], Any]] = {
    "in flight": lambda: LeastLoad(load=InFlight()),
    "ewma": lambda: LeastLoad(load=PeakEwma()),
    "two measures": lambda: TwoMeasures(),  # noqa: PLW0108 - defined below
}


class TwoMeasures(RoundRobin[Any]):
    """A strategy that has two measures fed."""

    def __init__(self) -> None:
        super().__init__()
        self._both = (InFlight(), PeakEwma())

    @property
    def measures(self) -> tuple[Any, ...]:
        return self._both


@pytest.fixture(params=[*STRATEGIES])
def balancer(request: pytest.FixtureRequest) -> Balancer[str]:
    """Two nodes, by strategies that count in different ways."""
    return Balancer(["a", "b"], STRATEGIES[request.param]())


def lease_of(balancer: Balancer[Any], node: str = "a") -> Lease[Any]:
    """Return an open lease on one node."""
    return balancer.acquire(where=by_id(node))


def test_each_node_has_its_own(balancer: Balancer[str]) -> None:
    """The object is made at the first use, and the same ever after."""
    make = Maker()
    per_node = PerNode(make, close=Thing.close)
    for _ in range(3):
        for node in "ab":
            with lease_of(balancer, node) as lease:
                assert per_node(lease) is per_node(lease)
                assert per_node(lease).node == node
    assert [thing.node for thing in make.made] == ["a", "b"]
    assert make.closed == [0, 0]


@pytest.mark.parametrize("order", ["lease first", "removal first"])
@pytest.mark.parametrize("way", ["remove", "replace"])
def test_it_is_closed_once_both_are_gone(balancer: Balancer[str], way: str, order: str) -> None:
    """When its node has left and the last lease has ended, in either order, and only then."""
    make = Maker()
    per_node = PerNode(make, close=Thing.close)
    leases = [lease_of(balancer) for _ in range(3)]
    per_node(leases[0])
    per_node(leases[1])
    later = lease_of(balancer)

    def leave() -> None:
        if way == "remove":
            balancer.remove("a")
        else:
            balancer.replace(["b", "c"])

    ends: list[Callable[[], object]] = [
        leases[2].success,
        leases[0].failure,
        leases[1].rate_limited,
        later.cancel,
    ]
    deeds = [*ends, leave] if order == "lease first" else [leave, *ends]
    for deed in deeds[:-1]:
        deed()
        assert make.closed == [0], "somebody may use it still"
    deeds[-1]()
    assert make.closed == [1]
    balancer.replace(["b"])
    assert make.closed == [1]
    assert [status.in_flight for status in balancer.status()] == [0]


def test_a_node_that_comes_back_is_another_one(balancer: Balancer[str]) -> None:
    """Removed and added again under the same id, while old leases are open, it has a new object."""
    make = Maker()
    per_node = PerNode(make, close=Thing.close)
    old = lease_of(balancer)
    first = per_node(old)
    balancer.remove("a")
    balancer.add("a")
    new = lease_of(balancer)
    assert per_node(new) is not first
    assert per_node(old) is first
    old.success()
    assert make.closed == [1, 0]
    new.success()
    assert make.closed == [1, 0]
    with lease_of(balancer) as lease:
        assert per_node(lease) is make.made[1]


def test_a_node_that_replace_keeps_keeps_its_object() -> None:
    """By its id, whatever else has changed."""
    make = Maker()
    per_node = PerNode(make, close=Thing.close)
    balancer = Balancer([Endpoint("a"), Endpoint("b")])
    with lease_of(balancer) as lease:
        kept = per_node(lease)
    balancer.replace([Endpoint("a", weight=5)])
    with lease_of(balancer) as lease:
        assert per_node(lease) is kept


def test_a_lease_that_never_asked_counts(balancer: Balancer[str]) -> None:
    """The last lease is the last, whether or not it was interested, and whenever it began."""
    make = Maker()
    per_node = PerNode(make, close=Thing.close)
    before, asking = lease_of(balancer), lease_of(balancer)
    per_node(asking)
    after = lease_of(balancer)
    balancer.remove("a")
    asking.success()
    after.success()
    assert make.closed == [0]
    before.success()
    assert make.closed == [1]


def test_a_dropped_lease_holds_nothing(balancer: Balancer[str]) -> None:
    """A lease that is dropped without a word is one that ended, as of the next request."""
    make = Maker()
    per_node = PerNode(make, close=Thing.close)
    lease = lease_of(balancer)
    per_node(lease)
    balancer.remove("a")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del lease
        gc.collect()
    balancer.pick()
    assert make.closed == [1]


def test_an_ended_lease_is_refused(balancer: Balancer[str]) -> None:
    """What it would be given might be closed, so it is told to ask before."""
    per_node = PerNode(Maker())
    lease = lease_of(balancer)
    per_node(lease)
    lease.success()
    with pytest.raises(LoadwiseError, match="the lease on 'a' has ended; ask for the object while"):
        per_node(lease)
    balancer.remove("a")
    assert per_node._stock.entries == {}


def test_a_make_that_raises_is_tried_again(balancer: Balancer[str]) -> None:
    """Its error reaches the caller; the next lease has another go."""
    make = Maker(errors=2)
    per_node = PerNode(make, close=Thing.close)
    for _ in range(2):
        with pytest.raises(ConnectionError, match="a refused"), lease_of(balancer) as lease:
            per_node(lease)
    with lease_of(balancer) as lease:
        assert per_node(lease) is make.made[0]


def test_many_threads_get_one_object(balancer: Balancer[str]) -> None:
    """Sixteen threads that come at once, all before it is there, make it once."""
    barrier, go = Barrier(17), Event()
    made: list[Thing] = []

    def make(node: str) -> Thing:
        assert go.wait(SECONDS)
        made.append(Thing(node))
        return made[-1]

    per_node = PerNode(make, close=Thing.close)
    got: list[object] = []

    def work() -> None:
        with lease_of(balancer) as lease:
            barrier.wait(SECONDS)
            got.append(per_node(lease))

    threads = [Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    barrier.wait(SECONDS)
    go.set()
    for thread in threads:
        thread.join(SECONDS)
    assert len(made) == 1
    assert got == made * 16


@pytest.mark.parametrize("error", [ConnectionError, KeyboardInterrupt])
def test_who_waits_for_a_make_that_fails(error: type[BaseException]) -> None:
    """They are told its error; where its thread was merely interrupted, another takes its place."""
    balancer = Balancer(["a"])
    entered, go = Event(), Event()
    calls: list[str] = []

    def make(node: str) -> Thing:
        calls.append(node)
        if len(calls) == 1:
            entered.set()
            assert go.wait(SECONDS)
            raise error("first")
        return Thing(node)

    per_node = PerNode(make)
    got: list[object] = []

    def work() -> None:
        try:
            with lease_of(balancer) as lease:
                got.append(per_node(lease))
        except BaseException as failed:  # noqa: BLE001 - looked at below
            got.append(failed)

    threads = [Thread(target=work) for _ in range(4)]
    threads[0].start()
    assert entered.wait(SECONDS)
    for thread in threads[1:]:
        thread.start()
    while len(balancer._fleet.view.slots[0].tokens.open) < 4:  # type: ignore[union-attr]
        threads[1].join(0.001)
    go.set()
    for thread in threads:
        thread.join(SECONDS)
    kinds = sorted(type(each).__name__ for each in got)
    if error is KeyboardInterrupt:
        assert kinds == ["KeyboardInterrupt", "Thing", "Thing", "Thing"]
        assert len(calls) == 2
    else:
        assert "ConnectionError" in kinds
        assert len(calls) <= 4


def test_a_make_that_asks_for_itself_is_told(balancer: Balancer[str]) -> None:
    """It would wait for itself for ever."""
    lease = lease_of(balancer)
    per_node: PerNode[str, Any] = PerNode(lambda _node: per_node(lease))
    with pytest.raises(LoadwiseError, match="make, while it made the object of node 'a', asked"):
        per_node(lease)
    lease.cancel()


def test_a_close_that_raises_is_logged(
    balancer: Balancer[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The request and the removal know nothing of it; the log does, and others are closed."""
    make = Maker()

    def broken(thing: Thing) -> None:
        thing.close()
        raise OSError("still busy")

    failing, sound = PerNode(make, close=broken), PerNode(make, close=Thing.close)
    with caplog.at_level(logging.ERROR, "loadwise"), lease_of(balancer) as lease:
        failing(lease)
        sound(lease)
        balancer.remove("a")
    assert make.closed == [1, 1]
    assert [record.getMessage() for record in caplog.records] == [
        "closing the object of node 'a' failed"
    ]
    assert "still busy" in caplog.text


def test_a_close_may_change_the_balancer(balancer: Balancer[str]) -> None:
    """It runs outside of all locks."""
    added: list[str] = []

    def close(thing: Thing) -> None:
        added.append("z")
        balancer.add("z")

    per_node = PerNode(Maker(), close=close)
    with lease_of(balancer) as lease:
        per_node(lease)
    worker = Thread(target=balancer.remove, args=("a",), daemon=True)
    worker.start()
    worker.join(SECONDS)
    assert balancer.nodes == ("b", "z")


def test_the_latency_is_without_the_closing() -> None:
    """The lease has been reported by then."""
    clock = ManualClock()
    seen: list[float | None] = []

    class Metrics(NoopCollector):
        def on_outcome(self, node_id: Any, outcome: Any, latency: float | None) -> None:
            seen.append(latency)

    balancer = Balancer(["a", "b"], clock=clock, metrics=Metrics())
    per_node = PerNode(Maker(), close=lambda _thing: clock.advance(5.0))
    lease = lease_of(balancer)
    per_node(lease)
    balancer.remove("a")
    clock.advance(1.0)
    assert lease.success()
    assert (seen, clock.now) == ([1.0], 6.0)


def test_all_are_closed_at_shutdown(balancer: Balancer[str]) -> None:
    """By `with` or `close`, whoever uses them; afterwards there are none to be had."""
    make = Maker()
    with PerNode(make, close=Thing.close) as per_node:
        lease, other = lease_of(balancer), lease_of(balancer, "b")
        per_node(lease)
        per_node(other)
    assert make.closed == [1, 1]
    per_node.close()
    with pytest.raises(LoadwiseError, match="this PerNode has been closed"):
        per_node(lease)
    lease.success()
    other.success()
    balancer.replace([])
    assert make.closed == [1, 1]


def test_it_keeps_no_balancer_alive() -> None:
    """A balancer that is dropped is gone, and its objects are closed at the next use."""
    make = Maker()
    per_node = PerNode(make, close=Thing.close)
    balancer: Any = Balancer(["a"])
    with balancer.acquire() as lease:
        per_node(lease)
    del lease
    gone = weakref.ref(balancer)
    del balancer
    gc.collect()
    assert gone() is None
    other = Balancer(["b"])
    with other.acquire() as lease:
        per_node(lease)
    assert make.closed == [1, 0]


def test_two_of_them_and_two_balancers_do_not_mix() -> None:
    """Each `PerNode` has an object for each member of each balancer."""
    make = Maker()
    one, two = PerNode(make, close=Thing.close), PerNode(make, close=Thing.close)
    shared = InFlight()
    balancers = [Balancer(["a"], LeastLoad(load=shared)) for _ in range(2)]
    leases = [balancer.acquire() for balancer in balancers]
    things = {per_node(lease) for per_node in (one, two) for lease in leases}
    assert len(things) == 4
    balancers[0].remove("a")
    leases[0].success()
    # They are counted together, so nobody knew that it was the last of its node's. It is closed
    # at the next use once nobody refers to it.
    del leases[0]
    one(leases[0])
    two(leases[0])
    assert sorted(make.closed) == [0, 0, 1, 1]
    one.close()
    assert sorted(make.closed) == [0, 1, 1, 1]
    leases[0].success()


def test_requests_that_begin_meanwhile_count_right() -> None:
    """Eight threads, membership in turmoil: each object is closed once, none while in use."""
    make = Maker()
    per_node = PerNode(make, close=Thing.close)
    balancer: Balancer[int] = Balancer(range(4), PowerOfTwoChoices(load=PeakEwma()))
    wrong: list[object] = []
    barrier = Barrier(9)

    def work() -> None:
        barrier.wait(SECONDS)
        try:
            for number in range(400):
                with balancer.acquire() as lease:
                    thing = per_node(lease)
                    if thing.closed or thing.node != lease.node:
                        wrong.append(thing)
                    if number % 3:
                        lease.cancel()
                    elif thing.closed:
                        wrong.append(thing)
        except Exception as error:  # noqa: BLE001 - reported by the thread that started this
            wrong.append(error)

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    barrier.wait(SECONDS)
    for _ in range(200):
        balancer.remove(0)
        balancer.add(0)
        balancer.replace([0, 1, 2, 3])
        balancer.remove(1)
        balancer.add(1)
    for thread in threads:
        thread.join(SECONDS)
    assert not wrong
    balancer.replace([])
    assert set(make.closed) == {1}
    assert per_node._stock.entries == {}
    assert [len(slot.in_flight) for slot in balancer._fleet.view.slots] == []
    balancer.replace(range(4))
    assert [status.in_flight for status in balancer.status()] == [0] * 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_makes_its_own_and_leaves_the_parents_alone(balancer: Balancer[str]) -> None:
    """In a fork nothing of the parent's is used or closed, whatever the child does."""
    make = Maker()
    per_node = PerNode(make, close=Thing.close)
    lease = lease_of(balancer)
    of_parent = per_node(lease)

    def child() -> list[object]:
        inherited = per_node(lease) is of_parent
        with lease_of(balancer) as mine:
            own = per_node(mine)
        balancer.replace(["b"])
        lease.success()
        after_leases = [thing.closed for thing in make.made]
        per_node.close()
        return [inherited, own is of_parent, after_leases, of_parent.closed]

    assert in_child(child) == [False, False, [0, 1, 1], 0]
    lease.success()
    assert make.closed == [0]
    balancer.remove("a")
    assert make.closed == [1]


def test_tasks_get_one_object() -> None:
    """A hundred tasks that come at once make it once, and it is closed by `aclose`."""
    make = Maker()

    async def main() -> None:
        balancer = Balancer(["a"])
        async with PerNode(make.later, close=Thing.aclose) as per_node:

            async def request() -> object:
                async with balancer.acquire() as lease:
                    return await per_node(lease)

            things = await asyncio.gather(*(request() for _ in range(100)))
            assert things == make.made * 100
            assert make.closed == [0]
        assert make.closed == [1]

    asyncio.run(main())


def test_a_cancelled_first_does_not_doom_the_others() -> None:
    """Whoever began it goes; those who wait get the object that was being made."""
    make = Maker()

    async def main() -> None:
        go = asyncio.Event()

        async def slow(node: str) -> Thing:
            await go.wait()
            return make(node)

        balancer = Balancer(["a"])
        per_node = PerNode(slow, close=Thing.aclose)

        async def request() -> Thing:
            async with balancer.acquire() as lease:
                return await per_node(lease)

        tasks = [asyncio.create_task(request()) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        go.set()
        assert await tasks[1] is await tasks[2] is make.made[0]
        await per_node.aclose()

    asyncio.run(main())
    assert make.closed == [1]


def test_what_nobody_waits_for_any_more_is_closed() -> None:
    """All who waited were cancelled and the node has left: the object is closed as it comes."""
    make = Maker()

    async def main() -> None:
        go = asyncio.Event()

        async def slow(node: str) -> Thing:
            await go.wait()
            return make(node)

        balancer = Balancer(["a"])
        per_node = PerNode(slow, close=Thing.aclose)

        async def request() -> None:
            async with balancer.acquire() as lease:
                await per_node(lease)

        task = asyncio.create_task(request())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        balancer.remove("a")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()
        for _ in range(10):
            await asyncio.sleep(0)
        assert make.closed == [1]
        assert per_node._stock.entries == {}

    asyncio.run(main())


def test_tasks_that_wait_are_told_an_error() -> None:
    """One failure is one: they share it, and the next lease tries again."""
    make = Maker(errors=1)

    async def main() -> None:
        balancer = Balancer(["a"])
        per_node = PerNode(make.later, close=Thing.aclose)

        async def request() -> Thing:
            async with balancer.acquire() as lease:
                return await per_node(lease)

        errors = await asyncio.gather(*(request() for _ in range(3)), return_exceptions=True)
        assert [type(error) for error in errors] == [ConnectionError] * 3
        assert await request() is make.made[0]
        await per_node.aclose()

    asyncio.run(main())
    assert make.closed == [1]


@pytest.mark.parametrize("later", [False, True], ids=["plain make", "awaited make"])
def test_it_is_closed_by_a_task_of_its_loop(later: bool) -> None:  # noqa: FBT001 - from pytest
    """Where ``close`` is to be awaited and the last lease ends by a plain call, also elsewhere."""
    make = Maker()

    async def main() -> None:
        balancer = Balancer(["a", "b"])
        per_node: PerNode[Any, Any] = PerNode(make.later if later else make, close=Thing.aclose)
        for node in "ab":
            async with lease_of(balancer, node) as lease:
                found = per_node(lease)
                assert (await found if later else found).node == node
        balancer.remove("a")
        await per_node.aclose()
        assert make.closed == [1, 1]

        per_node = PerNode(make.later if later else make, close=Thing.aclose)
        async with balancer.acquire() as lease:
            found = per_node(lease)
            thing = await found if later else found
        await asyncio.to_thread(balancer.remove, "b")
        for _ in range(10):
            await asyncio.sleep(0)
        assert thing.closed == 1

    asyncio.run(main())


def test_each_loop_has_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """An object of one loop is never given to another; of a closed one, it cannot be closed."""
    make = Maker()
    balancer = Balancer(["a"])
    per_node = PerNode(make.later, close=Thing.aclose)

    async def request() -> Thing:
        async with balancer.acquire() as lease:
            return await per_node(lease)

    with caplog.at_level(logging.WARNING, "loadwise"):
        one = asyncio.run(request())
        assert caplog.records == []
        two = asyncio.run(request())
    assert one is not two
    assert one.closed == 0
    [record] = caplog.records
    assert (
        "the object of node 'a' cannot be closed: its event loop is closed" in record.getMessage()
    )

    async def last() -> Thing:
        thing = await request()
        await per_node.aclose()
        return thing

    assert asyncio.run(last()).closed == 1


def test_what_waits_for_its_loop_is_closed_when_it_runs_again() -> None:
    """Between two runs of a loop it is kept, and closed by `aclose`."""
    make = Maker()
    balancer = Balancer(["a"])
    per_node = PerNode(make, close=Thing.aclose)

    async def request() -> Thing:
        async with balancer.acquire() as lease:
            return per_node(lease)

    with asyncio.Runner() as runner:
        thing = runner.run(request())
        balancer.remove("a")
        assert thing.closed == 0
        runner.run(per_node.aclose())
        assert thing.closed == 1


def test_an_awaited_close_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """As one that is not."""

    async def broken(_: Thing) -> None:
        raise OSError("still busy")

    async def main() -> None:
        balancer = Balancer(["a"])
        per_node = PerNode(Maker(), close=broken)
        async with balancer.acquire() as lease:
            per_node(lease)
        balancer.remove("a")
        await per_node.aclose()

    with caplog.at_level(logging.ERROR, "loadwise"):
        asyncio.run(main())
    assert "still busy" in caplog.text


def test_a_close_that_turns_out_to_be_awaited() -> None:
    """A lambda that returns a coroutine is awaited, too; `close` says that it cannot."""
    make = Maker()
    balancer = Balancer(["a"])
    per_node = PerNode(make, close=lambda thing: thing.aclose())
    with balancer.acquire() as lease:
        per_node(lease)
    with pytest.raises(
        LoadwiseError, match=r"to be awaited for 1 objects: use await per_node.aclo"
    ):
        per_node.close()
    asyncio.run(per_node.aclose())
    assert make.closed == [1]


@pytest.mark.parametrize(
    ("deed", "message"),
    [
        (lambda: PerNode(*WRONG[0]), "make is None; it must be a function of a node"),
        (lambda: PerNode(*WRONG[1]), "close is 'close'; it must be a function"),
    ],
)
def test_refuses_what_cannot_be_called(deed: Callable[[], object], message: str) -> None:
    """Where it is given."""
    with pytest.raises(TypeError, match=message):
        deed()


def test_a_node_is_no_lease() -> None:
    """Who gives the node is told what to give."""
    wrong: Any = "a"
    with pytest.raises(TypeError, match="lease is 'a'; give the lease, whose node it is about"):
        PerNode(Thing)(wrong)


def test_what_is_to_be_awaited_has_async_with() -> None:
    """A plain `with` or `close` could not close it, and says so beforehand."""
    per_node = PerNode(Maker().later, close=Thing.aclose)
    with pytest.raises(LoadwiseError, match="use async with"):
        per_node.__enter__()
    with pytest.raises(LoadwiseError, match=r"await per_node\.aclose"):
        per_node.close()


def test_a_coroutine_is_no_object() -> None:
    """A lambda around a coroutine function would give a coroutine to whoever comes first."""
    make, balancer = Maker(), Balancer(["a"])
    per_node: PerNode[str, Any] = PerNode(lambda node: make.later(node))  # noqa: PLW0108 - what is tested
    with (
        pytest.raises(TypeError, match="returned a coroutine for node 'a'; give the coroutine"),
        balancer.acquire() as lease,
    ):
        per_node(lease)


def test_a_make_that_awaits_its_own_object_is_told_so() -> None:
    """Its task would wait for itself, for ever."""
    balancer = Balancer(["a"])

    async def make(_node: str) -> object:
        with balancer.acquire() as lease:
            return await per_node(lease)

    per_node: PerNode[str, Any] = PerNode(make)

    async def main() -> None:
        with balancer.acquire() as lease:
            await asyncio.wait_for(per_node(lease), 10.0)

    with pytest.raises(LoadwiseError, match="asked for that very object"):
        asyncio.run(main())
