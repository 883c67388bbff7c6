"""Whose turn it is, over all the sets of candidates that one balancer asks about.

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

from collections import Counter, OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

from loadwise.strategies._turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from loadwise.strategies._sequences import Source

__all__ = ["Book"]

_SETS_KEPT = 64


class Book:
    """The turns of one owner's sets.

    Thread-safety: a lock for what is remembered, and none to take a turn.
    """

    __slots__ = ("_known", "_latest", "_lock", "_owed", "_sets")

    def __init__(self) -> None:
        self._lock = Lock()
        self._sets: OrderedDict[object, Turns] = OrderedDict()
        self._latest: Turns | None = None
        self._owed: dict[Hashable, int] = {}
        self._known: Counter[Hashable] = Counter()  # in how many sets each id is

    @property
    def blank(self) -> bool:
        """Whether no set was asked about yet."""
        return self._latest is None

    def turns(
        self,
        key: object,
        ids: tuple[Hashable, ...],
        eligible: tuple[int, ...],
        weights: Sequence[int | float],
        make: Callable[[list[int] | None], Source],
        *,
        draft: bool = False,
    ) -> Turns:
        """Return the turns of a set, from now on if it is new. O(n).

        Args:
            key: What tells sets apart.
            ids: The ids of those that may be chosen.
            eligible: Their indices.
            weights: Their weights.
            make: Makes the sequence from claims, by position; ``None`` if no node is known.
            draft: Remember nothing, only look.
        """
        with self._lock:
            turns = self._sets.get(key)
            if turns is not None:
                return turns
            lenders = self._lenders(ids)
            claims: list[int] | None = None
            if lenders:
                claims = list(map(self._owed.get, ids, [0] * len(ids)))  # type: ignore[arg-type]
                for _, lent in lenders:
                    claims = [
                        claim + lent.get(identity, 0)
                        for claim, identity in zip(claims, ids, strict=True)
                    ]
            turns = Turns(key, ids, eligible, weights, make(claims))
            if draft:
                return turns
            for lender, lent in lenders:
                lender.lent.update(lent)
            if self._owed:
                for identity in ids:
                    self._owed.pop(identity, None)
            self._add(turns)
            return turns

    def _lenders(self, ids: tuple[Hashable, ...]) -> list[tuple[Turns, dict[Hashable, int]]]:
        """Return whose claims a new set takes over: of each node those of the latest set it is in.
        """
        missing = {identity for identity in ids if identity in self._known}
        lenders: list[tuple[Turns, dict[Hashable, int]]] = []
        for turns in reversed(self._sets.values()):
            if not missing:
                break
            if missing.isdisjoint(turns.ids):
                continue
            held = dict(zip(turns.ids, turns.claims(), strict=True))
            lent = {identity: held[identity] for identity in missing & held.keys()}
            missing -= lent.keys()
            lenders.append((turns, lent))
        return lenders

    def enter(self, turns: Turns) -> None:
        """Note that a set is in use now. O(1), and O(n) if its claims were taken over meanwhile."""
        if self._latest is turns:
            return
        with self._lock:
            held = self._sets.setdefault(turns.key, turns)
            if held is not turns:
                return  # forgotten, and made again for others
            self._sets.move_to_end(turns.key)
            if turns.lent:
                for identity, claim in turns.lent.items():
                    self._owed[identity] = self._owed.get(identity, 0) - claim
                turns.lent = {}
            self._latest = turns

    def _add(self, turns: Turns) -> None:
        self._sets[turns.key] = turns
        self._known.update(turns.ids)
        self._latest = turns
        if len(self._sets) > _SETS_KEPT:
            self._forget(self._sets.popitem(last=False)[1])

    def _forget(self, turns: Turns) -> None:
        held = dict(zip(turns.ids, turns.claims(), strict=True))
        for identity, claim in held.items():
            if identity not in turns.lent:
                self._owed[identity] = self._owed.get(identity, 0) + claim
        turns.lent = held
        for identity in turns.ids:
            self._known[identity] -= 1
            if not self._known[identity]:
                del self._known[identity]
                self._owed.pop(identity, None)
