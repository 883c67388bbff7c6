"""Connections, kept for each origin apart and limited in number over all of them.

Only the books are kept here; what connects, sends and closes is `pool_sync` and `pool_async`. The
connections are those of httpcore or httpcore2, which know by themselves whether they can be used.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any
from weakref import WeakSet

from loadwise._fork import ForkAware, reset_in_child

__all__ = ["Link", "Pool", "PoolWaiter", "Shelf"]

Key = tuple[bytes, bytes, int | None]

# Whoever asks for no node, as after a redirect out of the fleet.
_NOBODY: frozenset[Hashable] = frozenset({None})

# Connections are Any throughout: they are those of either of two packages.


class Link:
    """A connection, and what its pool knows of it.

    Attributes:
        connection: The connection.
        wire: What it reads and writes by.
        answered: Whether it has brought an answer before.
        shared: Whether it carries several requests at once, or may turn out to.
        shelf: Where it belongs.
        users: Requests that it carries.
        since: When it became idle, in monotonic seconds.
        listed: Whether it is in the books of its pool.
    """

    __slots__ = (
        "__weakref__",
        "answered",
        "connection",
        "listed",
        "shared",
        "shelf",
        "since",
        "users",
        "wire",
    )

    def __init__(self, connection: Any, wire: Any, shelf: Shelf) -> None:
        self.connection = connection
        self.wire = wire
        self.shelf = shelf
        self.answered = False
        self.users = 1
        self.since = 0.0
        self.listed = True
        # One that may speak HTTP/2 takes requests before it is made.
        self.shared: bool = not shelf.single and connection.is_available()


class Shelf:
    """The connections of one origin.

    Attributes:
        key: Scheme, host and port.
        owners: Ids of the nodes that are reached there.
        idle: Connections that carry nothing and can carry one request, the latest used last.
        shared: Connections that carry several.
        size: How many connections there are.
        single: Whether connections have turned out to carry one request at a time.
        abandoned: Whether all the nodes have left.
    """

    __slots__ = ("abandoned", "idle", "key", "owners", "shared", "single", "size")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.owners: set[Hashable] = set()
        self.idle: deque[Link] = deque()
        self.shared: list[Link] = []
        self.size = 0
        self.single = False
        self.abandoned = False

    @property
    def is_spare(self) -> bool:
        """True if there is nothing to keep it for: it has no connection and no node."""
        return not self.size and self.owners <= _NOBODY


class PoolWaiter:
    """A request that waits for a connection, because there are as many as there may be.

    Attributes:
        shelf: Where the connection has to be from.
        fresh: Whether it has to be a new one.
        link: The connection, once there is one.
        wake: Called then.
    """

    __slots__ = ("fresh", "link", "shelf", "wake")

    def __init__(self, shelf: Shelf, wake: Callable[[], object], *, fresh: bool) -> None:
        self.shelf = shelf
        self.fresh = fresh
        self.link: Link | None = None
        self.wake = wake


class Pool(ForkAware):
    """The books of all connections.

    Args:
        make: Returns a connection to an origin, not connected yet, and what it reads and writes by.
        most: Returns how many connections there may be; ``None`` for any number.
        kept: How many idle ones are kept for each origin; ``None`` for any number.
        expiry: Seconds for which an idle one is kept; ``None`` for ever.

    Attributes:
        doomed: Connections that have left the books and are to be closed by whoever sees them.

    Thread-safety: full. Cost: O(1) per request, whatever the number of origins.
    """

    def __init__(
        self,
        make: Callable[[Key], tuple[Any, Any]],
        most: Callable[[], int | None],
        kept: int | None,
        expiry: float | None,
    ) -> None:
        self._make = make
        self._most = most
        self._kept = kept
        self._expiry = expiry
        self._begin()
        reset_in_child(self)

    def _begin(self) -> None:
        self._lock = Lock()
        self._shelves: dict[Key, Shelf] = {}
        # Weak, so that a response that is dropped open, or Ctrl-C, takes no place for ever.
        self._open: WeakSet[Link] = WeakSet()
        # Idle ones of all origins, those that have been idle for longest first.
        self._idle: OrderedDict[Link, None] = OrderedDict()
        self._waiters: OrderedDict[PoolWaiter, None] = OrderedDict()
        self.doomed: deque[Any] = deque()

    def _after_fork(self) -> None:
        # The connections are the parent's: two who talk on one would read each other's answers.
        self._begin()

    def take(
        self, key: Key, owner: Hashable, wake: Callable[[], object] | None, *, fresh: bool
    ) -> Link | PoolWaiter | None:
        """Return a connection for one request.

        If there may be none more now, it is a place in the queue, or ``None`` without ``wake``.
        """
        with self._lock:
            shelf = self._shelves.get(key)
            if shelf is None:
                shelf = self._shelves[key] = Shelf(key)
            shelf.owners.add(owner)
            link = self._find(shelf, fresh=fresh)
            if link is not None or wake is None:
                return link
            waiter = PoolWaiter(shelf, wake, fresh=fresh)
            self._waiters[waiter] = None
            return waiter

    def leave(self, waiter: PoolWaiter) -> None:
        """Take back a place in the queue; a connection that has been found goes to another."""
        with self._lock:
            self._waiters.pop(waiter, None)
        if waiter.link is not None:
            self.give_back(waiter.link)

    def give_back(self, link: Link) -> None:
        """Record that a request is over, and find a use for its connection."""
        with self._lock:
            link.users -= 1
            # Others may still be making one that was not made for this request.
            if not link.users:
                if not link.connection.is_closed():
                    self._shelve(link)
                elif link.listed:
                    self._dismiss(link)  # it may not have come to closing its socket
            self._close_old()
            self._serve()

    def is_single(self, link: Link) -> None:
        """Record that a connection carries one request at a time after all."""
        with self._lock:
            link.shared = False
            link.shelf.single = True
            if link in link.shelf.shared:
                link.shelf.shared.remove(link)

    def abandon(self, is_member: Callable[[Hashable], bool]) -> None:
        """Give up the origins that belong to no member any more. O(origins)."""
        with self._lock:
            for shelf in tuple(self._shelves.values()):
                shelf.owners = {owner for owner in shelf.owners if is_member(owner)}
                shelf.abandoned = not shelf.owners
                if shelf.abandoned:
                    # Those still in use find out when they are given back.
                    del self._shelves[shelf.key]
                    for link in (*shelf.idle, *(each for each in shelf.shared if not each.users)):
                        self._dismiss(link)
            self._serve()

    def clear(self) -> None:
        """Dismiss all connections, those in use as well."""
        with self._lock:
            for link in tuple(self._open):
                self._dismiss(link)
            self._shelves.clear()
            self._serve()

    def __len__(self) -> int:
        return len(self._open)

    def _find(self, shelf: Shelf, *, fresh: bool) -> Link | None:
        kept = None if fresh else self._find_kept(shelf)
        if kept is not None:
            return kept
        most = self._most()
        if most is not None and len(self._open) >= most:
            if not self._idle:
                return None
            self._dismiss(next(iter(self._idle)))
        link = Link(*self._make(shelf.key), shelf)
        self._open.add(link)
        shelf.size += 1
        if not shelf.abandoned:
            self._shelves.setdefault(shelf.key, shelf)  # it may have gone while this one waited
        if link.shared:
            shelf.shared.append(link)
        return link

    def _find_kept(self, shelf: Shelf) -> Link | None:
        for link in tuple(shelf.shared):
            if not link.users and link.connection.has_expired():
                self._dismiss(link)
            elif link.connection.is_available():
                self._idle.pop(link, None)
                link.users += 1
                return link
        while shelf.idle:
            link = shelf.idle[-1]
            if link.connection.has_expired():
                self._dismiss(link)
                continue
            shelf.idle.pop()
            del self._idle[link]
            link.users = 1
            return link
        return None

    def _shelve(self, link: Link) -> None:
        """Keep a connection that carries nothing for the next request, if it may be kept."""
        shelf = link.shelf
        if not link.listed:
            self.doomed.append(link.connection)  # given up before it was made
            return
        if shelf.abandoned or self._kept == 0 or not link.connection.is_idle():
            self._dismiss(link)
            return
        link.since = time.monotonic()
        self._idle[link] = None
        if link.shared:
            return
        shelf.idle.append(link)
        if self._kept is not None and len(shelf.idle) > self._kept:
            self._dismiss(shelf.idle[0])

    def _close_old(self) -> None:
        """Dismiss what has been idle for too long, a few at a time: each request comes here."""
        if self._expiry is None:
            return
        limit = time.monotonic() - self._expiry
        for link in [link for link, _ in zip(self._idle, range(2), strict=False)]:
            if link.since < limit:
                self._dismiss(link)

    def _serve(self) -> None:
        """Give connections to those who wait, in order, as far as there are any."""
        while self._waiters:
            waiter = next(iter(self._waiters))
            link = self._find(waiter.shelf, fresh=waiter.fresh)
            if link is None:
                return
            del self._waiters[waiter]
            waiter.link = link
            waiter.wake()

    def _dismiss(self, link: Link) -> None:
        self._forget(link)
        self.doomed.append(link.connection)

    def _forget(self, link: Link) -> None:
        link.listed = False
        self._open.discard(link)
        shelf = link.shelf
        shelf.size -= 1
        if link in self._idle:
            del self._idle[link]
            if not link.shared:
                shelf.idle.remove(link)  # nearly always at one of its ends
        if link.shared and link in shelf.shared:
            shelf.shared.remove(link)
        if shelf.is_spare and self._shelves.get(shelf.key) is shelf:
            del self._shelves[shelf.key]
