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
from loadwise.strategies._draws import share_of_full
from loadwise.strategies._planned import N, Plan, Planned
from loadwise.strategies._sequences import Candidates, Cycle, Source, resumed
from loadwise.strategies._thinner import Credits, Thinner
from loadwise.strategies._turn_book import Book
from loadwise.strategies._turns import Turns

__all__ = ["InTurn", "TurnPlan"]


class TurnPlan(Plan[Book]):
    """The turns of a set, and those of them that are laid out.

    Where turns are to be thinned, none of those is for the taking without a second look.
    """

    __slots__ = ("ahead", "thinner", "turns")

    def __init__(
        self, nodes: NodeSet[Any], book: Book, turns: Turns, thinner: Thinner | None = None
    ) -> None:
        super().__init__(nodes, book)
        self.turns = turns
        self.thinner = thinner
        self.ahead = turns.ahead if thinner is None else []


@mypyc_attr(allow_interpreted_subclasses=True)
class InTurn(Planned[N, Book, TurnPlan]):
    """Base of the strategies that take turns.

    Args:
        start: The first turn of nodes that were never asked about; ``None`` for a random one.
        rng: Source of randomness for that.
    """

    takes_any: ClassVar[bool] = True
    _weighted: ClassVar[bool] = False
    """True if nodes take turns by weight."""

    def __init__(self, start: int | None, rng: RandomSource | None) -> None:
        check_rng(rng)
        self._start = None if start is None else whole("start", start, 0)
        self._rng = rng
        self._random = source_of(rng)
        super().__init__()

    def _after_fork(self) -> None:
        self._books: WeakKeyDictionary[Owner, Book] = WeakKeyDictionary()
        self._ownerless = Book()
        self._credits: WeakKeyDictionary[Owner, Credits] = WeakKeyDictionary()
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
        weights = self._weights(nodes.at_full_weight)
        among = Candidates(nodes.eligible, weights, len(nodes))
        if not nodes.eligible:
            return TurnPlan(nodes, book, Turns(None, (), among, Cycle(among, (), 0, ())))

        def make(claims: Sequence[int] | None) -> Source:
            return self._first(among, draw) if claims is None else resumed(among, claims)

        turns = book.turns(nodes, among, make, draft=draft)
        return TurnPlan(nodes, book, turns, self._thinner(nodes, draft=draft))

    def _thinner(self, nodes: NodeSet[N], *, draft: bool) -> Thinner | None:
        """Return what thins the turns of nodes in slow start, where weights count."""
        if nodes.warm_up is None or not self._weighted:
            return None
        owner = nodes.membership.owner
        if draft or owner is None:
            known = None if owner is None else self._credits.get(owner)
            saved = Credits() if known is None else known.copy()
        else:
            saved = self._credits.setdefault(owner, Credits())
        saved.keep([nodes.ids[i] for i in nodes.warm_up.factors])
        return Thinner(nodes.ids, share_of_full(nodes), saved)

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
                if plan.thinner is None:
                    return plan.turns.take()
        return plan.turns.take_besides(context.exclude, plan.size, plan.thinner)

    def peek(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return what `select` would return, without taking the turn."""
        plan = self._glance(candidates)
        return plan.turns.peek(context.exclude, plan.size, plan.thinner)
