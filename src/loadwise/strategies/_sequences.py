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

from collections import Counter
from heapq import heapify, heapreplace
from math import fsum, gcd
from typing import TYPE_CHECKING, Protocol

from loadwise.strategies._fair_schedule import FairSchedule

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LONGEST_CYCLE", "ONE", "Cycle", "Greedy", "Schedule", "Source", "resumed", "shares_of"]

ONE = 2**32
LONGEST_CYCLE = 65_536
_FEWEST, _MOST = 8, 256
_MOST_DISTINCT = 32
_FINEST = 2**40


class Source(Protocol):
    """What lays out a sequence."""

    def chunk(self) -> list[int]:
        """Return the next indices, in order; at least one."""
        ...

    def claims(self) -> list[int]:
        """Return the claims after all that was laid out, by position among the eligible."""
        ...

    def settled(self) -> Source:
        """Return what goes on with the same sequence, and is quicker if it can be."""
        ...


def shares_of(weights: Sequence[int | float]) -> list[float]:
    """Return the parts of one pick that nodes of these weights are due."""
    largest = max(weights)
    parts = [weight / largest for weight in weights]  # so that the sum cannot overflow
    total = fsum(parts)
    return [part / total for part in parts]


def resumed(eligible: Sequence[int], weights: Sequence[int | float], claims: list[int]) -> Source:
    """Return the sequence of these nodes, by position, from these claims on."""
    if weights.count(weights[0]) == len(weights) and max(claims) - min(claims) <= ONE:
        # Equals take turns, the largest claim first.
        order = sorted(range(len(claims)), key=claims.__getitem__, reverse=True)
        return Cycle(eligible, weights, [eligible[position] for position in order], 0, claims)
    if len(set(weights)) <= _MOST_DISTINCT:
        return Greedy(eligible, weights, claims)
    return Schedule(eligible, weights, claims)


class Cycle:
    """A sequence that comes round: ``cycle`` over and over, from ``position`` on.

    Args:
        eligible: The indices in it.
        weights: Their weights, by position.
        cycle: Each index as often as its weight says.
        position: Where to begin.
        claims: The claims at the cycle's first entry.
    """

    __slots__ = ("_block", "_claims", "_cycle", "_eligible", "_position", "_weights")

    def __init__(
        self,
        eligible: Sequence[int],
        weights: Sequence[int | float],
        cycle: Sequence[int],
        position: int,
        claims: list[int],
    ) -> None:
        self._eligible = eligible
        self._weights = weights
        self._cycle = cycle
        self._position = position
        self._claims = claims
        self._block: list[int] = []

    def chunk(self) -> list[int]:
        cycle, position = self._cycle, self._position
        end = position + _MOST
        if position == 0 and 2 * len(cycle) <= _MOST:
            self._block = self._block or [*cycle] * (_MOST // len(cycle))
            return self._block
        self._position = 0 if end >= len(cycle) else end
        return list(cycle[position:end])

    def claims(self) -> list[int]:
        position = self._position
        if not position:
            return self._claims
        served = Counter(self._cycle[:position])
        due = [round(share * position * ONE) for share in shares_of(self._weights)]
        return [
            claim + more - served[index] * ONE
            for claim, more, index in zip(self._claims, due, self._eligible, strict=True)
        ]

    def settled(self) -> Source:
        return self


class Greedy:
    """A sequence that serves the largest claim, one step at a time.

    Claims of equal weights grow alike, so of each weight only the largest is looked at. As soon as
    each node has had its part of one period, it is a `Cycle`.

    Args:
        eligible: The indices in it.
        weights: Their weights, by position.
        claims: Their claims, by position.

    Cost: O(n) to build; O(k + log n) a step, for k distinct weights.
    """

    __slots__ = (
        "_eligible",
        "_given",
        "_groups",
        "_history",
        "_positions",
        "_size",
        "_steps",
        "_total",
        "_weights",
    )

    def __init__(
        self, eligible: Sequence[int], weights: Sequence[int | float], claims: list[int]
    ) -> None:
        self._eligible = eligible
        self._given = weights
        self._weights = _whole(weights)
        self._total = total = sum(self._weights)
        self._positions = range(len(eligible))
        groups: dict[int, list[tuple[int, int]]] = {}
        for position, weight in enumerate(self._weights):
            groups.setdefault(weight, []).append((-claims[position] * total, position))
        for group in groups.values():
            heapify(group)
        # A claim is what stands in the heap, negated, and what all of its weight have grown.
        self._groups = [(weight * ONE, group) for weight, group in groups.items()]
        self._history: list[int] = []
        self._size = _FEWEST
        self._steps = 0

    def chunk(self) -> list[int]:
        size = self._size
        self._size = min(2 * size, _MOST)
        if self._total <= LONGEST_CYCLE:
            size = min(size, self._total - len(self._history))
        groups, price, steps = self._groups, self._total * ONE, self._steps
        eligible = self._eligible
        chosen: list[int] = []
        for step in range(steps + 1, steps + size + 1):
            top = leader = -1
            leading = groups[0][1]
            for growth, group in groups:
                claim, position = group[0]
                claim = step * growth - claim
                if leader < 0 or claim > top or (claim == top and position < leader):
                    top, leader, leading = claim, position, group
            heapreplace(leading, (leading[0][0] + price, leader))
            chosen.append(eligible[leader])
        self._steps = steps + size
        if self._total <= LONGEST_CYCLE:
            self._history += chosen
        return chosen

    def claims(self) -> list[int]:
        claims = [0] * len(self._weights)
        for growth, group in self._groups:
            grown = self._steps * growth
            for claim, position in group:
                claims[position] = (grown - claim) // self._total
        return claims

    def settled(self) -> Source:
        history = self._history
        if len(history) < self._total or self._total > LONGEST_CYCLE:
            return self
        served = Counter(history)
        if all(
            served[i] == weight for i, weight in zip(self._eligible, self._weights, strict=True)
        ):
            return Cycle(self._eligible, self._given, history, 0, self.claims())
        self._history = []
        return self


def _whole(weights: Sequence[int | float]) -> list[int]:
    """Return whole numbers in the proportions of ``weights``; floats to within 2^-40."""
    whole = [weight for weight in weights if isinstance(weight, int)]
    if len(whole) < len(weights):
        largest = max(weights)
        whole = [max(1, round(weight / largest * _FINEST)) for weight in weights]
    divisor = gcd(*whole)
    return [weight // divisor for weight in whole]


class Schedule:
    """A proportionate fair schedule, whose first pick is the largest claim's.

    Args:
        eligible: The indices in it.
        weights: Their weights, by position.
        claims: Their claims, by position; ``None`` for none.
    """

    __slots__ = ("_first", "_schedule")

    def __init__(
        self,
        eligible: Sequence[int],
        weights: Sequence[int | float],
        claims: list[int] | None = None,
    ) -> None:
        by_index: list[int | float] = [0.0] * (max(eligible) + 1)
        for index, weight in zip(eligible, weights, strict=True):
            by_index[index] = weight
        self._first: list[int] = []
        behind: list[float] | None = None
        if claims is not None:
            # Weights may change before every pick. Then each is a first one, and nobody starves.
            behind = [c / ONE + s for c, s in zip(claims, shares_of(weights), strict=True)]
            leader = behind.index(max(behind))
            behind[leader] -= 1
            self._first.append(eligible[leader])
        self._schedule = FairSchedule(eligible, by_index, behind)

    def chunk(self) -> list[int]:
        first, self._first = self._first, []
        return first or self._schedule.chunk()

    def claims(self) -> list[int]:
        return [round(claim * ONE) for claim in self._schedule.claims()]

    def settled(self) -> Source:
        return self
