"""Record of turns, over all the sets of candidates that one balancer asks about.

Each set has turns of its own, and the last 64 are remembered. A new set takes over the claims of
its nodes, by id, from the set in use before. Claims are conserved: all that sets hold of a node,
less what they lent, and what is owed to it beside, is what it is behind its share of all picks.

- A set that was taken over from has lent its claims. If it is asked about again it goes on where it
  was, and the claims it still has are owed by the node (or to it, where negative).
- The claims of a set that is forgotten are owed to its nodes.
- What is owed to a node is added to its claim in the next new set.

So a node that comes last in set after set comes first in the end, whatever the sets.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from itertools import islice, repeat
from operator import add, sub
from threading import RLock
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from loadwise.strategies._turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from loadwise._membership import Membership
    from loadwise.node_set import NodeSet
    from loadwise.strategies._sequences import Candidates, Source

__all__ = ["Book"]

_SETS_KEPT = 64
_MOST_ASKED = 8
"""In how many of the latest sets a node is looked for. If it is in none its claim comes later."""
_OWED_AT_LEAST = 1024
_FEW = 64
"""Number of nodes that may be out of a set for it to be told from others by those alone."""


_FEW_TO_SEEK = 4
"""So many ids are rather sought in a set one by one than all of the set looked up."""


class _Key:
    """Key by which a set is remembered; its hash is worked out once."""

    __slots__ = ("_hash", "parts")

    def __init__(self, *parts: object) -> None:
        self.parts = parts
        self._hash = hash(parts)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.parts == other.parts


class _Step(NamedTuple):
    """Step from indices of the same nodes, or of all before one came or left, to the present ones.

    Attributes:
        came: The index of the one that came.
        left: The former index of the one that left.
    """

    came: int | None = None
    left: int | None = None

    def after(self, amounts: Sequence[int]) -> list[int]:
        """Return amounts by the new indices, with 0 for the one that came."""
        found = list(amounts)
        if self.came is not None:
            found.append(0)
        elif self.left is not None:
            del found[self.left]
        return found


def _step(ids: tuple[Hashable, ...], nodes: NodeSet[Any]) -> _Step | None:
    """Return how the indices of nodes come from those of some ids, if that is known."""
    if ids is nodes.ids:
        return _Step()
    before = nodes.membership.before
    if before is None or before[0].ids is not ids:
        return None
    return _Step(came=len(ids)) if before[1] is None else _Step(left=before[1])


class Book:
    """The turns of one owner's sets.

    Thread-safety: a lock for what is remembered, and none to take a turn.
    """

    __slots__ = ("_busy", "_latest", "_lent", "_lock", "_most_owed", "_owed", "_sets", "_views")

    def __init__(self) -> None:
        # Re-entrant: the collector may strike while it is held, and close a generator that asks for
        # a node. What is being written must not change then, so that one leaves no trace.
        self._lock = RLock()
        self._busy = False
        self._sets: OrderedDict[object, Turns] = OrderedDict()
        self._latest: Turns | None = None
        self._owed: dict[Hashable, int] = {}
        self._most_owed = _OWED_AT_LEAST
        # What nodes owe besides, by index into some ids: most do, after a set has been resumed.
        self._lent: tuple[tuple[Hashable, ...], list[int]] | None = None
        # A short cut to the sets of a membership, because ids are slow to compare: by who may be
        # chosen, or who may not.
        self._views: WeakKeyDictionary[Membership[Any], dict[object, Turns]] = WeakKeyDictionary()

    def turns(
        self,
        nodes: NodeSet[Any],
        among: Candidates,
        make: Callable[[Sequence[int] | None], Source],
        *,
        draft: bool = False,
    ) -> Turns:
        """Return the turns of a set, from now on if it is new. O(n).

        Args:
            nodes: The nodes.
            among: Which of them take turns.
            make: Makes the sequence from claims, by index; ``None`` if no node is known.
            draft: Remember nothing, only look.
        """
        with self._lock:
            if self._busy:
                return Turns(_key(nodes, among), nodes.ids, among, make(None))
            self._busy = True
            try:
                return self._turns(nodes, among, make, draft=draft)
            finally:
                self._busy = False

    def _turns(
        self,
        nodes: NodeSet[Any],
        among: Candidates,
        make: Callable[[Sequence[int] | None], Source],
        *,
        draft: bool,
    ) -> Turns:
        views = self._views.get(nodes.membership)
        place: object = among.eligible if nodes.barred is None else nodes.barred
        turns = None if views is None else views.get(place)
        if turns is not None and turns.known:
            return turns
        key = _key(nodes, among)
        turns = self._sets.get(key)
        if turns is None:
            out = _out(nodes)
            self._bring_lent(nodes, out)
            claims, taken = self._carried(nodes, among.eligible, out)
            turns = Turns(key, nodes.ids, among, make(claims), out)
            if draft:
                return turns
            for lender, kept in taken:
                lender.kept = kept
            self._settle(nodes, among.eligible, out)
            self._add(turns)
        if not draft:
            if views is None or len(views) >= _SETS_KEPT:
                views = self._views[nodes.membership] = {}
            views[place] = turns
        return turns

    def _carried(
        self, nodes: NodeSet[Any], eligible: tuple[int, ...], out: frozenset[int] | None
    ) -> tuple[Sequence[int] | None, list[tuple[Turns, set[int]]]]:
        """Return the claims of a new set, by index, and what those it takes them from keep.

        Of each node those of the latest set that it is in, and what is owed to it.
        """
        claims, taken, missing = self._nearly_all(nodes, eligible, out)
        begin = len(taken)
        for turns in islice(reversed(self._sets.values()), begin, _MOST_ASKED):
            if not missing:
                break
            found = _found(turns, nodes, missing)
            if not found:
                continue
            held = turns.claims()
            if claims is None and turns.ids is nodes.ids:
                claims = list(held)
                for i in missing - found.keys():
                    claims[i] = 0
            else:
                claims = claims or [0] * len(nodes)
                for here, there in found.items():
                    claims[here] = held[there]
            missing -= found.keys()
            kept = turns.among.eligible if turns.kept is None else turns.kept
            taken.append((turns, set(kept).difference(found.values())))
        for identity, here in self._owed_here(nodes, eligible, out):
            claims = claims or [0] * len(nodes)
            claims[here] += self._owed[identity]
        if self._lent is not None:
            claims = list(map(sub, claims or repeat(0), self._lent[1]))
        return claims, taken

    def _nearly_all(
        self, nodes: NodeSet[Any], eligible: tuple[int, ...], out: frozenset[int] | None
    ) -> tuple[list[int] | None, list[tuple[Turns, set[int]]], set[int]]:
        """Begin what `_carried` does, if nearly all are in the latest set; add who is missing.

        Then only those are looked at who are in one of the two sets alone.
        """
        latest = next(reversed(self._sets.values()), None)
        step = None if latest is None else _step(latest.ids, nodes)
        if latest is None or latest.out is None or out is None or step is None:
            return None, [], set(eligible)
        # Who is not in it, by the new indices, and who is not in the new set, by its own.
        theirs, mine = latest.out, out
        if step.came is not None:
            theirs, mine = theirs | {step.came}, mine - {step.came}
        elif step.left is not None:
            left = step.left
            theirs = frozenset([i - (i > left) for i in theirs if i != left])
            mine = frozenset([i + (i >= left) for i in mine]) | {left}
        missing = set(theirs - out)
        if len(missing) == len(eligible):
            return None, [], set(eligible)
        claims = step.after(latest.claims())
        for i in missing:
            claims[i] = 0
        kept = mine - latest.out
        return claims, [(latest, set(kept if latest.kept is None else kept & latest.kept))], missing

    def _owed_here(
        self, nodes: NodeSet[Any], eligible: tuple[int, ...], out: frozenset[int] | None
    ) -> list[tuple[Hashable, int]]:
        if not self._owed:
            return []
        found = ((identity, nodes.index_of(identity)) for identity in self._owed)
        here = [(identity, index) for identity, index in found if index is not None]
        if out is None:
            mine = set(eligible)
            return [(identity, index) for identity, index in here if index in mine]
        return [(identity, index) for identity, index in here if index not in out]

    def _settle(
        self, nodes: NodeSet[Any], eligible: tuple[int, ...], out: frozenset[int] | None
    ) -> None:
        for identity, _ in self._owed_here(nodes, eligible, out):
            del self._owed[identity]
        if self._lent is not None:
            self._book_lent(out or ())

    def _bring_lent(self, nodes: NodeSet[Any], out: frozenset[int] | None) -> None:
        """Have what nodes owe besides by the indices of ``nodes``, or write it down."""
        if self._lent is None:
            return
        ids, amounts = self._lent
        step = _step(ids, nodes)
        if step is None or out is None:
            self._book_lent()
            return
        if step.left is not None and amounts[step.left]:
            identity = ids[step.left]
            self._owed[identity] = self._owed.get(identity, 0) - amounts[step.left]
        self._lent = nodes.ids, step.after(amounts)

    def _book_lent(self, indices: Iterable[int] | None = None) -> None:
        """Write down for these, by default for all, what they owe besides; let go of the rest."""
        if self._lent is None:
            return
        (ids, amounts), self._lent = self._lent, None
        owed = self._owed
        for i in range(len(ids)) if indices is None else indices:
            if amounts[i]:
                owed[ids[i]] = owed.get(ids[i], 0) - amounts[i]
        self._forget_strangers()

    def enter(self, turns: Turns) -> None:
        """Note that a set is in use. O(1), and O(n) if its claims were taken over meanwhile."""
        if self._latest is turns:
            return
        with self._lock:
            if self._busy:
                return
            self._busy = True
            try:
                self._enter(turns)
            finally:
                self._busy = False

    def _enter(self, turns: Turns) -> None:
        if self._sets.setdefault(turns.key, turns) is not turns:
            return  # forgotten, and made again for others
        self._sets.move_to_end(turns.key)
        self._latest = turns
        if turns.kept is not None:
            # What it has lent is owed to it.
            self._owe_but(turns, turns.kept, -1)
            turns.kept = None

    def _owe_but(self, turns: Turns, others: AbstractSet[int], sign: int) -> None:
        """Add the claims of all but these, or take them off. O(n) without a loop, for a few."""
        if turns.out is None or len(others) > _FEW:
            self._owe(turns, set(turns.among.eligible).difference(others), sign)
            return
        claims = list(turns.claims())
        for i in (*turns.out, *others):
            claims[i] = 0
        if self._lent is not None and self._lent[0] is not turns.ids:
            self._book_lent()
        before: Iterable[int] = repeat(0) if self._lent is None else self._lent[1]
        self._lent = turns.ids, list(map(sub if sign > 0 else add, before, claims))

    def _add(self, turns: Turns) -> None:
        self._sets[turns.key] = turns
        self._latest = turns
        if len(self._sets) > _SETS_KEPT:
            _, oldest = self._sets.popitem(last=False)
            if oldest.kept is None:
                self._owe_but(oldest, frozenset(), 1)
            else:
                self._owe(oldest, oldest.kept, 1)
            oldest.kept = frozenset()
            oldest.known = False

    def _owe(self, turns: Turns, indices: Collection[int], sign: int) -> None:
        """Add the claims of these, or take them off."""
        if not indices:
            return
        claims, owed = turns.claims(), self._owed
        for index in indices:
            identity = turns.ids[index]
            owed[identity] = owed.get(identity, 0) + sign * claims[index]
        self._forget_strangers()

    def _forget_strangers(self) -> None:
        """Owe nothing to those who are in no set any more."""
        owed = self._owed
        if len(owed) > self._most_owed:
            known = {other.ids[i] for other in self._sets.values() for i in other.among.eligible}
            self._owed = {identity: owed[identity] for identity in owed.keys() & known}
            self._most_owed = max(_OWED_AT_LEAST, 2 * len(self._owed))


def _out(nodes: NodeSet[Any]) -> frozenset[int] | None:
    """Return the indices that may not be chosen, if they are a few and known."""
    idle, barred = nodes.membership.idle, nodes.barred
    if barred is None or len(barred) + len(idle) > _FEW:
        return None
    return barred.union(idle) if idle else barred


def _found(turns: Turns, nodes: NodeSet[Any], missing: set[int]) -> dict[int, int]:
    """Return which of the missing a set has: their indices, and those that they have there."""
    if turns.ids is nodes.ids:
        out = turns.out
        if out is None:
            return {i: i for i in missing.intersection(turns.among.eligible)}
        return {i: i for i in missing if i not in out}
    if len(missing) <= _FEW_TO_SEEK:
        sought = [(i, _place(nodes.ids[i], turns)) for i in missing]
        return {here: there for here, there in sought if there is not None}
    index = nodes.membership.index
    pairs = ((index.get(turns.ids[i], -1), i) for i in turns.among.eligible)
    return {here: there for here, there in pairs if here in missing}


def _place(identity: Hashable, turns: Turns) -> int | None:
    """Return the index of an id that takes turns in a set. O(n), by a single call."""
    try:
        index = turns.ids.index(identity)
    except ValueError:
        return None
    eligible = turns.among.eligible
    position = bisect_left(eligible, index)
    return index if position < len(eligible) and eligible[position] == index else None


def _key(nodes: NodeSet[Any], among: Candidates) -> _Key:
    """Return what makes two sets the same."""
    eligible, ids, weights = among.eligible, nodes.ids, among.weights
    if len(eligible) < len(ids):
        ids = tuple([ids[i] for i in eligible])
    if weights is None:
        return _Key(ids, eligible)
    mine = tuple([weights[i] for i in eligible])
    # 1 and 1.0 are equal but not the same to a rule that treats floats apart.
    return _Key(ids, eligible, mine, tuple(map(type, mine)))
