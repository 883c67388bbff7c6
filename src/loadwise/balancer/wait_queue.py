"""Requests that wait for a node, in order."""

from __future__ import annotations

import math
import threading
from bisect import insort
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from loadwise._fork import ForkAware, reset_in_child
from loadwise.balancer.bells import Bell
from loadwise.balancer.limits import Room
from loadwise.balancer.request import Request
from loadwise.balancer.waiter import Held, Waiter, comes_with_time, turned_away
from loadwise.clock import Clock
from loadwise.errors import NoNodeAvailable

__all__ = ["Grant", "WaitQueue"]

N = TypeVar("N")
H = TypeVar("H", bound="Held")
T = TypeVar("T")

_IDLE_RATIO = 20
"""So many times longer than that takes, at least: filters of many that wait may take their time."""
_SHORTEST_SLEEP = 0.001
_LONGEST_NAP = 0.1
"""Seconds: each time that is told wrongly doubles the sleep up to this, and keeps nobody busy."""
_MOST_CHANGES = 64
"""Changes that are told apart; beyond that it is looked for everything that may have changed."""


Grant = Callable[[Request[N]], H | NoNodeAvailable]
"""Finds a node for a request, or returns why there is none."""


class WaitQueue(ForkAware, Generic[N, H]):
    """Requests that wait for a node, in order of arrival.

    After a change they are asked in order, each kind until one of it is refused, because then
    nobody else of the kind could be served either. So a node that is free goes to the longest
    waiting request that it satisfies, and nobody waits behind one that it cannot serve.

    Who brings a change about only rings the first in the queue, which then serves all. That takes
    no lock and runs no code of the user's, so a lease may end anywhere, in a garbage collection,
    too. Requests that do not wait serve the queue before themselves.

    An event loop may be blocked for long, or closed while its tasks wait. So the first task of
    each loop, and the first of all threads, look after the queue where the first of all does not:
    after ``looks_again`` seconds, and when changes pile up. Tasks of closed loops are given
    nothing.

    Args:
        clock: The balancer's clock.
        most: How many may wait; ``None`` for any number.
        tells_apart: Whether the strategy may refuse a request for its key or its tags.
        looks_again: Seconds after which it is looked again, for changes that nobody tells of.

    Attributes:
        waiting: Who waits, by ticket, in order.

    Thread-safety: a lock, held while nodes are looked for on behalf of those who wait. It may be
    taken again where collection strikes inside it. In a forked child nobody waits, because the
    parent's threads are not there.

    Cost: O(kinds * log(kinds)) per change, and O(1) per request served.
    """

    def __init__(
        self, clock: Clock, most: int | None, *, tells_apart: bool, looks_again: float = 1.0
    ) -> None:
        self._clock = clock
        self._most = most
        self._tells_apart = tells_apart
        self._looks_again = looks_again
        self.waiting: OrderedDict[int, Waiter[N, H]] = OrderedDict()
        self._kinds: dict[Hashable, OrderedDict[int, Waiter[N, H]]] = {}
        # The same, by event loop; all threads are together.
        self._homes: dict[Hashable, OrderedDict[int, Waiter[N, H]]] = {}
        # Rooms that one request has left, and ``None`` for every other change. Where nobody looks
        # the oldest fall out.
        self._changes: deque[Room | None] = deque(maxlen=_MOST_CHANGES)
        # Who was given up by a collection that struck while the lock was held.
        self._gone: deque[Waiter[N, H]] = deque()
        self._after_fork()
        reset_in_child(self)
        # Where the clock goes when told, nobody sleeps for so many seconds.
        on_advance: Callable[[Callable[[], None]], object] | None
        on_advance = getattr(clock, "on_advance", None)
        # Unless to sleep is to let its time pass.
        self._is_manual = on_advance is not None and not hasattr(clock, "sleep")
        if on_advance is not None:
            on_advance(self.advanced)

    def _after_fork(self) -> None:
        self._lock = threading.RLock()
        self._owner: int | None = None
        self.waiting.clear()
        self._kinds.clear()
        self._homes.clear()
        self._changes.clear()
        self._gone.clear()
        self._first: Waiter[N, H] | None = None
        # The first of each home, where there are several.
        self._heads: tuple[Waiter[N, H], ...] = ()
        self._tickets = 0
        # When the passing of time alone may give somebody a node.
        self._due = math.inf
        # How long to sleep in any case, and at most.
        self._nap = _SHORTEST_SLEEP
        self._interval = self._looks_again

    def tell(self, room: Room | None) -> None:
        """Tell of a change that may give somebody a node. Takes no lock.

        Args:
            room: What alone has changed: one more has room in it; ``None`` for anything else.
        """
        # Without a call, because Ctrl-C strikes after calls.
        changes = self._changes
        changes += (room,)
        first = self._first
        if first is not None:
            first.bell.ring()
        if len(changes) > 1:  # it has not come yet for the one before
            for head in self._heads:
                head.bell.ring()

    def advanced(self) -> None:
        """Tell that a clock went on that goes when told."""
        if not self.waiting:
            return
        self.tell(None)
        now = self._clock()
        for waiter in list(self.waiting.values()):
            if waiter.deadline <= now:
                waiter.bell.ring()

    def in_turn(self, grant: Grant[N, H], ask: Callable[[], T]) -> T:
        """Return ``ask()``, called once all who wait have been served. O(1) between changes."""
        if not self.waiting:
            try:
                return ask()
            finally:
                # Who came to wait meanwhile may have been refused for what this one gave back.
                if self.waiting:
                    self.tell(None)
        if self._owner == threading.get_ident():
            # A function of the user's, called to serve another, asks for a node itself.
            return ask()

        def serve_and_ask() -> T:
            self._serve(grant)
            return ask()

        return self._alone(serve_and_ask)

    def waiter(
        self, request: Request[N], refusal: NoNodeAvailable, seconds: float, bell: Bell
    ) -> Waiter[N, H]:
        """Return what stands for a request that is to wait for ``seconds`` at most.

        Raises:
            RuntimeError: It is asked for within the search of a node for another.
        """
        if self._owner == threading.get_ident():
            raise RuntimeError(
                "a function that is called to find a node for another request asks for one with a "
                "timeout; let it ask without"
            )
        kind = id(request) if self._tells_apart else request.kind()
        now = self._clock()
        return Waiter(request, kind, refusal, now, now + seconds, bell)

    def join(self, grant: Grant[N, H], waiter: Waiter[N, H]) -> None:
        """Have a request wait that was refused; it may be done at once."""
        self._alone(lambda: self._join(grant, waiter))

    def _join(self, grant: Grant[N, H], waiter: Waiter[N, H]) -> None:
        self._serve(grant)
        if self._most is not None and len(self.waiting) >= self._most:
            waiter.error = turned_away(waiter.refusal)
            return
        self._tickets += 1
        waiter.ticket = self._tickets
        self.waiting[waiter.ticket] = waiter
        self._homes.setdefault(waiter.bell.home, OrderedDict())[waiter.ticket] = waiter
        same = self._kinds.setdefault(waiter.kind, OrderedDict())
        same[waiter.ticket] = waiter
        self._appoint()
        # Asked once it can be rung, so that no change is missed in between.
        if len(same) == 1:
            due = self._due
            if self._ask(grant, waiter):
                self._remove(waiter)
            elif self._due < due and self._first is not None:
                self._first.bell.ring()  # for it keeps the time for all

    def progress(self, grant: Grant[N, H], waiter: Waiter[N, H], *, rang: bool) -> None:
        """Serve all who wait, on behalf of one who was woken.

        Args:
            grant: Finds nodes.
            waiter: Who was woken. Where its time is up it is done.
            rang: Whether its bell rang; else it has slept as long as it may.
        """
        self._alone(lambda: self._progress(grant, waiter, rang=rang))

    def _progress(self, grant: Grant[N, H], waiter: Waiter[N, H], *, rang: bool) -> None:
        now, before = self._clock(), len(self.waiting)
        was_due, looks = now >= self._due, not rang and self._keeps_time(waiter)
        if looks:
            self._changes.append(None)
        self._serve(grant)
        in_vain = was_due and len(self.waiting) == before
        self._nap = min(2 * self._nap, _LONGEST_NAP) if in_vain else _SHORTEST_SLEEP
        if looks:
            self._interval = max(self._looks_again, _IDLE_RATIO * (self._clock() - now))
        if not waiter.is_done and self._clock() >= waiter.deadline:
            if not self._ask(grant, waiter):
                waiter.error = waiter.refusal
            self._remove(waiter)

    def patience(self, waiter: Waiter[N, H]) -> float:
        """Return how many seconds a request may sleep until its bell rings; inf for any number."""
        keeps_time = self._keeps_time(waiter)
        if self._is_manual:
            return self._interval if keeps_time else math.inf
        now = self._clock()
        seconds = waiter.deadline - now
        if waiter is self._first:
            seconds = min(seconds, max(self._nap, self._due - now))
        return max(0.0, min(seconds, self._interval) if keeps_time else seconds)

    def _keeps_time(self, waiter: Waiter[N, H]) -> bool:
        return waiter is self._first or waiter in self._heads

    def leave(self, grant: Grant[N, H], waiter: Waiter[N, H]) -> None:
        """Give up a request that waits; what it was given goes to the next."""
        # Ahead of all else, so that nothing is granted any more, whatever is interrupted.
        waiter.error = waiter.error or waiter.refusal
        if self._owner == threading.get_ident():
            # Collection has struck in the midst of serving, and what is looked at must not change.
            self._gone.append(waiter)
            _give_back(waiter)
            return
        self._alone(lambda: self._leave(grant, waiter))

    def _leave(self, grant: Grant[N, H], waiter: Waiter[N, H]) -> None:
        self._remove(waiter)
        _give_back(waiter)
        self._serve(grant)

    def _alone(self, work: Callable[[], T]) -> T:
        """Return ``work()``, while no other thread looks for nodes for those who wait."""
        with self._lock:
            self._owner = threading.get_ident()
            try:
                return work()
            except BaseException:
                # It may have been in the middle of serving: whoever is first goes on with that.
                self._changes.append(None)
                self._appoint()
                raise
            finally:
                self._owner = None
                while self._gone:
                    self._remove(self._gone.popleft())
                # A change told to one who was first until now has not been heard.
                if self._changes and self._first is not None:
                    self._first.bell.ring()

    def _serve(self, grant: Grant[N, H]) -> None:
        """Give nodes to those who wait, as far as there are any since the last time."""
        if self.waiting and self._clock() >= self._due:
            self._changes.append(None)
        while self.waiting and self._changes:
            rooms: list[Room] | None = []
            while self._changes:
                # So many that some may have fallen out, perhaps ahead of the one that is taken.
                too_many = len(self._changes) >= _MOST_CHANGES - 1
                room = self._changes.popleft()
                if room is None or too_many:
                    rooms = None
                elif rooms is not None:
                    rooms.append(room)
            try:
                self._serve_all(grant, rooms)
            except BaseException:
                self._changes.append(None)
                raise
        if not self.waiting:
            self._changes.clear()

    def _serve_all(self, grant: Grant[N, H], rooms: list[Room] | None) -> None:
        if rooms is None:
            self._due = math.inf
        # One without anybody is what an interrupted removal leaves behind.
        for kind in [kind for kind, same in self._kinds.items() if not same]:
            del self._kinds[kind]
        heads = [(next(iter(same)), kind) for kind, same in self._kinds.items()]
        heads.sort(key=_by_ticket)
        queue = deque(heads)
        while queue and (rooms is None or any(map(_has_room, rooms))):
            ticket, kind = queue.popleft()
            waiter = self._kinds[kind][ticket]
            if waiter.bell.is_dead:
                waiter.error = waiter.refusal
            if not waiter.is_done and not self._ask(grant, waiter):
                continue
            # In this order: who is interrupted in between is rung again by whoever serves next.
            waiter.bell.ring()
            self._remove(waiter)
            same = self._kinds.get(kind)
            if same is not None:
                insort(queue, (next(iter(same)), kind), key=_by_ticket)

    def _ask(self, grant: Grant[N, H], waiter: Waiter[N, H]) -> bool:
        """Look for a node for a request that waits; return whether it need not wait longer."""
        try:
            found = grant(waiter.request)
        except Exception as error:  # noqa: BLE001 - whose request it is raises it
            waiter.error = error
            return True
        if not isinstance(found, NoNodeAvailable):
            waiter.granted = found
            return True
        waiter.refusal = found
        if not comes_with_time(found):
            waiter.error = found
            return True
        if found.retry_after is not None:
            self._due = min(self._due, self._clock() + found.retry_after)
        return False

    def _remove(self, waiter: Waiter[N, H]) -> None:
        self.waiting.pop(waiter.ticket, None)
        _take_out(self._kinds, waiter.kind, waiter.ticket)
        _take_out(self._homes, waiter.bell.home, waiter.ticket)
        self._appoint()

    def _appoint(self) -> None:
        """Make the one who has waited longest keep the time for all."""
        first = next(iter(self.waiting.values()), None)
        if first is not self._first:
            self._first = first
            if first is not None:
                first.bell.ring()
        if len(self._homes) > 1 or self._heads:
            before = self._heads
            # One without anybody is what an interrupted removal leaves behind.
            homes = [same for same in self._homes.values() if same]
            heads = tuple([next(iter(same.values())) for same in homes])
            self._heads = heads if len(heads) > 1 else ()
            for head in self._heads:
                if head not in before:
                    head.bell.ring()


def _take_out(parts: dict[Hashable, OrderedDict[int, T]], part: Hashable, ticket: int) -> None:
    same = parts.get(part)
    if same is not None:
        same.pop(ticket, None)
        if not same:
            del parts[part]


def _give_back(waiter: Waiter[N, H]) -> None:
    if waiter.granted is not None:
        waiter.granted.refund()
        waiter.granted.call_off()


def _has_room(room: Room) -> bool:
    return room.left > 0


def _by_ticket(head: tuple[int, Hashable]) -> int:
    return head[0]
