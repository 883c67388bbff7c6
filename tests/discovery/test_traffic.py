"""A thousand changes of a thousand nodes under traffic, with a source that fails and lies."""

from __future__ import annotations

import threading
from typing import Any, cast

from tests.discovery.support import TIMEOUT, logged, until

from loadwise import Balancer, Endpoint
from loadwise.discovery import Found, SourceError, Watcher

SIZE = CHANGES = 1_000
NODES = [Endpoint(number) for number in range(SIZE + CHANGES)]


class Sliding:
    """A source of a window of nodes: with each answer the first leaves and a new one joins.

    Between two answers it fails, says nothing, says too much, or says the same again.
    """

    def __init__(self) -> None:
        self.step = -1
        self.lies = 0

    def open(self) -> Any:
        return self

    def close(self) -> None:
        """Do nothing."""

    def fetch(self) -> Found[Endpoint]:
        if self.step >= 0 and self.step % 20 == 7 and self.lies <= self.step // 20:
            self.lies += 1
            match self.lies % 4:
                case 0:
                    raise SourceError("no route to host", again=0.0)
                case 1:
                    return Found(())
                case 2:
                    return Found(tuple(NODES[:1]) * 200_000)
                case _:
                    return Found(cast("Any", ([],)))
        if self.step < CHANGES:
            self.step += 1
        return Found(tuple(NODES[self.step : self.step + SIZE]))


class Traffic:
    """A thread that asks for nodes until it is told to end.

    A node is right if it had not left before it was asked for, and had joined when it came.
    """

    def __init__(self, balancer: Balancer[Endpoint]) -> None:
        self._balancer = balancer
        self._over = threading.Event()
        self.wrong: list[tuple[int, int, int]] = []
        self.asked = 0
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _first(self) -> int:
        return int(str(self._balancer.nodes[0].id))

    def _ask(self) -> None:
        while not self._over.wait(0.0005):  # or the changes would wait for the interpreter's lock
            before = self._first()
            with self._balancer.acquire() as lease:
                chosen = int(str(lease.node.id))
            after = self._first()
            self.asked += 1
            if not before <= chosen < after + SIZE:
                self.wrong.append((before, chosen, after))

    def end(self) -> None:
        """End it."""
        self._over.set()
        self._thread.join(TIMEOUT)


def test_no_node_is_chosen_that_left_and_none_is_lost() -> None:
    """Whatever the source says in between; every lease is counted out again."""
    balancer = Balancer[Endpoint]([])
    source = Sliding()
    with logged(), Watcher(balancer, source, debounce=0.0, clock=Ticks()) as watcher:
        traffic = [Traffic(balancer) for _ in range(2)]
        until(lambda: source.step == CHANGES and balancer.nodes[0] is NODES[CHANGES])
        for each in traffic:
            each.end()
        assert watcher.running
    assert [each.wrong for each in traffic] == [[], []]
    assert balancer.nodes == tuple(NODES[CHANGES:])
    assert min(each.asked for each in traffic) > 0
    assert sum(each.in_flight for each in balancer.status()) == 0
    assert source.lies == 50


class Ticks:
    """A clock that is always ten seconds later, so that nothing waits to be tried again."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        self._now += 10.0
        return self._now
