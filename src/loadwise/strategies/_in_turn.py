"""Base of the round robins: sets of candidates take turns, each its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from random import Random as RandomSource
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from loadwise._membership import Content, Owner
from loadwise._native import mypyc_attr
from loadwise._numbers import whole
from loadwise._random import check_rng, fork_of, source_of
from loadwise.context import EMPTY, SelectionContext
from loadwise.node_set import NodeSet
from loadwise.strategies._planned import N, Plan, Planned
from loadwise.strategies._sequences import Candidates, Cycle, Source, resumed
from loadwise.strategies._turn_book import Book
from loadwise.strategies._turns import Turns

__all__ = ["InTurn", "TurnPlan"]


class TurnPlan(Plan[Book]):
    """The turns of a set, and those of them that are laid out."""

    __slots__ = ("ahead", "turns")

    def __init__(self, nodes: NodeSet[Any], book: Book, turns: Turns) -> None:
        super().__init__(nodes, book)
        self.turns = turns
        self.ahead = turns.ahead


@mypyc_attr(allow_interpreted_subclasses=True)
class InTurn(Planned[N, Book, TurnPlan]):
    """Base of the strategies that take turns.

    Args:
        start: The first turn of nodes that were never asked about; ``None`` for a random one.
        rng: Source of randomness for that.
    """

    takes_any: ClassVar[bool] = True

    def __init__(self, start: int | None, rng: RandomSource | None) -> None:
        check_rng(rng)
        self._start = None if start is None else whole("start", start, 0)
        self._rng = rng
        self._random = source_of(rng)
        super().__init__()

    def _after_fork(self) -> None:
        self._books: WeakKeyDictionary[Owner, Book] = WeakKeyDictionary()
        self._ownerless = Book()
        super()._after_fork()

    def _identity(self, owner: Owner | None, content: Content) -> object:
        return owner, content

    def _weights(self, nodes: NodeSet[N]) -> Sequence[int | float] | None:  # noqa: ARG002
        """Return the weights to go by, by index; ``None`` where all are alike."""
        return None

    @abstractmethod
    def _first(self, among: Candidates, draw: Callable[[], float]) -> Source:
        """Return the sequence of nodes that nobody knows."""

    def _begin(self, length: int, draw: Callable[[], float]) -> int:
        """Return where to begin in a cycle."""
        return int(draw() * length) if self._start is None else self._start % length

    def _make_state(self, nodes: NodeSet[N]) -> Book:
        owner = nodes.membership.owner
        return self._ownerless if owner is None else self._books.setdefault(owner, Book())

    def _make_plan(self, nodes: NodeSet[N], state: Book) -> TurnPlan:
        return self._planned(nodes, state, self._random, draft=False)

    def _planned(
        self, nodes: NodeSet[N], book: Book, draw: Callable[[], float], *, draft: bool
    ) -> TurnPlan:
        among = Candidates(nodes.eligible, self._weights(nodes), len(nodes))
        if not nodes.eligible:
            return TurnPlan(nodes, book, Turns(None, (), among, Cycle(among, (), 0, ())))

        def make(claims: Sequence[int] | None) -> Source:
            return self._first(among, draw) if claims is None else resumed(among, claims)

        return TurnPlan(nodes, book, book.turns(nodes, among, make, draft=draft))

    def _resolve(self, candidates: Sequence[N]) -> TurnPlan:
        plan = super()._resolve(candidates)
        if plan.count:
            plan.state.enter(plan.turns)
        return plan

    def _glance(self, candidates: Sequence[N]) -> TurnPlan:
        nodes = candidates if isinstance(candidates, NodeSet) else NodeSet(candidates)
        with self._building:
            book = self._make_state(nodes)
        return self._planned(nodes, book, fork_of(self._rng), draft=True)

    def prepare(self, nodes: NodeSet[N]) -> None:
        """Refuse nodes it cannot work with; their turns begin when they are asked about."""
        self._state_of(nodes)

    def select(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return the index whose turn it is, or ``None`` when none may be chosen."""
        source, plan = self._hot
        if source is not candidates:
            plan = self._resolve(candidates)
        elif not context.exclude:
            try:
                return plan.ahead.pop()
            except IndexError:
                return plan.turns.take()
        return plan.turns.take_besides(context.exclude, plan.size)

    def peek(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return what `select` would return, without taking the turn."""
        plan = self._glance(candidates)
        return plan.turns.peek(context.exclude, plan.size)
