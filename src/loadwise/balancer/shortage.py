"""Nodes that cannot afford a request, remembered by its cost."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from itertools import count
from typing import Generic, TypeVar

from loadwise.balancer.request import Request
from loadwise.balancer.times_back import NEVER, Cost, Waits, cost_of, journal_of
from loadwise.node_set import NodeSet
from loadwise.quota import QuotaSource

__all__ = ["Shortage", "Shortages"]

N = TypeVar("N")

_Key = tuple[Cost, bool, Hashable]
_MOST_COSTS = 32
_MOST_MORE = 16
_UNTOLD = 1.0
_LEAST_INTERVAL = 0.1
"""Seconds between two questions to all nodes whose quota does not tell when it changes."""
_MOST_ASKED = 64
"""So many are asked again before any refusal, whenever the last was."""
_A_FEW = 16


class Shortage(Generic[N]):
    """Nodes that cannot afford a request of one cost.

    Args:
        among: All nodes asked of.
        waits: When those that cannot afford it can.
        more: The same, for a few that have been found since and are in ``left`` still.
        left: Those of ``among`` that are not in ``waits``.
        scanned: Whether all of some view have been asked.
        until: When to ask again in any case.

    Immutable, so thread-safe. O(n) to make without ``left``.
    """

    __slots__ = ("among", "due", "left", "more", "scanned", "until", "waits")

    def __init__(
        self,
        among: NodeSet[N],
        waits: Waits,
        more: dict[int, float],
        left: NodeSet[N] | None = None,
        *,
        scanned: bool,
        until: float = NEVER,
    ) -> None:
        self.among = among
        self.waits = waits
        self.more = more
        if left is None:
            left = among.without(waits.times) if waits.times else among
        self.left = left
        self.scanned = scanned
        self.until = until
        self.due = min(until, waits.due, *more.values())

    @property
    def count(self) -> int:
        """Number of nodes that are out of ``left``."""
        return len(self.among.eligible) - len(self.left.eligible)


class Shortages(Generic[N]):
    """Remembers who cannot afford what, so that one request need not ask all nodes.

    Args:
        quota: Whom to ask.

    Per cost it keeps when each of those nodes can afford it. That holds until that time, or until
    the tracker records a change of the node: a settlement, a usage, another limit. Reservations
    of others only make the wait longer. Another implementation of `QuotaSource` does not tell of
    changes: there it holds for a second at most. Before a refusal all are asked again where they
    are at most 64; else 16 in turn, and all of them once in 0.1 s. So of a large fleet a node that
    has got what a request needs may be overlooked for 0.1 s, and no longer.
    At most 32 costs are remembered, for requests with a filter that is asked once per membership
    by that filter, too; for one that is not, all are asked once, if five refuse it.

    Thread-safety: what is remembered is immutable and swapped by one assignment. Of two threads
    that learn at the same time one may be forgotten; its node is then asked again.

    Cost: O(1) for a request while no node gets or loses what it needs; O(n) to ask all, and to
    restrict the view after changes.
    """

    def __init__(self, quota: QuotaSource) -> None:
        self._quota = quota
        self._journal = journal_of(quota)
        self._known: dict[_Key, Shortage[N]] = {}
        # How many have been asked again, a few at a time.
        self._turns = count()

    @property
    def tells(self) -> bool:
        """True if the quotas tell of changes, so that what is remembered is true."""
        return self._journal is not None

    def recall(
        self, nodes: NodeSet[N], request: Request[N], *, despite: bool
    ) -> Shortage[N] | None:
        """Return what is remembered, brought up to date; ``None`` for nothing."""
        key = self._key(request, despite=despite)
        known = None if key is None else self._known.get(key)
        if key is None or known is None:
            return None
        if known.among.membership is not nodes.membership:
            self._known.clear()
            return None
        fresh = self._fresh(known, nodes, request)
        if fresh is not known:
            self._keep(key, fresh)
        return fresh

    def scan(self, nodes: NodeSet[N], request: Request[N], *, despite: bool) -> Shortage[N]:
        """Ask all ``nodes``. O(n)."""
        # Ahead of the questions, so that a change in between is noticed later.
        mark = self._mark()
        waits = Waits(self._short(nodes.eligible, self._ask(nodes, request)), mark)
        until = NEVER if self.tells else self._quota.clock() + _UNTOLD
        found = Shortage(nodes, waits, {}, scanned=True, until=until)
        key = self._key(request, despite=despite)
        if key is not None:
            self._keep(key, found)
        return found

    def again(
        self, known: Shortage[N], nodes: NodeSet[N], request: Request[N], *, despite: bool
    ) -> Shortage[N]:
        """Ask those known to lack quota again: all or, if that was lately done, a few. O(1) then.

        O(n) for all, and where one of the few can afford it after all.
        """
        since = self._quota.clock() - (known.until - _UNTOLD)
        times = known.waits.times
        if not known.scanned or len(times) <= _MOST_ASKED or not 0.0 <= since < _LEAST_INTERVAL:
            return self.scan(nodes, request, despite=despite)
        first = next(self._turns) * _A_FEW
        few = [i % len(nodes) for i in range(first, first + _A_FEW)]
        asked = [i for i in {*few, *known.more} if i in times or i in known.more]
        short = self._short(asked, self._ask(nodes, request))
        if len(short) == len(asked):
            return known
        out = set(asked).difference(short)
        waits = Waits({i: at for i, at in times.items() if i not in out}, known.waits.mark)
        more = {i: at for i, at in known.more.items() if i not in out}
        found = Shortage(nodes, waits, more, scanned=True, until=known.until)
        key = self._key(request, despite=despite)
        if key is not None:
            self._keep(key, found)
        return found

    def learn(
        self,
        known: Shortage[N] | None,
        nodes: NodeSet[N],
        request: Request[N],
        refused: Iterable[int],
        *,
        despite: bool,
    ) -> Shortage[N]:
        """Remember a few that have refused, too. O(1), but O(n) for one in 16 of them."""
        mark = self._mark()
        if known is None:
            until = NEVER if self.tells else self._quota.clock() + _UNTOLD
            known = Shortage(nodes, Waits({}, mark), {}, nodes, scanned=False, until=until)
        more = {**known.more, **self._short(refused, self._ask(nodes, request))}
        waits = known.waits
        left: NodeSet[N] | None = known.left
        if len(more) > _MOST_MORE and not known.scanned:
            return self.scan(nodes, request, despite=despite)
        if len(more) > _MOST_MORE:
            waits, more, left = Waits({**waits.times, **more}, waits.mark), {}, None
        learnt = Shortage(nodes, waits, more, left, scanned=known.scanned, until=known.until)
        key = self._key(request, despite=despite)
        if key is not None:
            self._keep(key, learnt)
        return learnt

    def settled(self, known: Shortage[N], request: Request[N], *, despite: bool) -> float:
        """Return when the first of them can afford it; O(1) while it waits for nothing new."""
        ask = self._ask(known.among, request)
        waits = known.waits.settled(self._quota.clock(), ask)
        if waits is not known.waits:
            key = self._key(request, despite=despite)
            if key is not None:
                parts = (known.among, waits, known.more, known.left)
                self._keep(key, Shortage(*parts, scanned=known.scanned, until=known.until))
        return min(waits.due, *map(ask, known.more), NEVER)

    def _fresh(
        self, known: Shortage[N], nodes: NodeSet[N], request: Request[N]
    ) -> Shortage[N] | None:
        now, ask = self._quota.clock(), self._ask(nodes, request)
        if now >= known.until:
            return None
        waits, more = known.waits, known.more
        left: NodeSet[N] | None = known.left
        if self._journal is not None and waits.mark != self._journal.mark:
            mark = waits.mark
            changed = waits.fresh(self._journal, nodes.index_of, ask)
            if more:
                more = Waits(more, mark).fresh(self._journal, nodes.index_of, ask).times
            waits = changed
        if now >= min(known.due, waits.due, *more.values()):
            past = [i for i, at in waits.times.items() if at <= now]
            if past:
                waits = Waits({**waits.times, **{i: ask(i) for i in past}}, waits.mark)
            more = {i: ask(i) if at <= now else at for i, at in more.items()}
        if waits is known.waits and more is known.more and known.among is nodes:
            return known
        now = self._quota.clock()
        if waits.times is not known.waits.times or known.among is not nodes:
            # What is ruled out by the view has reasons, and times, of its own.
            mask = nodes.mask
            times = {i: at for i, at in waits.times.items() if at > now and mask[i]}
            if known.among is not nodes or len(times) < len(known.waits.times):
                left = None
            waits = Waits(times, waits.mark)
            more = {i: at for i, at in more.items() if mask[i]}
        more = {i: at for i, at in more.items() if at > now}
        return Shortage(nodes, waits, more, left, scanned=known.scanned, until=known.until)

    def _keep(self, key: _Key, found: Shortage[N] | None) -> None:
        if found is None:
            self._known.pop(key, None)
            return
        if key not in self._known and len(self._known) >= _MOST_COSTS:
            self._known.clear()
        self._known[key] = found

    def _key(self, request: Request[N], *, despite: bool) -> _Key | None:
        where = None if request.where is None else request.where.ready_key
        if request.narrows and where is None:
            return None
        cost = cost_of(request.cost)
        return None if cost is None else (cost, despite, where)

    def _mark(self) -> int:
        return 0 if self._journal is None else self._journal.mark

    def _ask(self, nodes: NodeSet[N], request: Request[N]) -> Callable[[int], float]:
        ids, quota, cost = nodes.ids, self._quota, request.cost
        return lambda index: quota.available_at(ids[index], cost)

    def _short(self, indices: Iterable[int], ask: Callable[[int], float]) -> dict[int, float]:
        # The clock is read last: what is available now was so a moment ago.
        found = ((index, ask(index)) for index in indices)
        return {index: at for index, at in found if at > self._quota.clock()}
