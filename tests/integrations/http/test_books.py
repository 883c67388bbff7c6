"""The books of connections, whatever is asked, given back, broken and left in whatever order."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from loadwise.integrations._http.pools import Link, Pool, PoolWaiter

MOST, KEPT = 4, 2


class Connection:
    """A connection of HTTP/1.1 or HTTP/2 as httpcore tells of it."""

    def __init__(self, *, shared: bool) -> None:
        self.shared = shared
        self.closed = False
        self.expired = False
        self.busy = 0

    def is_available(self) -> bool:
        return not self.closed and self.shared

    def is_closed(self) -> bool:
        return self.closed

    def is_idle(self) -> bool:
        return not self.closed and not self.busy

    def has_expired(self) -> bool:
        return self.expired


class Books(RuleBasedStateMachine):
    """Nobody shares what is for one, limits hold, who waits is served, and nothing is lost."""

    @initialize(shared=st.booleans())
    def open(self, shared: bool) -> None:  # noqa: FBT001 - from hypothesis
        self.shared = shared
        self.every: list[Connection] = []
        self.pool = Pool(self.make, lambda: MOST, KEPT, None)
        self.held: list[Link] = []
        self.waiting: list[PoolWaiter] = []

    def make(self, key: Any) -> tuple[Any, Any]:
        self.every.append(Connection(shared=self.shared))
        return self.every[-1], None

    def hold(self, link: Link | None) -> None:
        assert link is not None
        assert not link.connection.closed
        assert self.shared or not link.connection.busy
        link.connection.busy += 1
        self.held.append(link)

    @rule(host=st.integers(0, 2), fresh=st.booleans())
    def take(self, host: int, fresh: bool) -> None:  # noqa: FBT001 - from hypothesis
        found = self.pool.take((b"http", b"host", host), host, lambda: None, fresh=fresh)
        if isinstance(found, PoolWaiter):
            self.waiting.append(found)
        else:
            self.hold(found)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), breaks=st.booleans())
    def give_back(self, data: st.DataObject, breaks: bool) -> None:  # noqa: FBT001 - as above
        link = data.draw(st.sampled_from(self.held))
        self.held.remove(link)
        link.connection.busy -= 1
        link.connection.closed |= breaks
        self.pool.give_back(link)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def make_at_last(self, data: st.DataObject) -> None:
        """Whoever was to make it has not, and another of those who wait for it does."""
        link = data.draw(st.sampled_from(self.held))
        link.connection.closed = False

    @rule()
    def expire(self) -> None:
        for connection in self.every:
            connection.expired |= not connection.busy

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(waiter)
        self.pool.leave(waiter)

    @rule(gone=st.integers(0, 2))
    def abandon(self, gone: int) -> None:
        self.pool.abandon(lambda owner: owner != gone)

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "pool"):
            return
        for waiter in [each for each in self.waiting if each.link is not None]:
            self.waiting.remove(waiter)
            self.hold(waiter.link)
        while self.pool.doomed:
            doomed = self.pool.doomed.popleft()
            assert not doomed.busy
            doomed.closed = True
        open_ones = sum(bool(each.busy or not each.closed) for each in self.every)
        assert len(self.pool) == open_ones <= MOST
        assert len(self.waiting) == len(self.pool._waiters)
        assert not self.waiting or len({link.connection for link in self.held}) == MOST
        assert all(len(shelf.idle) <= KEPT for shelf in self.pool._shelves.values())


TestBooks = Books.TestCase
