"""Functions of the user's, and what the collector ends, may come back to the balancer."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from tests.balancer.test_dead_waiters import in_time

from loadwise import Balancer, Filter, NoopCollector, Outcome


@pytest.fixture
def _collected_when_told() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


class Collecting(Filter[str]):
    """Has something happen in a collection, when it is asked."""

    def __init__(self) -> None:
        self.happens: Callable[[], object] | None = None
        self.happened = 0

    def sources(self) -> tuple[()]:
        return ()

    def __call__(self, node: str) -> bool:
        if self.happens is not None:
            work, self.happens = self.happens, None
            leave_to_collector(self._once(work))
            gc.collect()
        return True

    def _once(self, work: Callable[[], object]) -> Generator[None, None, None]:
        try:
            yield
        finally:
            self.happened += 1
            work()


def leave_to_collector(generator: Generator[None, None, None]) -> None:
    """Have only a collection end a generator."""
    next(generator)
    ring: list[Any] = [generator]
    ring.append(ring)


CHANGES: list[Callable[[Balancer[str]], object]] = [
    lambda balancer: balancer.replace(["a", "b", "d"]),
    lambda balancer: balancer.add("d"),
]


@pytest.mark.usefixtures("_collected_when_told")
@pytest.mark.parametrize("change", CHANGES)
def test_a_request_in_a_collection_within_a_change_is_served(
    change: Callable[[Balancer[str]], object],
) -> None:
    """The collector strikes while the new members are looked at, and health has changed, too."""
    where = Collecting()
    balancer = Balancer(["a", "b", "c"], where=where)

    def work() -> None:
        for _ in range(3):
            balancer.report("b", Outcome.FAILURE)
        with balancer.acquire() as lease:
            assert lease.node in {"a", "b", "c", "d"}

    where.happens = work
    in_time(lambda: change(balancer))
    assert where.happened == 1
    assert "d" in balancer.nodes
    # What was found out before is not taken for news.
    assert {balancer.pick() for _ in range(200)} == set(balancer.nodes) - {"b"}


@pytest.mark.usefixtures("_collected_when_told")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_change_in_a_collection_within_a_change_is_refused() -> None:
    """Either would undo the other; to wait would be for ever."""
    where = Collecting()
    balancer = Balancer(["a", "b"], where=where)
    refused: list[str] = []

    def work() -> None:
        with pytest.raises(RuntimeError, match="while this thread changes them") as caught:
            balancer.remove("a")
        refused.append(str(caught.value))

    where.happens = work
    in_time(lambda: balancer.add("c"))
    assert refused
    assert balancer.nodes == ("a", "b", "c")
    balancer.remove("a")
    assert set(balancer.nodes) == {"b", "c"}


class Reinforcing(NoopCollector):
    """Adds a node when panic begins."""

    balancer: Balancer[str] | None = None

    def on_panic(self, entered: bool) -> None:  # noqa: FBT001 - as the collector's
        if entered and self.balancer is not None:
            self.balancer.add("spare")


def test_a_collector_may_change_the_members_when_panic_begins() -> None:
    """Also where a change of the members is what began it."""
    collector = Reinforcing()
    balancer = collector.balancer = Balancer(["a", "b"], metrics=collector)
    for _ in range(3):
        balancer.report("a", Outcome.FAILURE)
    in_time(lambda: balancer.remove("b"))
    assert balancer.nodes == ("a", "spare")
    assert balancer.panic is None


def test_a_limit_may_be_looked_up_with_the_balancer() -> None:
    """The function is asked before anything is locked."""

    def limit(node: str) -> int:
        if node == "c":
            balancer.drain("a")
        return 2

    balancer = Balancer(["a", "b"], max_in_flight=limit)
    in_time(lambda: balancer.add("c"))
    assert balancer.nodes == ("a", "b", "c")
    assert [status.drained for status in balancer.status()] == [True, False, False]
