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

from collections import OrderedDict
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from loadwise.strategies._turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Sequence

    from loadwise._membership import Membership
    from loadwise.node_set import NodeSet
    from loadwise.strategies._sequences import Candidates, Source

__all__ = ["Book"]

_SETS_KEPT = 64
_MOST_ASKED = 8
"""In how many of the latest sets a node is looked for. If it is in none its claim comes later."""
_OWED_AT_LEAST = 1024


class Book:
    """The turns of one owner's sets.

    Thread-safety: a lock for what is remembered, and none to take a turn.
    """

    __slots__ = ("_latest", "_lock", "_most_owed", "_owed", "_sets", "_views")

    def __init__(self) -> None:
        self._lock = Lock()
        self._sets: OrderedDict[object, Turns] = OrderedDict()
        self._latest: Turns | None = None
        self._owed: dict[Hashable, int] = {}
        self._most_owed = _OWED_AT_LEAST
        # A short cut to the sets of a membership, for ids are slow to compare.
        self._views: WeakKeyDictionary[Membership[Any], dict[tuple[int, ...], Turns]] = (
            WeakKeyDictionary()
        )

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
            views = self._views.get(nodes.membership)
            turns = None if views is None else views.get(among.eligible)
            if turns is not None and self._sets.get(turns.key) is turns:
                return turns
            key = _key(nodes, among)
            turns = self._sets.get(key)
            if turns is None:
                claims, taken = self._carried(nodes, among.eligible)
                turns = Turns(key, nodes.ids, among, make(claims))
                if draft:
                    return turns
                for lender, kept in taken:
                    lender.kept = kept
                self._settle(nodes, among.eligible)
                self._add(turns)
            if not draft:
                if views is None or len(views) >= _SETS_KEPT:
                    views = self._views[nodes.membership] = {}
                views[among.eligible] = turns
            return turns

    def _carried(
        self, nodes: NodeSet[Any], eligible: tuple[int, ...]
    ) -> tuple[Sequence[int] | None, list[tuple[Turns, set[int]]]]:
        """Return the claims of a new set, by index, and what those it takes them from keep.

        Of each node those of the latest set that it is in, and what is owed to it.
        """
        missing = set(eligible)
        claims: list[int] | None = None
        taken: list[tuple[Turns, set[int]]] = []
        for turns in islice(reversed(self._sets.values()), _MOST_ASKED):
            if not missing:
                break
            alike = turns.ids is nodes.ids
            if alike:
                found = {i: i for i in missing.intersection(turns.among.eligible)}
            else:
                index = nodes.membership.index
                pairs = ((index.get(turns.ids[i], -1), i) for i in turns.among.eligible)
                found = {here: there for here, there in pairs if here in missing}
            if not found:
                continue
            held = turns.claims()
            if claims is None and alike:
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
        for identity, here in self._owed_here(nodes, eligible):
            claims = claims or [0] * len(nodes)
            claims[here] += self._owed[identity]
        return claims, taken

    def _owed_here(
        self, nodes: NodeSet[Any], eligible: tuple[int, ...]
    ) -> list[tuple[Hashable, int]]:
        if not self._owed:
            return []
        index, mine = nodes.membership.index, set(eligible)
        found = ((identity, index.get(identity, -1)) for identity in self._owed)
        return [(identity, here) for identity, here in found if here in mine]

    def _settle(self, nodes: NodeSet[Any], eligible: tuple[int, ...]) -> None:
        for identity, _ in self._owed_here(nodes, eligible):
            del self._owed[identity]

    def enter(self, turns: Turns) -> None:
        """Note that a set is in use. O(1), and O(n) if its claims were taken over meanwhile."""
        if self._latest is turns:
            return
        with self._lock:
            if self._sets.setdefault(turns.key, turns) is not turns:
                return  # forgotten, and made again for others
            self._sets.move_to_end(turns.key)
            self._latest = turns
            if turns.kept is not None:
                self._owe(turns, set(turns.among.eligible).difference(turns.kept), -1)
                turns.kept = None

    def _add(self, turns: Turns) -> None:
        self._sets[turns.key] = turns
        self._latest = turns
        if len(self._sets) > _SETS_KEPT:
            _, oldest = self._sets.popitem(last=False)
            self._owe(oldest, oldest.among.eligible if oldest.kept is None else oldest.kept, 1)
            oldest.kept = frozenset()

    def _owe(self, turns: Turns, indices: Collection[int], sign: int) -> None:
        """Add the claims of these, or take them off."""
        if not indices:
            return
        claims, owed = turns.claims(), self._owed
        for index in indices:
            identity = turns.ids[index]
            owed[identity] = owed.get(identity, 0) + sign * claims[index]
        if len(owed) > self._most_owed:  # nothing to those who are in no set any more
            known = {other.ids[i] for other in self._sets.values() for i in other.among.eligible}
            self._owed = {identity: owed[identity] for identity in owed.keys() & known}
            self._most_owed = max(_OWED_AT_LEAST, 2 * len(self._owed))


def _key(nodes: NodeSet[Any], among: Candidates) -> object:
    """Return what makes two sets the same."""
    eligible, ids, weights = among.eligible, nodes.ids, among.weights
    if len(eligible) < len(ids):
        ids = tuple([ids[i] for i in eligible])
    if weights is None:
        return ids, eligible
    mine = tuple([weights[i] for i in eligible])
    # 1 and 1.0 are equal but not the same to a rule that treats floats apart.
    return ids, eligible, mine, tuple(map(type, mine))
