"""Asking the server about quotas, and taking in what it answers, without the I/O.

What needs the server is written as generators: they yield a `Call` and are sent its `Reply`, or
have `Unreachable` thrown in. Threads and asyncio drive the same ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from itertools import count
from typing import TypeVar

from loadwise.clock import Clock
from loadwise.integrations.redis._connection import CircuitBreaker
from loadwise.integrations.redis._events import EventKind
from loadwise.integrations.redis._mirror import Mirror, OutagePolicy
from loadwise.integrations.redis._quota_wire import Call, Reply
from loadwise.integrations.redis._stake import Stake
from loadwise.quota.tracker import Amounts

__all__ = ["TRIES", "Exchange", "Steps", "Unreachable"]

T = TypeVar("T")
Steps = Generator[Call, Reply, T]

TRIES = 3


class Unreachable(Exception):  # noqa: N818 - names the fact, as KeyError does
    """The server did not answer."""


class Exchange(Mirror):
    """A mirror that says what to ask of the server.

    Args:
        clock: Source of monotonic seconds, to keep local times by.
        link: Whether the server can be reached.
        policy: What to do while it cannot.
        refresh: Seconds after which what is shown of nodes in use is brought up to date.
        wake: Called when there is something to tell the server; must not wait.

    Attributes:
        news: Events to be told of when no lock is held.
    """

    def __init__(
        self,
        clock: Clock,
        link: CircuitBreaker,
        policy: OutagePolicy,
        refresh: float,
        wake: Callable[[], None],
    ) -> None:
        self._refresh = refresh
        self._wake = wake
        self._orders = count()
        self._leaving: deque[tuple[str, Stake]] = deque()
        self.news: deque[tuple[EventKind, str]] = deque()
        super().__init__(clock, link, policy)

    def _after_fork(self) -> None:
        super()._after_fork()
        self._leaving.clear()

    def chores(self, *, last: bool = False) -> Steps[float]:
        """Tell the server what it should know, bring up to date what is shown; return when next.

        Args:
            last: Whether there will be no more.
        """
        while self._leaving:
            if not (yield from self._sync(*self._leaving.popleft())):
                return self.link.wait
        for node_id, stake in list(self._stakes.items()):
            if self._is_due(str(node_id), stake, last=last) and not (
                yield from self._sync(str(node_id), stake)
            ):
                return self.link.wait
        return self._refresh

    def _is_due(self, node_id: str, stake: Stake, *, last: bool) -> bool:
        with self._lock:
            now = self.clock()
            stake.slide(now)
            if stake.pending():
                return True
            stale = now - stake.synced >= self._refresh and not last
            return stale and (stake.matters() or stake.foreign or node_id in self._blocked)

    def _sync(self, node_id: str, stake: Stake) -> Steps[bool]:
        """Tell the server of a node and show what it counts; tell whether it answered."""
        _, reply = yield from self._insist(node_id, stake, "sync", {})
        return reply is not None

    def _insist(
        self, node_id: str, stake: Stake, op: str, amounts: Amounts
    ) -> Steps[tuple[Call, Reply | None]]:
        """Ask about a node, again if the server had lost its counts and is told them anew."""
        tries = 0
        while True:
            with self._lock:
                call = self._plan(node_id, stake, op, amounts)
            reply = yield from self._ask(stake, call)
            tries += 1
            if reply is None or reply.status != "lost" or tries == TRIES:
                return call, reply

    def _plan(self, node_id: str, stake: Stake, op: str, amounts: Amounts) -> Call:
        """Prepare a call that also tells what the server does not know yet. Lock held."""
        now = self.clock()
        stake.slide(now)
        epoch = stake.epoch if stake.matters() else ""
        call = Call(node_id, next(self._orders), stake, now, list(stake.untold()))
        stake.has_told(call)
        call.write(stake, op, epoch, amounts, self._lease(stake))
        stake.under_way.add(call)
        stake.back, stake.rest, stake.lift = {}, None, False
        return call

    def _lease(self, _stake: Stake) -> float:
        return 0.0

    def _ask(self, stake: Stake, call: Call) -> Steps[Reply | None]:
        """Make a call and take in what is answered; ``None`` if nothing is."""
        try:
            reply = yield call
        except BaseException as error:  # an interruption, too, leaves it open what has arrived
            with self._lock:
                stake.under_way.discard(call)
                stake.undo(call)
            if isinstance(error, Unreachable):
                return None
            raise
        with self._lock:
            stake.under_way.discard(call)
            self._take_in(stake, call, reply)
        return reply

    def _take_in(self, stake: Stake, call: Call, reply: Reply) -> None:
        stake.synced = self.clock()
        was_foreign, stake.foreign = stake.foreign, reply.status == "foreign"
        if stake.foreign:
            if not was_foreign:
                detail = f"the quota of {call.node_id[:100]!r}: {reply.detail}"
                self.news.append(("rejected", detail))
            stake.undo(call)
            self._reconsider(call.node_id, stake.synced)
            return
        if reply.dropped:
            detail = f"{reply.dropped} fields of the quota of {call.node_id[:100]!r}"
            self.news.append(("rejected", detail))
        if stake.epoch == call.known != reply.epoch:
            # The counts that the server keeps have begun anew.
            stake.epoch = reply.epoch
            anew = stake.tell_anew()
            if reply.status != "lost":
                stake.has_told(call)
            elif anew:
                detail = f"what was used of {call.node_id[:100]!r} is told anew"
                self.news.append(("resynchronised", detail))
        elif reply.status == "lost" or reply.epoch != stake.epoch:
            # Another call has found out before that what this one knew of was over.
            stake.has_not_told(call)
        if reply.status != "lost":
            self._show(call.node_id, stake, call, reply)
