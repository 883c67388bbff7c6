"""Plans of the strategies that read a load: of the nodes, by a function, or of a measure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any, ClassVar, Final, TypeVar

from loadwise._callables import discard, refuse_async, refuse_async_methods, refuse_awaitable
from loadwise._native import mypyc_attr
from loadwise._numbers import number, shown
from loadwise.load import InFlight, LoadMeasure, PeakEwma
from loadwise.node_set import NodeSet
from loadwise.nodes import LoadMetric, node_id
from loadwise.strategies._planned import Plan, Planned
from loadwise.strategies._requirements import require_method
from loadwise.strategies._weight_table import WeightTable, table_for

__all__ = ["PLAIN", "Load", "LoadPlan", "LoadPlanned", "as_load", "as_loads", "load_source"]

N = TypeVar("N")

_NO_HOLES: Final[frozenset[int]] = frozenset()
_OF_A_MEASURE = ("cell", "load", "rank", "observe", "use_clock", "forget", "first_byte")

Load = Callable[[N], float] | LoadMeasure | None

PLAIN: Final = frozenset({float, int})
"""The kinds of loads that need no second look."""

_NEEDED_NOW = "a pick cannot wait: measure beforehand, and return the last number"
_REMEDY = "; add it, or give the strategy a load= (such as loadwise.load.InFlight())"


def _own_load(node: LoadMetric) -> float:
    return node.load_score()


def load_source(load: Load[N]) -> tuple[Callable[[Any], float], LoadMeasure | None]:
    """Return the function that reads one load, and the measure it belongs to, if any."""
    if load is None:
        return _own_load, None
    if isinstance(load, type) and hasattr(load, "observe"):
        raise TypeError(f"load is the class {load.__name__}; give an instance: {load.__name__}()")
    if isinstance(load, LoadMeasure):
        refuse_async_methods("load", load, _OF_A_MEASURE, _NEEDED_NOW)
        return load.load, load
    if callable(load):
        refuse_async("load", load, _NEEDED_NOW)
        return load, None
    raise TypeError(
        f"load is {load!r}; it must be None (each node's own load_score()), a function of a node, "
        f"or a measure from loadwise.load"
    )


def as_load(answer: object, node: object) -> float:
    """Return what a load was found to be as a number that compares with others.

    Raises:
        TypeError: It is no number.
    """
    if isinstance(answer, (int, float)):
        return answer
    identity = node_id(node)
    refuse_awaitable(f"load, asked of node {identity!r},", answer, _NEEDED_NOW)
    try:
        return number("load", answer)
    except ValueError:  # beyond what a float can hold
        return inf
    except TypeError:
        raise TypeError(
            f"the load of node {identity!r} is {shown(answer)}; it must be a number"
        ) from None


def as_loads(answers: Sequence[Any], nodes: Iterable[object]) -> list[float]:
    """Return what the loads of some nodes were found to be, as `as_load` does."""
    try:
        return [
            answer if answer.__class__ is float else as_load(answer, node)
            for answer, node in zip(answers, nodes, strict=True)
        ]
    except TypeError:
        for answer in answers:
            discard(answer)
        raise


def is_own(measure: LoadMeasure | None) -> bool:
    """Tell whether a measure is one that comes with loadwise, so that all it says is a number."""
    return isinstance(measure, (InFlight, PeakEwma)) and type(measure).__module__.startswith(
        "loadwise."
    )


def rank_source(
    load: Callable[[Any], float], measure: LoadMeasure | None
) -> Callable[[Any], float]:
    """Return what orders items as ``load`` does, at the least cost.

    A measure's ``rank`` is that of its ``load``: one that was inherited does not go with a
    ``load`` of a subclass's own.
    """
    if measure is not None:
        for kind in type(measure).__mro__:
            if "rank" in vars(kind):
                rank: Callable[[Any], float] = getattr(measure, "rank")  # noqa: B009 - optional
                return rank
            if "load" in vars(kind):
                break
    return load


def ageing_source(key: Callable[[Any], float], measure: LoadMeasure | None) -> PeakEwma | None:
    """Return the measure, if ``key`` is the rank that leaves the age of requests out.

    A ``rank`` is that where its class has an ``aged_rank`` of its own, too.
    """
    if not isinstance(measure, PeakEwma) or key == measure.load:
        return None
    ranks = next(kind for kind in type(measure).__mro__ if "rank" in vars(kind))
    return measure if "aged_rank" in vars(ranks) else None


@mypyc_attr(allow_interpreted_subclasses=True)
class LoadPlan(Plan[Sequence[Any]]):
    """A plan whose ``items`` are what the load is read from, by index.

    Attributes:
        items: What the load is read from, by index.
        choices: The same, by position among the eligible.
        alike: How many may be chosen, if all have the same weight; else 0.
        table: The weights, where they differ: of these nodes or of all with the same membership.
        holes: Positions in the table that may not be chosen.
    """

    __slots__ = ("alike", "choices", "holes", "items", "table")

    def __init__(
        self, nodes: NodeSet[Any], items: Sequence[Any], table: WeightTable | None = None
    ) -> None:
        super().__init__(nodes, items)
        self.items = items
        self.choices = list(items) if self.whole else [items[i] for i in self.eligible]
        self._weigh(nodes, table)

    def _weigh(self, nodes: NodeSet[Any], table: WeightTable | None) -> None:
        self.alike, self.table, self.holes = self.count, table, _NO_HOLES
        if not nodes.alike:
            self.alike = 0
            self.table, self.holes = table_for(nodes, table)

    def patched(self, nodes: NodeSet[Any], gone: Sequence[int], back: Sequence[int]) -> LoadPlan:
        """Return the plan for the same nodes with a few others eligible; see `Planned`."""
        twin = LoadPlan.__new__(LoadPlan)
        steps = twin.follow(self, gone, back)
        twin.items = self.items
        twin.choices = choices = self.choices.copy()
        for position, index in steps:
            if index is None:
                del choices[position]
            else:
                choices.insert(position, self.items[index])
        twin._weigh(nodes, self.table)  # noqa: SLF001 - its own
        return twin

    def over(self, candidates: Sequence[Any]) -> LoadPlan:
        """Return the plan that reads the very objects in ``candidates``."""
        twin = LoadPlan.__new__(LoadPlan)
        twin.eligible, twin.count, twin.size = self.eligible, self.count, self.size
        twin.whole = self.whole
        twin.alike, twin.table, twin.holes = self.alike, self.table, self.holes
        twin.state = twin.items = candidates
        twin.choices = [candidates[i] for i in self.eligible]
        return twin


@mypyc_attr(allow_interpreted_subclasses=True)
class LoadPlanned(Planned[N, Sequence[Any], LoadPlan]):
    """Base of the strategies that read a load."""

    takes_any: ClassVar[bool] = True

    def __init__(self, load: Load[N]) -> None:
        self._consult(load)
        super().__init__()

    def _consult(self, load: Load[N]) -> None:
        self._load, self._measure = load_source(load)
        self._key = rank_source(self._load, self._measure)
        self._ageing = ageing_source(self._key, self._measure)
        # The same, where it is the user's own and may return what it likes.
        self._ask: Callable[[Any], Any] = self._key
        self._own = load is None
        # Whether what is read can be relied upon to be a number.
        self._sound = is_own(self._measure)

    def share_measures(self, measures: Sequence[LoadMeasure]) -> None:
        """Consult a measure in the place of its own, before it has been asked for anything."""
        for measure in measures:
            self._consult(measure)

    @property
    def measures(self) -> tuple[LoadMeasure, ...]:
        """The load measure it consults, if it was given one."""
        return () if self._measure is None else (self._measure,)

    def facts(self, nodes: NodeSet[N]) -> dict[str, Sequence[float]]:
        """Return the loads."""
        ask: Callable[[Any], Any] = self._load
        return {"load": as_loads([ask(item) for item in self._resolve(nodes).items], nodes)}

    def _load_of(self, candidates: Sequence[N], plan: LoadPlan, index: int) -> float:
        """Return what a node's load is by `_key`."""
        item = plan.items[index]
        return self._key(item) if self._sound else as_load(self._ask(item), candidates[index])

    def _true_load(self, candidates: Sequence[N], plan: LoadPlan, index: int) -> float:
        """Return a node's load, to be compared per weight."""
        item, ask = plan.items[index], self._load
        return ask(item) if self._sound else as_load(ask(item), candidates[index])

    def _eased(self, plan: LoadPlan, table: WeightTable, index: int, load: float) -> float:
        """Return a load as it is to be compared per weight while some nodes are in slow start.

        A latency is as long for a node in slow start as for others: what counts for more there is
        a request in flight, not the one to come. Else a node that is idle would look busy.
        """
        if self._ageing is None or table.warm_up is None:
            return load
        factor = table.warm_up.factors.get(index, 1.0)
        pending = self._ageing.pending(plan.items[index])
        return load * (pending + factor) / (pending + 1)

    def _make_state(self, nodes: NodeSet[N]) -> Sequence[Any]:
        if self._measure is None:
            return ()
        cells = self._cells_before(nodes)
        return [self._measure.cell(i) for i in nodes.ids] if cells is None else cells

    def _cells_before(self, nodes: NodeSet[N]) -> list[Any] | None:
        """Return the cells, if those of the membership that this one was made from are known."""
        before = nodes.membership.before
        if before is None or self._measure is None:
            return None
        with self._lock:
            known = self._states.get(before[0])
        if known is None:
            return None
        cells = list(known)
        if before[1] is None:
            cells.append(self._measure.cell(nodes.ids[-1]))
        else:
            del cells[before[1]]
        return cells

    def _patch(
        self, before: LoadPlan, nodes: NodeSet[N], gone: list[int], back: list[int]
    ) -> LoadPlan:
        return before.patched(nodes, gone, back)

    def _make_plan(self, nodes: NodeSet[N], state: Sequence[Any]) -> LoadPlan:
        items = nodes.membership.nodes if self._measure is None else state
        return LoadPlan(nodes, items, self._table_before(nodes))

    def _table_before(self, nodes: NodeSet[N]) -> WeightTable | None:
        """Return the weights, if those of the membership that this one was made from are known."""
        if len(nodes.tally) <= 1:
            return None
        source, plan = self._hot
        before = nodes.membership.before
        if source.membership is nodes.membership or plan.table is None:
            return plan.table
        if before is None or before[0] is not source.membership:
            return None
        full = plan.table.reweighted(NodeSet.of_membership(before[0]))
        return full.after(NodeSet.of_membership(nodes.membership), before[1])

    def _check(self, candidates: Sequence[N]) -> None:
        if self._own:
            require_method(candidates, self, "load_score", _REMEDY, _NEEDED_NOW)

    def _resolve(self, candidates: Sequence[N]) -> LoadPlan:
        plan = super()._resolve(candidates)
        if self._measure is not None or isinstance(candidates, NodeSet):
            return plan
        return plan.over(candidates)
