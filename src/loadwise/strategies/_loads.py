"""Where a load-based strategy gets its loads from: the nodes, a function, or a measure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from math import inf
from typing import Any, ClassVar, Final, TypeVar

from loadwise._callables import discard, refuse_async, refuse_async_methods, refuse_awaitable
from loadwise._membership import alike
from loadwise._native import mypyc_attr
from loadwise._numbers import number, shown
from loadwise.load import InFlight, LoadMeasure, PeakEwma
from loadwise.node_set import NodeSet
from loadwise.nodes import LoadMetric, node_id
from loadwise.strategies._planned import Plan, Planned, Step
from loadwise.strategies._requirements import require_method

__all__ = ["PLAIN", "Load", "LoadPlan", "LoadPlanned", "as_load", "as_loads", "load_source"]

N = TypeVar("N")

_LEAST_WEIGHT = 1e-300
"""Of the largest: what a weight too small to divide by is taken as."""
_OF_A_MEASURE = ("cell", "load", "rank", "observe", "use_clock", "forget")

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
    """Whether a measure is one that comes with loadwise, so that all it says is a number."""
    return type(measure) in (InFlight, PeakEwma)


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
    """Return the measure, if ``key`` is the rank that leaves the age of requests out."""
    return measure if isinstance(measure, PeakEwma) and key is PeakEwma.rank else None


@mypyc_attr(allow_interpreted_subclasses=True)
class LoadPlan(Plan[Sequence[Any]]):
    """A plan whose ``items`` are what the load is read from, by index.

    Attributes:
        items: What the load is read from, by index.
        choices: The same, by position among the eligible.
        alike: How many may be chosen, if all have the same weight; else 0.
        weights: By position, as parts of the largest; empty if all are alike.
        largest: The largest weight; 0 if all are alike.
        sums: Of the weights up to each position; empty if all are alike.
    """

    __slots__ = ("alike", "choices", "items", "largest", "sums", "weights")

    def __init__(
        self,
        nodes: NodeSet[Any],
        items: Sequence[Any],
        before: LoadPlan | None = None,
        steps: Sequence[Step] = (),
    ) -> None:
        super().__init__(nodes, items)
        self.items = items
        self.choices = list(items) if self.whole else [items[i] for i in self.eligible]
        self.alike = self.count
        self.weights: list[float] = []
        self.sums: list[float] = []
        self.largest: float = 0.0
        if before is None or not self._weigh_after(before, nodes, steps):
            self._weigh(nodes)

    def _weigh(self, nodes: NodeSet[Any]) -> None:
        given = nodes.weights
        if not nodes.membership.uniform and not alike(given, self.eligible):
            mine = given if self.whole else [given[i] for i in self.eligible]
            self.largest = largest = max(mine)
            self.alike = 0
            # Mostly there are few different ones.
            parts = {weight: max(weight / largest, _LEAST_WEIGHT) for weight in set(mine)}
            self.weights = list(map(parts.__getitem__, mine))
            self.sums = list(accumulate(self.weights))

    def patched(
        self, nodes: NodeSet[Any], gone: Sequence[int], back: Sequence[int]
    ) -> LoadPlan | None:
        """Return the plan for a set of which a few others are eligible; see `Planned`.

        ``None`` where the weights are no longer those parts of the largest.
        """
        twin = LoadPlan.__new__(LoadPlan)
        steps = twin.follow(self, gone, back)
        twin.items = self.items
        twin.choices = choices = self.choices.copy()
        for position, index in steps:
            if index is None:
                del choices[position]
            else:
                choices.insert(position, self.items[index])
        twin.alike, twin.weights, twin.sums, twin.largest = twin.count, [], [], 0.0
        return twin if twin._weigh_after(self, nodes, steps) else None  # noqa: SLF001 - its own

    def _weigh_after(self, before: LoadPlan, nodes: NodeSet[Any], steps: Sequence[Step]) -> bool:
        """Take the weights over from the plan before; tell whether they are parts of the same."""
        given, largest = nodes.weights, before.largest
        if nodes.membership.uniform or alike(given, self.eligible):
            return True
        weights = before.weights.copy()
        if not weights:
            return False
        first = len(weights)
        for position, index in steps:
            first = min(first, position)
            if index is None:
                del weights[position]
            elif given[index] <= largest:
                weights.insert(position, max(given[index] / largest, _LEAST_WEIGHT))
            else:
                return False
        if 1.0 not in weights:
            return False
        self.alike, self.largest, self.weights = 0, largest, weights
        self.sums = before.sums[:first]
        start = self.sums.pop() if first else 0.0
        rest = weights[first:]
        self.sums += accumulate(rest, initial=start) if first else accumulate(rest)
        return True

    def over(self, candidates: Sequence[Any]) -> LoadPlan:
        """Return the plan that reads the very objects in ``candidates``."""
        twin = LoadPlan.__new__(LoadPlan)
        twin.eligible, twin.count, twin.size = self.eligible, self.count, self.size
        twin.whole = self.whole
        twin.alike, twin.weights, twin.sums = self.alike, self.weights, self.sums
        twin.largest = self.largest
        twin.state = twin.items = candidates
        twin.choices = [candidates[i] for i in self.eligible]
        return twin


@mypyc_attr(allow_interpreted_subclasses=True)
class LoadPlanned(Planned[N, Sequence[Any], LoadPlan]):
    """Base of the strategies that read a load."""

    takes_any: ClassVar[bool] = True

    def __init__(self, load: Load[N]) -> None:
        self._load, self._measure = load_source(load)
        self._key = rank_source(self._load, self._measure)
        self._ageing = ageing_source(self._key, self._measure)
        # The same, where it is the user's own and may return what it likes.
        self._ask: Callable[[Any], Any] = self._key
        self._own = load is None
        # Whether what is read can be relied upon to be a number.
        self._sound = is_own(self._measure)
        super().__init__()

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

    def _true_load(self, candidates: Sequence[N], plan: LoadPlan, position: int) -> float:
        """Return the load at a position among the eligible, to be compared per weight."""
        item, ask = plan.choices[position], self._load
        return ask(item) if self._sound else as_load(ask(item), candidates[plan.eligible[position]])

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
    ) -> LoadPlan | None:
        return before.patched(nodes, gone, back)

    def _make_plan(self, nodes: NodeSet[N], state: Sequence[Any]) -> LoadPlan:
        items = nodes.membership.nodes if self._measure is None else state
        before, steps = self._one_before(nodes)
        return LoadPlan(nodes, items, before, steps)

    def _one_before(self, nodes: NodeSet[N]) -> tuple[LoadPlan | None, list[Step]]:
        """Return the plan of all nodes before one came or went, if it was the last, and the step.

        The step leads from that plan's weights to those of ``nodes``.
        """
        before = nodes.membership.before
        if before is None:
            return None, []
        source, plan = self._hot
        all_there = plan.whole and len(nodes.eligible) == len(nodes)
        if before[0] is not source.membership or not all_there:
            return None, []
        last = len(nodes) - 1
        return plan, [(last, last) if before[1] is None else (before[1], None)]

    def _check(self, candidates: Sequence[N]) -> None:
        if self._own:
            require_method(candidates, self, "load_score", _REMEDY, _NEEDED_NOW)

    def _resolve(self, candidates: Sequence[N]) -> LoadPlan:
        plan = super()._resolve(candidates)
        if self._measure is not None or isinstance(candidates, NodeSet):
            return plan
        return plan.over(candidates)
