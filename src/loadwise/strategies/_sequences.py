"""Sequences that serve nodes in proportion to their weights, starting from any claims.

A node's *claim* is how many picks it is behind its share, negative where it is ahead. The rule is
nginx's: each pick adds its share to every claim, and the largest claim is served, which takes 1
from it. Claims are whole numbers of `ONE`, so that what one sequence hands on to another is exact.

The rule bounds the claims even if nodes come and go and weights change before every pick. With n
nodes at most present at a time, no claim is above H = 1 + 1/2 + ... + 1/n after a pick: a pick
takes 1 from the k largest or has one above them all to show, so by induction the mean of the k
largest is at most 1 + 1/(k+1) + ... + 1/n (P. Dietz and D. Sleator, "Two algorithms for maintaining
order in a list", STOC 1987: the cup game). And none is below 1 - n, by a like induction over the
sums of the k smallest.
"""

from __future__ import annotations

from array import array
from collections import Counter
from heapq import heapify, heapreplace
from math import fsum, gcd
from operator import add
from typing import TYPE_CHECKING, Protocol

from loadwise.strategies._fair_schedule import FairSchedule

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["LONGEST_CYCLE", "ONE", "Candidates", "Cycle", "Greedy", "Schedule", "Source", "resumed"]

ONE = 720_720 * 2**12
"""The least common multiple of 1 to 16, so that thirds and sevenths of a pick are whole, too."""
LONGEST_CYCLE = 65_536
_FEWEST, _MOST = 8, 256
_MOST_DISTINCT = 32
_FINEST = 2**40


class Candidates:
    """Candidates that take turns, and what each is due.

    Attributes:
        eligible: The indices of those that may be chosen, ascending; at least one.
        weights: Weights by index; ``None`` where all are alike.
        size: How many indices there are.
    """

    __slots__ = ("_parts", "eligible", "size", "weights")

    def __init__(
        self, eligible: tuple[int, ...], weights: Sequence[int | float] | None, size: int
    ) -> None:
        self.eligible = eligible
        self.weights = weights
        self.size = size
        self._parts: list[float] | None = None

    def parts(self) -> list[float]:
        """Return what part of a pick each is due, by index. O(n) once."""
        if self._parts is None:
            weights = self.weights or [1] * self.size
            largest = max([weights[i] for i in self.eligible])
            self._parts = [0.0] * self.size
            for i in self.eligible:
                self._parts[i] = weights[i] / largest  # so that the sum cannot overflow
            total = fsum(self._parts)
            self._parts = [part / total for part in self._parts]
        return self._parts

    def after(
        self,
        claims: Sequence[int],
        picks: int,
        served: Iterable[int],
        untaken: Sequence[int] = (),
    ) -> list[int]:
        """Return claims by index after so many picks, which served these; O(n).

        Args:
            claims: The claims before.
            picks: How many picks.
            served: Whom they served.
            untaken: Whom later picks were to serve that are counted in the claims, and not made.
        """
        if self.weights is None:
            size = len(self.eligible)
            due = round(picks * ONE / size) - round(len(untaken) * ONE / size)
            claims = [claim + due for claim in claims]
        else:
            parts = self.parts()
            # Mostly there are few different ones.
            dues = {
                part: round(part * picks * ONE) - round(part * len(untaken) * ONE)
                for part in set(parts)
            }
            claims = list(map(add, claims, map(dues.__getitem__, parts)))
        for index in served:
            claims[index] -= ONE
        for index in untaken:
            claims[index] += ONE
        return claims


class Source(Protocol):
    """Source that lays out a sequence."""

    def chunk(self) -> Sequence[int]:
        """Return the next indices, in order; at least one."""
        ...

    def claims(self, untaken: Sequence[int] = ()) -> Sequence[int]:
        """Return the claims after all that was laid out but the last of it, by index."""
        ...

    def settled(self) -> Source:
        """Return what goes on with the same sequence, and is quicker if it can be."""
        ...


def resumed(among: Candidates, claims: Sequence[int]) -> Source:
    """Return the sequence that goes on from these claims, by index."""
    eligible, weights = among.eligible, among.weights
    if weights is None:
        # Equals take turns, the largest claim first.
        order = sorted(eligible, key=claims.__getitem__, reverse=True)
        if claims[order[0]] - claims[order[-1]] <= ONE:
            return Cycle(among, order, 0, claims)
        return Greedy(among, claims)
    if len({weights[i] for i in eligible}) <= _MOST_DISTINCT:
        return Greedy(among, claims)
    return Schedule(among, claims)


class Cycle:
    """A sequence that comes round: ``cycle`` over and over, from ``position`` on.

    Args:
        among: Whose turns they are.
        cycle: Each index as often as its weight says.
        position: Where to begin.
        claims: The claims at the cycle's first entry, by index.
    """

    __slots__ = ("_among", "_block", "_claims", "_cycle", "_position")

    def __init__(
        self, among: Candidates, cycle: Sequence[int], position: int, claims: Sequence[int]
    ) -> None:
        self._among = among
        self._cycle = cycle
        self._position = position
        self._claims = array("q", claims)
        self._block: list[int] = []

    def chunk(self) -> Sequence[int]:
        """Return the next part of the cycle, or as many whole ones as there is room for."""
        cycle, position = self._cycle, self._position
        if position == 0 and 2 * len(cycle) <= _MOST:
            self._block = self._block or [*cycle] * (_MOST // len(cycle))
            return self._block
        end = position + _MOST
        self._position = 0 if end >= len(cycle) else end
        return cycle[position:end]

    def claims(self, untaken: Sequence[int] = ()) -> Sequence[int]:
        """Return the claims at the position reached, or as many picks before."""
        position = self._position
        if not position and not untaken:
            return self._claims
        return self._among.after(self._claims, position, self._cycle[:position], untaken)

    def settled(self) -> Source:
        """Return itself."""
        return self


class Greedy:
    """A sequence that serves the largest claim, one step at a time.

    Claims of equal weights grow alike, so of each weight only the largest is looked at. As soon as
    each node has had its part of one period, it is a `Cycle`.

    Args:
        among: Whose turns they are.
        claims: Their claims, by index.

    Cost: O(n) to build; O(k + log n) a step, for k distinct weights.
    """

    __slots__ = ("_among", "_groups", "_history", "_size", "_steps", "_total", "_weights")

    def __init__(self, among: Candidates, claims: Sequence[int]) -> None:
        self._among = among
        self._weights = _whole(among)
        self._total = total = sum(self._weights)
        groups: dict[int, list[tuple[int, int]]] = {}
        if among.weights is None:
            groups[1] = [(-claims[index] * total, index) for index in among.eligible]
        else:
            for index, weight in zip(among.eligible, self._weights, strict=True):
                groups.setdefault(weight, []).append((-claims[index] * total, index))
        for group in groups.values():
            heapify(group)
        # A claim is what stands in the heap, negated, and what all of its weight have grown.
        self._groups = [(weight * ONE, group) for weight, group in groups.items()]
        self._history: list[int] = []
        self._size = _FEWEST
        self._steps = 0

    def chunk(self) -> Sequence[int]:
        """Return the next steps: few at first, because the set may not be asked about again."""
        size = self._size
        self._size = min(2 * size, _MOST)
        if self._total <= LONGEST_CYCLE:
            size = min(size, self._total - len(self._history))
        groups, price, steps = self._groups, self._total * ONE, self._steps
        chosen: list[int] = []
        for step in range(steps + 1, steps + size + 1):
            top = leader = -1
            leading = groups[0][1]
            for growth, group in groups:
                claim, index = group[0]
                claim = step * growth - claim
                if leader < 0 or claim > top or (claim == top and index < leader):
                    top, leader, leading = claim, index, group
            heapreplace(leading, (leading[0][0] + price, leader))
            chosen.append(leader)
        self._steps = steps + size
        if self._total <= LONGEST_CYCLE:
            self._history += chosen
        return chosen

    def claims(self, untaken: Sequence[int] = ()) -> Sequence[int]:
        """Return the claims after the last step, or as many steps before."""
        claims = [0] * self._among.size
        for growth, group in self._groups:
            grown = self._steps * growth
            for claim, index in group:
                claims[index] = (grown - claim) // self._total
        return self._among.after(claims, 0, (), untaken) if untaken else claims

    def settled(self) -> Source:
        """Return the last period as a cycle, if in it each node had its part."""
        history = self._history
        if len(history) < self._total or self._total > LONGEST_CYCLE:
            return self
        served = Counter(history)
        parts = zip(self._among.eligible, self._weights, strict=True)
        if all(served[index] == weight for index, weight in parts):
            return Cycle(self._among, history, 0, self.claims())
        self._history = []
        return self


def _whole(among: Candidates) -> list[int]:
    """Return whole numbers in the proportions of the weights; of floats to within 2^-40."""
    if among.weights is None:
        return [1] * len(among.eligible)
    weights = [among.weights[i] for i in among.eligible]
    whole = [weight for weight in weights if isinstance(weight, int)]
    if len(whole) < len(weights):
        largest = max(weights)
        whole = [max(1, round(weight / largest * _FINEST)) for weight in weights]
    divisor = gcd(*whole)
    return [weight // divisor for weight in whole]


class Schedule:
    """A proportionate fair schedule, whose first pick is the largest claim's.

    Args:
        among: Whose turns they are.
        claims: Their claims, by index; ``None`` for none.
        first: Who is served first; ``None`` for the largest claim.
    """

    __slots__ = ("_among", "_first", "_schedule")

    def __init__(
        self, among: Candidates, claims: Sequence[int] | None = None, first: int | None = None
    ) -> None:
        self._among = among
        self._first: list[int] = []
        behind: list[float] | None = None
        if claims is not None:
            # Weights may change before every pick. Then each is a first one, and nobody starves.
            parts = among.parts()
            behind = [claims[i] / ONE + parts[i] for i in among.eligible]
            leader = behind.index(max(behind)) if first is None else among.eligible.index(first)
            behind[leader] -= 1
            self._first.append(among.eligible[leader])
        weights = among.weights or [1] * among.size
        self._schedule = FairSchedule(among.eligible, weights, behind)

    def chunk(self) -> Sequence[int]:
        """Return the next picks."""
        first, self._first = self._first, []
        return first or self._schedule.chunk()

    def claims(self, untaken: Sequence[int] = ()) -> Sequence[int]:
        """Return the claims after the last pick, or as many picks before."""
        claims = [0] * self._among.size
        for index, claim in zip(self._among.eligible, self._schedule.claims(), strict=True):
            claims[index] = round(claim * ONE)
        return self._among.after(claims, 0, (), untaken) if untaken else claims

    def settled(self) -> Source:
        """Return itself."""
        return self
