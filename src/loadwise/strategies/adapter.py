"""Adapters that make any strategy keep to views and exclusions.

A strategy of the user's own may know nothing of `NodeSet` views: it looks at all candidates and
returns an index. So it is shown a set that holds only what it may choose, and its answer is
translated back. Whatever the rule, a filter holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from operator import index as as_index
from operator import is_
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from loadwise._callables import refuse_async_methods, refuse_awaitable
from loadwise._numbers import shown as as_text
from loadwise.context import EMPTY, SelectionContext
from loadwise.errors import LoadwiseError
from loadwise.load import LoadMeasure
from loadwise.node_set import NodeSet
from loadwise.strategies._planned import check_excluded
from loadwise.strategies.protocols import Strategy, ViewStrategy

__all__ = [
    "Unforeseeable",
    "Vetted",
    "adapt",
    "check_shareable",
    "is_built_in",
    "share_measures",
    "strategy_name",
]

N = TypeVar("N")

_METHODS = ("select", "peek", "prepare", "facts")


class Unforeseeable(LoadwiseError):  # noqa: N818 - an internal signal, not an error
    """The next choice of a strategy without `peek` cannot be told without making it."""


def adapt(strategy: Strategy[N]) -> ViewStrategy[N]:
    """Return ``strategy`` itself where it knows views, else a wrapper that keeps them from it."""
    if isinstance(strategy, type):
        raise TypeError(
            f"strategy is the class {strategy.__name__}; give an instance: {strategy.__name__}()"
        )
    refuse_async_methods("strategy", strategy, _METHODS, "a pick cannot wait: make it a plain one")
    definer = _definer(strategy, "select")
    if isinstance(strategy, ViewStrategy) and definer is _definer(strategy, "peek"):
        if definer is not None and definer.__module__.startswith("loadwise."):
            return strategy
        return Vetted(strategy)
    if not callable(getattr(strategy, "select", None)):
        raise TypeError(
            f"strategy is {strategy!r}; it needs a method select(candidates, context) that "
            f"returns an index or None"
        )
    return _Adapter(strategy)


def _definer(strategy: object, method: str) -> type | None:
    """Return the class that defines a method: one that replaces only `select` knows no views."""
    return next((each for each in type(strategy).__mro__ if method in each.__dict__), None)


def strategy_name(strategy: object) -> str:
    """Return the name to show for a strategy: its class's."""
    return strategy.name if isinstance(strategy, (_Adapter, Vetted)) else type(strategy).__name__


def is_built_in(strategy: ViewStrategy[N]) -> bool:
    """Tell whether what `adapt` returned is a strategy of this library's."""
    return not isinstance(strategy, (_Adapter, Vetted))


def share_measures(strategy: ViewStrategy[N], measures: Sequence[LoadMeasure]) -> None:
    """Have a new strategy consult these measures in the place of those that it brought.

    Raises:
        TypeError: It cannot, or brought others.
    """
    own = strategy.measures
    if len(own) == len(measures) and all(map(is_, own, measures)):
        return
    take: Callable[[Sequence[LoadMeasure]], None] | None = None
    if len(own) == len(measures) and all(map(isinstance, measures, map(type, own))):
        take = getattr(strategy, "share_measures", None)
    if take is None:
        kinds = ", ".join(type(measure).__name__ for measure in own) or "none"
        raise TypeError(
            f"make returned a {strategy_name(strategy)} with load measures of its own ({kinds}), "
            f"which no balancer would feed; create each measure once, before, and give it to all "
            f"strategies: load = InFlight(), then make=lambda: ...(load)"
        )
    take(measures)


def check_shareable(strategy: ViewStrategy[N]) -> None:
    """Refuse a strategy that cannot choose within a group, before there is a second group.

    Raises:
        TypeError: What it keeps or counts is of all nodes, as its ``needs_all_nodes`` tells.
    """
    if getattr(strategy, "needs_all_nodes", False):
        raise TypeError(
            f"make returned a {strategy_name(strategy)}, which goes by all nodes of a balancer and "
            f"cannot choose within a group; Sticky goes around the groups, as in Sticky(Tiers()), "
            f"and in the place of BoundedLoads give nodes a max_in_flight"
        )


class Vetted(Generic[N]):
    """Passes on what a strategy that knows views is asked, and looks at its answers.

    An index that the view rules out would undo a filter, and one that was excluded might be asked
    for and refused for ever.
    """

    def __init__(self, strategy: ViewStrategy[N]) -> None:
        self.wrapped = strategy
        self.prepare = strategy.prepare
        self.facts = strategy.facts

    @property
    def name(self) -> str:
        """The name of the strategy's class."""
        return type(self.wrapped).__name__

    @property
    def measures(self) -> tuple[LoadMeasure, ...]:
        """The load measures of the strategy."""
        return self.wrapped.measures

    def select(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return the strategy's choice, or raise if the view forbids it."""
        return self._vet("select", self.wrapped.select(candidates, context), candidates, context)

    def peek(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return the strategy's next choice, or raise if the view forbids it."""
        return self._vet("peek", self.wrapped.peek(candidates, context), candidates, context)

    def _vet(
        self, method: str, answer: object, candidates: Sequence[N], context: SelectionContext
    ) -> int | None:
        if answer is None:
            return None
        asked = f"{self.name}.{method}"
        index = _as_index(asked, answer, len(candidates))
        ruled_out = isinstance(candidates, NodeSet) and not candidates.mask[index]
        if ruled_out or index in context.exclude:
            why = "the view rules out" if ruled_out else "is excluded"
            raise LoadwiseError(f"{asked} returned {index}, which {why}")
        return index


class _Adapter(Generic[N]):
    """Shows a strategy only what it may choose."""

    def __init__(self, strategy: Strategy[N]) -> None:
        self.wrapped = strategy
        self._shown: WeakKeyDictionary[NodeSet[N], NodeSet[N]] = WeakKeyDictionary()

    @property
    def name(self) -> str:
        return type(self.wrapped).__name__

    @property
    def measures(self) -> tuple[LoadMeasure, ...]:
        measures: tuple[LoadMeasure, ...] = tuple(getattr(self.wrapped, "measures", ()))
        return measures

    def prepare(self, nodes: NodeSet[N]) -> None:
        """Nothing is known of what the strategy needs."""

    def facts(self, nodes: NodeSet[N]) -> Mapping[str, Sequence[float]]:  # noqa: ARG002
        return {}

    def peek(
        self,
        candidates: Sequence[N],
        context: SelectionContext = EMPTY,
    ) -> int | None:
        check_excluded(context.exclude, len(candidates))
        raise Unforeseeable(f"{self.name} has no peek()")

    def select(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        nodes = candidates if isinstance(candidates, NodeSet) else NodeSet(candidates)
        eligible: Sequence[int] = nodes.eligible
        if context.exclude:
            check_excluded(context.exclude, len(nodes))
            eligible = [i for i in eligible if i not in context.exclude]
            context = context.excluding(frozenset())
            shown = NodeSet([nodes[i] for i in eligible])
        elif len(eligible) == len(nodes):
            shown = nodes
        else:
            kept = self._shown.get(nodes)
            if kept is None:
                kept = self._shown[nodes] = NodeSet([nodes[i] for i in eligible])
            shown = kept
        answer: object = self.wrapped.select(shown, context)
        if answer is None:
            return None
        return eligible[_as_index(f"{self.name}.select", answer, len(shown))]


def _as_index(asked: str, answer: object, size: int) -> int:
    """Return an answer as an index: an int, or whatever serves as one, such as those of NumPy.

    Raises:
        TypeError: It is to be awaited.
        LoadwiseError: It is no index into ``size`` candidates.
    """
    index = -1
    if type(answer) is int:
        index = answer
    elif not isinstance(answer, bool):
        refuse_awaitable(asked, answer, "a pick cannot wait: return an index, or None")
        with suppress(TypeError):
            index = as_index(answer)  # type: ignore[arg-type]  # what is no index says so
    if not 0 <= index < size:
        raise LoadwiseError(
            f"{asked} returned {as_text(answer)}; it must return an index into its {size} "
            f"candidates, or None"
        )
    return index
