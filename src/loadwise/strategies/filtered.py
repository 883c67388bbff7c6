"""A strategy that sees only the nodes a filter accepts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from loadwise._native import let_go, mypyc_attr
from loadwise.context import EMPTY, SelectionContext
from loadwise.filters import NOTHING_KEPT, Kept, as_filter
from loadwise.load import LoadMeasure
from loadwise.node_set import NodeSet
from loadwise.strategies.adapter import adapt, share_measures
from loadwise.strategies.protocols import Strategy

__all__ = ["Filtered"]

N = TypeVar("N")


@mypyc_attr(allow_interpreted_subclasses=True)
class Filtered(Generic[N]):
    """Chooses by ``strategy`` among the nodes that ``accept`` accepts.

    Args:
        strategy: Any strategy.
        accept: A `Filter`, or a function of a node.

    Raises:
        TypeError: ``strategy`` is not a strategy or ``accept`` is not callable.

    Thread-safety: that of the strategy and the filter.

    Cost: on a NodeSet, that of the strategy while what the filter depends on stays the same
    (health, quota; for `by_zone` and its kin the membership). At the next pick after that changed
    O(nodes not accepted) where a `HealthTracker` or a `QuotaTracker` knows them, else O(n). O(n)
    per pick for a function, whose answers may change at any time, and on a plain
    sequence.

    Example:
        >>> from loadwise import HealthFilter, HealthTracker, RoundRobin
        >>> health = HealthTracker()
        >>> turns = Filtered(RoundRobin(), HealthFilter.available(health))
        >>> for _ in range(3):
        ...     health.report_failure("b")
        >>> [turns.select(["a", "b", "c"]) for _ in range(4)]
        [0, 2, 0, 2]
    """

    def __init__(self, strategy: Strategy[N], accept: Callable[[N], bool]) -> None:
        self._strategy = adapt(strategy)
        self._filter = as_filter(accept)
        self._kept: Kept[N] = NOTHING_KEPT

    @property
    def measures(self) -> tuple[LoadMeasure, ...]:
        """The load measures that the strategy consults."""
        return self._strategy.measures

    def share_measures(self, measures: Sequence[LoadMeasure]) -> None:
        """Have the strategy consult these measures in the place of its own."""
        share_measures(self._strategy, measures)

    def select(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return the index chosen among the accepted, or ``None`` when none is left."""
        # As `Filter.view` does; written out, because it is most of what a pick costs beside the
        # rule.
        known, view, source, version = self._kept
        if known is candidates and source.version == version:
            return self._strategy.select(view, context)
        return self._strategy.select(self._look(candidates), context)

    def _look(self, candidates: Sequence[N]) -> NodeSet[N]:
        view = self._filter.view(candidates)
        kept = self._filter._lasting(candidates, view)  # noqa: SLF001 - the two are one mechanism
        if kept is not None:
            replaced = self._kept
            self._kept = kept
            let_go(replaced)
        return view

    def peek(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return what `select` would return, changing nothing."""
        return self._strategy.peek(self._filter.view(candidates), context)

    def prepare(self, nodes: NodeSet[N]) -> None:
        """Have the strategy prepare for ``nodes``."""
        self._strategy.prepare(self._filter.view(nodes))

    def facts(self, nodes: NodeSet[N]) -> Mapping[str, Sequence[float]]:
        """Return what the strategy's choice is based on."""
        return self._strategy.facts(nodes)
