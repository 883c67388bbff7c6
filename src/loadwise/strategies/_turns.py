"""The turns of one set of candidates: laid out some picks ahead, taken by any number of threads."""

from __future__ import annotations

from itertools import accumulate, count
from operator import mul
from threading import RLock
from typing import TYPE_CHECKING

from loadwise._counter import upcoming
from loadwise.strategies._draws import position_besides, positions_of
from loadwise.strategies._planned import check_excluded, none_left

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from collections.abc import Set as AbstractSet

    from loadwise.strategies._sequences import Candidates, Source
    from loadwise.strategies._thinner import Thinner

__all__ = ["Turns"]

_MOST_SKIPS = 32
_GOLDEN_FRACTION = 0.6180339887498949


class Turns:
    """Turns among the candidates of one set.

    Args:
        key: What it is remembered by.
        ids: The ids, by index.
        among: Whose turns they are.
        source: Lays out the sequence.
        out: The indices of all others, if they are few.

    Attributes:
        known: Whether it is remembered.
        ahead: The turns laid out and not taken, the last one first.
        kept: Indices whose claims no other set has taken over; ``None`` for all.

    Thread-safety: turns are popped off a list, which is atomic; whoever finds it empty lays out
    the next ones under a lock.
    """

    __slots__ = (
        "_lock",
        "_source",
        "_substitutes",
        "_sums",
        "ahead",
        "among",
        "ids",
        "kept",
        "key",
        "known",
        "out",
    )

    def __init__(
        self,
        key: object,
        ids: tuple[Hashable, ...],
        among: Candidates,
        source: Source,
        out: frozenset[int] | None = None,
    ) -> None:
        self.key = key
        self.out = out
        self.known = True
        self.ids = ids
        self.among = among
        self.ahead: list[int] = []
        self.kept: AbstractSet[int] | None = None
        self._sums: list[float] | None = None
        self._substitutes = count(1)
        self._source = source
        self._lock = RLock()  # as in `Book`

    def take(self) -> int:
        """Return the next turn."""
        while True:
            try:
                return self.ahead.pop()
            except IndexError:
                self._lay_out(1)

    def _lay_out(self, wanted: int) -> None:
        with self._lock:
            while len(self.ahead) < wanted:
                self.ahead[:0] = self._source.chunk()[::-1]
                self._source = self._source.settled()

    def claims(self) -> Sequence[int]:
        """Return each node's claim now, by index: what was laid out and not taken is due. O(n).

        Picks that other threads make meanwhile may be counted or not.
        """
        with self._lock:
            return self._source.claims(self.ahead[:])

    def take_besides(
        self, exclude: AbstractSet[int], size: int, thinner: Thinner | None = None
    ) -> int | None:
        """Return the next turn of a node that is not excluded; ``None`` when all are.

        The turns passed over, one a node, are kept for the next who asks.

        Args:
            exclude: Indices.
            size: How many candidates there are.
            thinner: Has nodes in slow start lose turns, if there are any.
        """
        check_excluded(exclude, size)
        if none_left(self.among.eligible, exclude):
            return None
        kept: dict[int, None] = {}
        chosen = self._pass_over(self.take, exclude, kept, thinner)
        self.ahead.extend(reversed(kept))
        if chosen is None:
            return self._substitute(next(self._substitutes), exclude, thinner)
        return chosen

    def peek(
        self, exclude: AbstractSet[int], size: int, thinner: Thinner | None = None
    ) -> int | None:
        """Return what `take_besides` would. The thinner is used up by that."""
        check_excluded(exclude, size)
        if none_left(self.among.eligible, exclude):
            return None
        ahead: list[int] = []
        while len(ahead) < _most_skips(exclude):  # others may take some meanwhile
            self._lay_out(_most_skips(exclude))
            ahead = self.ahead[:]
        chosen = self._pass_over(ahead.pop, exclude, {}, thinner)
        if chosen is None:
            return self._substitute(upcoming(self._substitutes), exclude, thinner)
        return chosen

    def _pass_over(
        self,
        take: Callable[[], int],
        exclude: AbstractSet[int],
        kept: dict[int, None],
        thinner: Thinner | None,
    ) -> int | None:
        for _ in range(_most_skips(exclude)):
            index = take()
            if index in exclude:
                kept[index] = None
            elif thinner is None or thinner.lets(index):
                return index
        return None

    def _substitute(self, number: int, exclude: AbstractSet[int], thinner: Thinner | None) -> int:
        """Return one of the others, by weight: those passed over hold nearly all of it.

        Spread by a sequence that covers the unit interval evenly (multiples of the golden ratio).
        """
        eligible, sums = self.among.eligible, self._sums if thinner is None else thinner.sums
        if sums is None:
            parts = self.among.parts()
            mine = [parts[i] for i in eligible]
            if thinner is None:
                self._sums = sums = list(accumulate(mine))
            else:
                thinner.sums = sums = list(accumulate(map(mul, mine, thinner.parts_of(eligible))))
        out = positions_of(exclude, eligible)
        return eligible[position_besides(sums, out, (number * _GOLDEN_FRACTION) % 1.0)]


def _most_skips(exclude: AbstractSet[int]) -> int:
    # Each may have one turn that was kept, and one of its own before anybody else's.
    return _MOST_SKIPS + 2 * len(exclude)
