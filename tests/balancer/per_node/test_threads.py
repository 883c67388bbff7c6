"""One object for each node, whichever threads and processes ask for it."""

from __future__ import annotations

import os
from threading import Barrier, Event, Thread
from typing import Any

import pytest
from tests.balancer.per_node.support import SECONDS, Maker, Thing, lease_of
from tests.balancer.test_forked_balancer import in_child

from loadwise import (
    Balancer,
    LoadwiseError,
    PeakEwma,
    PerNode,
    PowerOfTwoChoices,
)


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
