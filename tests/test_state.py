"""The store for one process."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Thread, current_thread
from typing import Any

import pytest

from loadwise import Endpoint, InMemoryStore, StateStore

THREADS = 8
TIMEOUT = 30.0


def test_a_store_keeps_states_by_id() -> None:
    """What was put last is there, in order of insertion, until it is removed."""
    store: StateStore[str, int] = InMemoryStore()
    for number, identity in enumerate(("b", "a", "c", "b")):
        store.put(identity, number)
    assert (store.get("b"), store.get("absent")) == (3, None)
    assert store.list() == [("b", 3), ("a", 1), ("c", 2)]
    store.remove("a")
    store.remove("absent")
    assert store.get("a") is None
    assert store.list() == [("b", 3), ("c", 2)]


def test_a_list_is_a_snapshot() -> None:
    """What is listed is a copy: changing it leaves the store alone, and the other way round."""
    store = InMemoryStore[str, int]()
    store.put("a", 1)
    listed = store.list()
    listed.clear()
    listed = store.list()
    store.put("b", 2)
    assert listed == [("a", 1)]


@pytest.mark.parametrize(
    "use",
    [lambda store, i: store.put(i, 1), lambda store, i: store.get(i), lambda s, i: s.remove(i)],
    ids=["put", "get", "remove"],
)
def test_refuses_ids_that_cannot_be_keys(use: Callable[[Any, object], object]) -> None:
    """An unhashable id is a TypeError wherever it is given."""
    store = InMemoryStore[Any, int]()
    store.put("a", 1)
    with pytest.raises(TypeError, match="unhashable"):
        use(store, ["a"])


def test_threads_share_a_store() -> None:
    """8 threads that put, list and remove see whole pairs, and leave what they should."""
    store = InMemoryStore[tuple[int, int], tuple[int, int]]()
    barrier = Barrier(THREADS)

    def work(thread: int) -> bool:
        barrier.wait(TIMEOUT)
        whole = True
        for number in range(300):
            key = (thread, number)
            store.put(key, key)
            whole = whole and store.get(key) == key
            whole = whole and all(identity == state for identity, state in store.list())
            if number >= 5:
                store.remove((thread, number - 5))
        return whole

    with ThreadPoolExecutor(THREADS) as pool:
        assert all(pool.map(work, range(THREADS)))
    left = {(thread, number) for thread in range(THREADS) for number in range(295, 300)}
    assert {identity for identity, _ in store.list()} == left


class SlowKey:
    """An id that takes its time to be hashed, in one thread."""

    def __init__(self) -> None:
        self.inside, self.go_on = Event(), Event()

    def __hash__(self) -> int:
        if current_thread().name == "holder":
            self.inside.set()
            assert self.go_on.wait(TIMEOUT)
        return 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_goes_on_with_its_copy() -> None:
    """A lock held by another thread at the fork holds up no child."""
    store = InMemoryStore[object, int]()
    store.put("a", 1)
    slow = SlowKey()
    holder = Thread(target=store.put, args=(slow, 2), name="holder")
    holder.start()
    assert slow.inside.wait(TIMEOUT)

    def child() -> None:
        store.put("b", 2)
        assert store.list() == [("a", 1), ("b", 2)]

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(TIMEOUT)
    hung = process.is_alive()
    process.kill()
    slow.go_on.set()
    holder.join(TIMEOUT)
    assert not hung, "the child waits for a lock that nobody will release"
    assert process.exitcode == 0
    assert store.list() == [("a", 1), (slow, 2)]


def test_a_node_is_taken_by_its_id() -> None:
    """A node in the place of its id is as good."""
    store: InMemoryStore[object, int] = InMemoryStore()
    store.put(Endpoint("a"), 5)
    assert store.get("a") == store.get(Endpoint("a", weight=3)) == 5
    assert store.list() == [("a", 5)]
    store.remove(Endpoint("a"))
    assert store.list() == []
