"""Strategies and measures in forked children: they draw anew, and no lock outlives its holder."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import pytest
from tests.strategies.support import MAKERS, Server, picks

from loadwise import (
    Balancer,
    Endpoint,
    Filtered,
    HealthFilter,
    HealthTracker,
    InFlight,
    LeastLoad,
    NodeSet,
    Outcome,
    PeakEwma,
    PowerOfTwoChoices,
    Random,
    RoundRobin,
    WeightedRandom,
    WeightedRoundRobin,
)
from loadwise.strategies import ViewStrategy
from loadwise.testing import ManualClock

T = TypeVar("T")

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork"),
    # From Python 3.12 on a fork beside other threads warns of the very thing that is tested here.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

LOCK_TYPES = (type(threading.Lock()), type(threading.RLock()))


def in_child(work: Callable[[], T]) -> T:
    """Return what ``work`` returns in a forked child, which has 20 seconds for it."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(work()))
    child.start()
    sender.close()
    try:
        assert receiver.poll(20), "the child did not answer in time"
        answer: T = receiver.recv()
        return answer
    finally:
        child.kill()
        child.join(20)
        receiver.close()


def locks_of(root: object) -> list[Any]:
    """Return every lock that hangs on ``root``, by way of objects of loadwise and containers."""
    seen = {id(root)}
    found, waiting = [], [root]
    while waiting:
        for part in gc.get_referents(waiting.pop()):
            if id(part) in seen:
                continue
            seen.add(id(part))
            if isinstance(part, LOCK_TYPES):
                found.append(part)
            elif isinstance(part, dict | list | tuple) or (
                type(part).__module__.startswith("loadwise") and not isinstance(part, type)
            ):
                waiting.append(part)
    return found


@contextmanager
def held_elsewhere(locks: list[Any]) -> Iterator[None]:
    """Have another thread hold all ``locks``."""
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock)
            held.set()
            done.wait(timeout=60)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(timeout=20)
        yield
    finally:
        done.set()
        holder.join(timeout=20)


DRAWN: dict[str, tuple[Callable[[], ViewStrategy[Any]], int]] = {
    "Random": (Random, 20),
    "WeightedRandom": (WeightedRandom, 20),
    "LeastLoad": (lambda: LeastLoad(load=InFlight()), 20),
    "PowerOfTwoChoices": (lambda: PowerOfTwoChoices(load=InFlight()), 20),
}


@pytest.mark.parametrize(("make", "count"), DRAWN.values(), ids=DRAWN)
def test_children_draw_differently(make: Callable[[], ViewStrategy[Any]], count: int) -> None:
    """Workers of one parent do not all choose alike: 20 picks of 1,000 nodes, 1 in 10^60."""
    strategy, nodes = make(), NodeSet(Endpoint(i) for i in range(1000))
    picks(strategy, nodes, 1)
    drawn = [in_child(lambda: picks(strategy, nodes, count)) for _ in range(2)]
    drawn.append(picks(strategy, nodes, count))
    assert len({tuple(each) for each in drawn}) == 3


def test_children_begin_at_different_places() -> None:
    """With start=None forked workers begin anew, each elsewhere: 5 starts of 10,000, 1 in 10^20."""
    strategies = [RoundRobin[int](start=None) for _ in range(5)]
    nodes = NodeSet(range(10_000))
    starts = {tuple(strategy.select(nodes) for strategy in strategies)}
    for _ in range(2):
        starts.add(in_child(lambda: tuple(strategy.select(nodes) for strategy in strategies)))
    assert len(starts) == 3


def test_a_start_that_was_given_is_kept_in_children() -> None:
    """A fixed start is that of every child, whatever turns the parent took."""
    strategy, nodes = RoundRobin[str](start=2), NodeSet(list("abcde"))
    picks(strategy, nodes, 2)
    assert in_child(lambda: picks(strategy, nodes, 2)) == [2, 3]
    assert picks(strategy, nodes, 2) == [4, 0]


@pytest.mark.parametrize("load", [InFlight, PeakEwma])
def test_the_parents_requests_are_not_the_childs(
    load: type[InFlight | PeakEwma],
) -> None:
    """A child counts from zero; the parent's counts go on."""
    clock = ManualClock()
    measure: InFlight | PeakEwma = InFlight() if load is InFlight else PeakEwma(clock=clock)
    strategy, nodes = LeastLoad[str](load=measure), NodeSet(list("ab"))
    strategy.prepare(nodes)
    cell = measure.cell("a")
    cell.append(None)
    measure.observe(cell, 0.5, Outcome.SUCCESS, clock())
    before = strategy.facts(nodes)
    assert before["load"][0] > 0
    assert in_child(lambda: strategy.facts(nodes)) == {"load": [0, 0]}
    assert strategy.facts(nodes) == before


def test_what_the_parent_waits_for_does_not_age_in_the_child() -> None:
    """In a child nothing is waiting at a node that hangs in the parent, and it may be picked."""
    clock, measure = ManualClock(), PeakEwma()
    balancer = Balancer(list("ab"), LeastLoad(load=measure), clock=clock)
    with balancer.acquire(exclude=["a"]):
        clock.advance(0.1)
    lease = balancer.acquire(exclude=["b"])
    clock.advance(60.0)

    def look() -> tuple[list[float], str]:
        loads = [measure.load(measure.cell(node)) for node in "ab"]
        return loads, str(balancer.pick())

    loads, chosen = in_child(look)
    assert loads == [0.0, 0.0]
    assert chosen in {"a", "b"}
    assert look()[1] == "b"
    assert measure.waiting(measure.cell("a")) == {id(lease): 0.1}
    lease.success()


LOCKED: dict[str, Callable[[], ViewStrategy[Any]]] = {
    **MAKERS,
    "a schedule's": WeightedRoundRobin,
    "a filter's": lambda: Filtered(RoundRobin(), HealthFilter.available(HealthTracker())),
}


@pytest.mark.parametrize(("name", "make"), LOCKED.items(), ids=LOCKED)
def test_no_lock_outlives_its_holder(name: str, make: Callable[[], ViewStrategy[Any]]) -> None:
    """A child whose parent forked while another thread held every lock can still choose."""
    strategy = make()
    unit = 0.5 if name == "a schedule's" else 1
    nodes = NodeSet(Server(f"node-{i}", weight=unit * (i + 1)) for i in range(3))
    picks(strategy, nodes, 3)

    def work() -> list[int | None]:
        others = [Server("x"), Server("y")]
        strategy.prepare(nodes.without([0]))
        return picks(strategy, nodes, 3) + picks(strategy, others, 3, exclude={0})

    locks = locks_of(strategy)
    assert len(locks) >= (1 if name != "a schedule's" else 2)
    with held_elsewhere(locks):
        chosen = in_child(work)
    assert set(chosen[:3]) <= {0, 1, 2}
    assert chosen[3:] == [1, 1, 1]
