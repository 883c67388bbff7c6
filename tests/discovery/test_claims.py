"""A balancer has one watcher at a time, of whichever kind, in whichever thread."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from typing import Any
from weakref import ref

import pytest
from tests.discovery.support import TIMEOUT, Listed, logged, until_nodes

from loadwise import Balancer, LoadwiseError
from loadwise.discovery import AsyncWatcher, CallableSource, Watcher

MANY = 8


def first() -> list[str]:
    """The nodes of one source."""
    return ["a"]


def second() -> list[str]:
    """The nodes of another."""
    return ["b"]


def watcher_of(balancer: Balancer[Any], function: Any) -> Watcher[Any]:
    """A watcher that has not started."""
    return Watcher(balancer, CallableSource(function), debounce=0.0)


def test_the_second_watcher_is_refused_until_the_first_is_stopped() -> None:
    """The error names both sources and what to do; the nodes stay those of the first."""
    balancer = Balancer[str]([], name="search")
    one, other = watcher_of(balancer, first), watcher_of(balancer, second)
    with one:
        with pytest.raises(LoadwiseError) as raised:
            other.start()
        one.start()  # which runs
        assert not other.running
        other.stop()
        assert one.running
        assert balancer.nodes == ("a",)
    text = str(raised.value)
    assert text == (
        f"balancer 'search' cannot be given the nodes of {CallableSource(second)!r}, for a watcher "
        f"gives it those of {CallableSource(first)!r}, and each would undo what the other did: "
        f"stop that watcher first, or join both lists in the function of one CallableSource"
    )
    with other:
        until_nodes(balancer, "b")
        with pytest.raises(LoadwiseError, match="first"):
            one.start()
    with one:
        assert one.running


def test_watchers_of_both_kinds_exclude_each_other() -> None:
    """Also the one that ended with its event loop."""
    balancer = Balancer[str]([])
    inside = AsyncWatcher(balancer, CallableSource(second))

    async def main() -> None:
        with watcher_of(balancer, first), pytest.raises(LoadwiseError, match="second"):
            await inside.start()
        await inside.start()
        with pytest.raises(LoadwiseError, match=r"those of .*second"):
            watcher_of(balancer, first).start()
        with pytest.raises(LoadwiseError, match=r"those of .*second"):
            AsyncWatcher(balancer, CallableSource(first)).start()

    asyncio.run(main())
    with watcher_of(balancer, first) as watcher:
        assert watcher.running


def test_of_watchers_that_start_at_once_one_runs() -> None:
    """All others are refused, and none is left half begun."""
    balancer = Balancer[str]([])
    watchers = [watcher_of(balancer, first) for _ in range(MANY)]
    together = threading.Barrier(MANY)
    refused: list[str] = []

    def start(watcher: Watcher[Any]) -> None:
        together.wait(TIMEOUT)
        try:
            watcher.start()
        except LoadwiseError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=start, args=(watcher,)) for watcher in watchers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert [watcher.running for watcher in watchers].count(True) == 1
    assert len(refused) == MANY - 1
    for watcher in watchers:
        watcher.stop()


def test_a_watcher_that_broke_down_stands_in_nobodys_way() -> None:
    """Nor in its own."""
    balancer = Balancer[str]([])

    def broken() -> float:
        raise ZeroDivisionError

    def hush(_: threading.ExceptHookArgs) -> None:
        """Keep it out of the output."""

    hook, threading.excepthook = threading.excepthook, hush
    try:
        Watcher(balancer, CallableSource(first), clock=broken).start()
    finally:
        threading.excepthook = hook
    with logged(), watcher_of(balancer, Listed("c")):
        until_nodes(balancer, "c")


def test_a_claim_keeps_no_balancer_alive() -> None:
    """One that is stopped and dropped is collected."""
    balancer = Balancer[str]([])
    with watcher_of(balancer, first):
        pass
    gone = ref(balancer)
    del balancer
    gc.collect()
    assert gone() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_child_of_a_fork_may_have_a_watcher_where_the_parents_loop_has_one() -> None:
    """An event loop's watcher does not go on there."""
    balancer = Balancer[str]([])

    def fork() -> int:
        child = os.fork()
        if child == 0:
            with watcher_of(balancer, second) as watcher:
                os._exit(0 if watcher.running and "b" in balancer.nodes else 1)
        return os.waitpid(child, 0)[1]

    async def main() -> int:
        async with AsyncWatcher(balancer, CallableSource(first)):
            return fork()

    assert os.waitstatus_to_exitcode(asyncio.run(main())) == 0
