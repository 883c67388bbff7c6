"""Requests that wait for a node, in order."""

from __future__ import annotations

import math
import threading
from bisect import insort
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Hashable
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from loadwise._fork import ForkAware, reset_in_child
from loadwise.balancer.bells import Bell
from loadwise.balancer.limits import Room
from loadwise.balancer.request import Request
from loadwise.clock import Clock
from loadwise.errors import NoNodeAvailable

__all__ = ["Held", "WaitQueue", "Waiter", "comes_with_time"]

N = TypeVar("N")
H = TypeVar("H", bound="Held")
T = TypeVar("T")

_MENDED_BY_TIME = frozenset({"full", "rate_limited", "recovering", "unhealthy"})
_LOOKS_AGAIN = 1.0
"""Seconds after which it is looked at again, for changes that nobody tells of."""
_SHORTEST_SLEEP = 0.001
"""Seconds, so that a time that is told wrongly keeps no processor busy."""


class Held(Protocol):
    """What a request is given: a lease."""

    def refund(self) -> None:
        """Give back the quota, for the request was never sent."""
        ...

    def call_off(self) -> bool:
        """Give back the node."""
        ...


def comes_with_time(refusal: NoNodeAvailable) -> bool:
    """Tell whether what a request was refused for lack of may come by waiting."""
    reasons = refusal.reasons
    if not _MENDED_BY_TIME.isdisjoint(reasons):
        return True
    # Quota comes, unless the request costs more than there ever is.
    return "quota" in reasons and refusal.retry_after is not None


Grant = Callable[[Request[N]], H | NoNodeAvailable]
"""Finds a node for a request, or returns why there is none."""


class Waiter(Generic[N, H]):
    """One request that waits.

    Attributes:
        request: What is asked for.
        kind: What it needs of a node, as `Request.kind` says.
        since: When it began, by the clock.
        deadline: When it gives up, by the clock; inf for never.
        bell: Rung when it should look.
        granted: What it was given; ``None`` until then.
        refusal: Why it was refused when it was last asked.
        error: Why it need not wait any longer; ``None`` until then.
        ticket: Its number, in order of arrival; 0 for one that was turned away.
    """

    __slots__ = (
        "bell",
        "deadline",
        "error",
        "granted",
        "kind",
        "refusal",
        "request",
        "since",
        "ticket",
    )

    def __init__(
        self,
        request: Request[N],
        kind: Hashable,
        refusal: NoNodeAvailable,
        since: float,
        deadline: float,
        bell: Bell,
    ) -> None:
        self.request = request
        self.kind = kind
        self.refusal = refusal
        self.since = since
        self.deadline = deadline
        self.bell = bell
        self.granted: H | None = None
        self.error: Exception | None = None
        self.ticket = 0

    @property
    def is_done(self) -> bool:
        """Whether it need not wait any longer."""
        return self.granted is not None or self.error is not None


class WaitQueue(ForkAware, Generic[N, H]):
    """Requests that wait for a node, in order of arrival.

    After a change they are asked in order, each kind until one of it is refused, for then nobody
    else of the kind could be served either. So a node that is free goes to the longest waiting
    request that it satisfies, and nobody waits behind one that it cannot serve.

    Who brings a change about only rings the first in the queue, which then serves all. That takes
    no lock and runs no code of the user's, so a lease may end anywhere, in a garbage collection,
    too. Requests that do not wait serve the queue before themselves.

    Args:
        clock: The balancer's clock.
        most: How many may wait; ``None`` for any number.
        tells_apart: Whether the strategy may refuse a request for its key or its tags.

    Attributes:
        waiting: Who waits, by ticket, in order.

    Thread-safety: a lock, held while nodes are looked for on behalf of those who wait. In a forked
    child nobody waits, for the parent's threads are not there.

    Cost: O(kinds * log(kinds)) per change, and O(1) per request served.
    """

    def __init__(self, clock: Clock, most: int | None, *, tells_apart: bool) -> None:
        self._clock = clock
        self._most = most
        self._tells_apart = tells_apart
        self.waiting: OrderedDict[int, Waiter[N, H]] = OrderedDict()
        self._kinds: dict[Hashable, OrderedDict[int, Waiter[N, H]]] = {}
        # Rooms that one request has left, and ``None`` for every other change.
        self._changes: deque[Room | None] = deque()
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
        self._lock = threading.Lock()
        self._owner: int | None = None
        self.waiting.clear()
        self._kinds.clear()
        self._changes.clear()
        self._first: Waiter[N, H] | None = None
        self._tickets = 0
        # When the passing of time alone may give somebody a node.
        self._due = math.inf

    def tell(self, room: Room | None) -> None:
        """Tell of a change that may give somebody a node. Takes no lock.

        Args:
            room: What alone has changed: one more has room in it; ``None`` for anything else.
        """
        # Without a call, for Ctrl-C strikes after calls.
        changes = self._changes
        changes += (room,)
        first = self._first
        if first is not None:
            first.bell.ring()

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
        if self._owner == threading.get_ident():
            # A function of the user's, called to serve another, asks for a node itself.
            return ask()
        with self._lock, self._owned():
            self._serve(grant)
            return ask()

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
        with self._lock, self._owned():
            self._serve(grant)
            if self._most is not None and len(self.waiting) >= self._most:
                waiter.error = _queued(waiter.refusal)
                return
            self._tickets += 1
            waiter.ticket = self._tickets
            self.waiting[waiter.ticket] = waiter
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
        with self._lock, self._owned():
            if not rang and waiter is self._first:
                self._changes.append(None)
            self._serve(grant)
            if not waiter.is_done and self._clock() >= waiter.deadline:
                if not self._ask(grant, waiter):
                    waiter.error = waiter.refusal
                self._remove(waiter)

    def patience(self, waiter: Waiter[N, H]) -> float:
        """Return how many seconds a request may sleep until its bell rings; inf for any number."""
        is_first = waiter is self._first
        if self._is_manual:
            return _LOOKS_AGAIN if is_first else math.inf
        if not is_first:
            return max(0.0, waiter.deadline - self._clock())
        now = self._clock()
        seconds = max(_SHORTEST_SLEEP, self._due - now)
        return max(0.0, min(seconds, waiter.deadline - now, _LOOKS_AGAIN))

    def leave(self, grant: Grant[N, H], waiter: Waiter[N, H]) -> None:
        """Give up a request that waits; what it was given goes to the next."""
        # Ahead of all else, so that nothing is granted any more, whatever is interrupted.
        waiter.error = waiter.error or waiter.refusal
        with self._lock, self._owned():
            self._remove(waiter)
            if waiter.granted is not None:
                waiter.granted.refund()
                waiter.granted.call_off()
            self._serve(grant)

    @contextmanager
    def _owned(self) -> Generator[None, None, None]:
        self._owner = threading.get_ident()
        try:
            yield
        except BaseException:
            # It may have been in the middle of serving: whoever is first goes on with that.
            self._changes.append(None)
            self._appoint()
            raise
        finally:
            self._owner = None
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
                room = self._changes.popleft()
                if room is None:
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
        same = self._kinds.get(waiter.kind)
        if same is not None:
            same.pop(waiter.ticket, None)
            if not same:
                del self._kinds[waiter.kind]
        self._appoint()

    def _appoint(self) -> None:
        """Make the one who has waited longest keep the time for all."""
        first = next(iter(self.waiting.values()), None)
        if first is not self._first:
            self._first = first
            if first is not None:
                first.bell.ring()


def _queued(refusal: NoNodeAvailable) -> NoNodeAvailable:
    """Return the error for one who may not even wait: nodes that time brings back are taken."""
    given = refusal.reasons.items()
    reasons = {why: count for why, count in given if why not in _MENDED_BY_TIME | {"quota"}}
    reasons["queue"] = sum(refusal.reasons.values()) - sum(reasons.values())
    return NoNodeAvailable(
        refusal.balancer, refusal.total, reasons, refusal.retry_after, refusal.filters
    )


def _has_room(room: Room) -> bool:
    return bool(room.free)


def _by_ticket(head: tuple[int, Hashable]) -> int:
    return head[0]
