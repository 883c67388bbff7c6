"""Base of the strategies that first choose a group of nodes, then one within it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right, insort
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from math import nan
from random import Random as RandomSource
from threading import RLock
from typing import Any, Final, Generic, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

from loadwise._callables import refuse_async, refuse_awaitable
from loadwise._fork import ForkAware, reset_in_child
from loadwise._membership import Membership
from loadwise._native import let_go, mypyc_attr
from loadwise._numbers import shown
from loadwise._random import OwnDraws, check_rng
from loadwise.context import EMPTY, SelectionContext
from loadwise.load import InFlight, LoadMeasure
from loadwise.node_set import NodeSet
from loadwise.nodes import node_id, refuse_text
from loadwise.strategies._draws import position_besides
from loadwise.strategies._group_plan import (
    Division,
    GroupPlan,
    GroupView,
    Headcount,
    Stage,
    looked_over,
)
from loadwise.strategies._groups import Inner, Layout, laid_out
from loadwise.strategies._planned import check_excluded
from loadwise.strategies.adapter import adapt, check_shareable, share_measures
from loadwise.strategies.power_of_two_choices import PowerOfTwoChoices
from loadwise.strategies.protocols import Strategy, ViewStrategy

__all__ = ["Grouped"]

N = TypeVar("N")

_NOBODY: Final[frozenset[int]] = frozenset()
_NEEDED_NOW: Final = "a pick cannot wait: make it a plain function"


@mypyc_attr(allow_interpreted_subclasses=True)
class Grouped(ForkAware, ABC, Generic[N]):
    """Base of the strategies that first choose a group of nodes, then one within it.

    Args:
        make: Makes a strategy; called once for each group.
        rng: Source of randomness for the choice of the group.

    Thread-safety: plans are immutable and swapped by one assignment; to make one takes a lock.
    """

    def __init__(self, make: Callable[[], Strategy[N]], rng: RandomSource | None) -> None:
        check_rng(rng)
        self._make = make
        self._draws = OwnDraws(rng)
        self._random = self._draws.random
        self._rng = rng
        # The strategy of the first group to come, made now, so that its measures are known.
        self._spare: ViewStrategy[N] | None = None
        self._counter: InFlight | None = None
        self._measures: tuple[LoadMeasure, ...]
        if make is PowerOfTwoChoices:
            self._counter = InFlight()
            self._measures = (self._counter,)
        else:
            self._spare = self._made()
            check_shareable(self._spare)
            self._measures = self._spare.measures
        self._inner: WeakValueDictionary[Hashable, Inner[N]] = WeakValueDictionary()
        self._layouts: WeakKeyDictionary[Membership[N], Layout[N]] = WeakKeyDictionary()
        self._plans: WeakKeyDictionary[NodeSet[N], GroupPlan[N]] = WeakKeyDictionary()
        self._latest: Layout[N] = Layout([], [])
        nothing: NodeSet[N] = NodeSet(())
        self._lock = RLock()
        self._hot: tuple[NodeSet[N], GroupPlan[N]] = (
            nothing,
            GroupPlan(self._latest, [], [], Division((), (), None, mixes=True)),
        )
        reset_in_child(self)

    def _after_fork(self) -> None:
        self._lock = RLock()
        self._draws.renew()

    @abstractmethod
    def _key(self, node: N) -> Hashable:
        """Return what puts a node into its group.

        Raises:
            TypeError: The node lacks what is read from it.
            ValueError: That is out of range.
        """

    @abstractmethod
    def _order(self, keys: Iterable[Any]) -> list[Any]:
        """Return the keys of groups in the order in which they are asked."""

    @abstractmethod
    def _divide(self, counts: Sequence[Headcount]) -> Division:
        """Return what each group is given."""

    def _check(self, layout: Layout[N], *, afresh: bool) -> None:
        """Raise ``ValueError`` where it cannot work with these groups.

        Args:
            layout: The groups.
            afresh: Whether these are all nodes, given at once and not one after the other.
        """

    @property
    def measures(self) -> tuple[LoadMeasure, ...]:
        """The load measures that the groups' strategies consult; all groups share them."""
        return self._measures

    def share_measures(self, measures: Sequence[LoadMeasure]) -> None:
        """Have the groups' strategies consult these measures in the place of their own."""
        if self._spare is not None:
            share_measures(self._spare, measures)
        for measure in measures:
            if isinstance(measure, InFlight) and self._counter is not None:
                self._counter = measure
        self._measures = tuple(measures)

    def shares(self, nodes: Sequence[N]) -> dict[Any, float]:
        """Return what each group is given, in per cent, by what its nodes have in common.

        Args:
            nodes: A `NodeSet`; or any other sequence of nodes, which are all taken to be available.

        Raises:
            TypeError: A node lacks what puts it into a group.

        Cost: as `select`.
        """
        plan = self._glance(nodes)
        return {
            count.key: percent
            for count, percent in zip(plan.counts, plan.division.percents, strict=True)
        }

    def select(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return the index chosen in the group that was drawn, or ``None`` when none is left."""
        source, plan = self._hot
        if source is not candidates:
            plan = self._resolve(candidates)
        last = plan.last
        if context.exclude or last < 0:
            return self._search(plan, context, self._random, [], peeking=False)
        position = 0
        if last:
            random, sums = self._random, plan.sums  # self._random() would be the slow way
            position = bisect_right(sums, random() * sums[last], 0, last)
        part = plan.parts[position]
        index = part.strategy.select(part.nodes, context)
        if index is None:
            return self._search(plan, context, self._random, [position], peeking=False)
        return part.indices[index]

    def peek(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return what `select` would return, without drawing."""
        plan = self._glance(candidates)
        return self._search(plan, context, self._draws.fork(), [], peeking=True)

    def _search(
        self,
        plan: GroupPlan[N],
        context: SelectionContext,
        draw: Callable[[], float],
        out: list[int],
        *,
        peeking: bool,
    ) -> int | None:
        """Ask one group after the other, but those ``out`` of the first stage."""
        if context.exclude:
            check_excluded(context.exclude, len(plan.layout.number))
        excluded = plan.layout.split(context.exclude)
        for stage in plan.stages:
            while len(out) < len(stage.parts):
                position = _next(stage, out, draw)
                part = stage.parts[position]
                index = _ask(part, context, excluded.get(part.number), peeking=peeking)
                if index is not None:
                    return part.indices[index]
                insort(out, position)
            out = []
        return None

    def prepare(self, nodes: NodeSet[N]) -> None:
        """Have the strategy of every group prepare for its nodes; refuse unfit ones."""
        layout = self._layout_of(nodes)
        members = nodes.membership
        self._check(layout, afresh=members.before is None and not members.is_part)
        for group in layout.groups:
            group.inner.strategy.prepare(group.whole)
        self._resolve(nodes)

    def facts(self, nodes: NodeSet[N]) -> Mapping[str, Sequence[float]]:
        """Return the share of each node's group in per cent, and what its strategy goes by.

        Where groups are divided further, the share is that of the innermost one in all requests.
        """
        plan = self._glance(nodes)
        size = len(nodes)
        columns: dict[str, list[float]] = {"share": [nan] * size}
        divided = zip(plan.layout.groups, plan.views, plan.division.percents, strict=True)
        for group, view, percent in divided:
            indices = group.indices
            for index in indices:
                columns["share"][index] = percent
            for name, values in group.inner.strategy.facts(view).items():
                column = columns.setdefault(name, [nan] * size)
                factor = percent / 100 if name == "share" else 1
                for index, value in zip(indices, values, strict=True):
                    column[index] = value * factor
        return columns

    def _resolve(self, candidates: Sequence[N]) -> GroupPlan[N]:
        """Return the plan for ``candidates``, made now if it is not kept."""
        plan = self._glance(candidates)
        if isinstance(candidates, NodeSet):
            replaced = self._hot
            self._hot = (candidates, plan)
            let_go(replaced)
        return plan

    def _glance(self, candidates: Sequence[N]) -> GroupPlan[N]:
        """Return the plan that `_resolve` would, and have it found at once the next time only."""
        if not isinstance(candidates, NodeSet):
            refuse_text(candidates)
            with self._lock:
                return self._make_plan(NodeSet(candidates))
        with self._lock:
            plan = self._plans.get(candidates)
            if plan is None:
                plan = self._plans[candidates] = self._make_plan(candidates)
            return plan

    def _make_plan(self, nodes: NodeSet[N]) -> GroupPlan[N]:
        """Work out whom to ask for one of ``nodes``. O(nodes that may not be chosen).

        O(those that may), where it is not known which may not.
        """
        layout = self._layout_of(nodes)
        views, counts = looked_over(layout, nodes)
        return GroupPlan(layout, views, counts, self._divide(counts))

    def _layout_of(self, nodes: NodeSet[N]) -> Layout[N]:
        with self._lock:
            layout = self._layouts.get(nodes.membership)
            if layout is None:
                layout = self._lay_out(nodes)
                self._layouts[nodes.membership] = self._latest = layout
            return layout

    def _lay_out(self, nodes: NodeSet[N]) -> Layout[N]:
        """Lay the groups out: of all nodes, or from the layout before one came or went."""
        members, before = nodes.membership.nodes, nodes.membership.before
        known = None if before is None else self._layouts.get(before[0])
        if before is None or known is None:
            keys = [self._key(node) for node in members]
            return laid_out(nodes, keys, self._order, self._inner_of, self._latest)
        cut = before[1]
        if cut is None:
            key = self._key(members[-1])
            layout = known.joined(members[-1], key)
            keys = [*known.keys(), key]
        else:
            layout = known.parted(cut)
            keys = known.keys()
            del keys[cut]
        if layout is None:
            return laid_out(nodes, keys, self._order, self._inner_of, known)
        return layout

    def _inner_of(self, key: Hashable, nodes: Sequence[N]) -> Inner[N]:
        """Return the strategy of a group, made now if there is none."""
        inner = self._inner.get(key)
        if inner is None:
            inner = self._inner[key] = Inner(self._strategy_for(nodes))
        return inner

    def _strategy_for(self, nodes: Sequence[N]) -> ViewStrategy[N]:
        if self._counter is not None:
            own = all(callable(getattr(node, "load_score", None)) for node in nodes)
            rng = None
            if isinstance(self._rng, RandomSource):
                # What it draws must not change what is drawn here.
                rng = RandomSource(self._rng.getrandbits(64))
            return PowerOfTwoChoices(None if own else self._counter, rng)
        strategy, self._spare = self._spare, None
        if strategy is None:
            strategy = self._made()
            share_measures(strategy, self._measures)
        return strategy

    def _made(self) -> ViewStrategy[N]:
        make: Any = self._make
        if not callable(make):
            remedy = "give a class, such as RoundRobin, or a function"
            if hasattr(make, "select"):
                remedy = "each group needs one of its own: make=lambda: ..., or the class"
            raise TypeError(f"make is {shown(make)}; it must make strategies: {remedy}")
        refuse_async("make", make, _NEEDED_NOW)
        strategy: Any = make()
        refuse_awaitable("make", strategy, _NEEDED_NOW)
        return adapt(strategy)

    def _read(self, node: N, attribute: str) -> object:
        """Return an attribute of a node that says which group it is in."""
        value = getattr(node, attribute, self)
        if value is self:
            raise TypeError(
                f"{type(self).__name__} needs `{attribute}` of every node, but node "
                f"{node_id(node)!r} has none; give its class ({type(node).__name__}) that "
                f"attribute, or use loadwise.Endpoint"
            )
        return value


def _next(stage: Stage[N], out: Sequence[int], draw: Callable[[], float]) -> int:
    """Return the position of the group to ask next, none of ``out``."""
    sums, count = stage.sums, len(stage.parts)
    if sums is not None and count - len(out) > 1:
        return position_besides(sums, out, draw())
    return next(p for p in range(count) if p not in out)


def _ask(
    part: GroupView[N], context: SelectionContext, excluded: list[int] | None, *, peeking: bool
) -> int | None:
    if context.exclude:
        exclude = _NOBODY if excluded is None else frozenset(excluded)
        context = context.excluding(exclude)
    if peeking:
        return part.strategy.peek(part.nodes, context)
    return part.strategy.select(part.nodes, context)
