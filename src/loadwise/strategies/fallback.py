"""Ask another strategy where the first has nothing to offer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from loadwise._native import let_go, mypyc_attr
from loadwise.context import EMPTY, SelectionContext
from loadwise.load import LoadMeasure
from loadwise.node_set import NodeSet
from loadwise.strategies.adapter import adapt, share_measures
from loadwise.strategies.protocols import Strategy, ViewStrategy

__all__ = ["FallbackChain", "WithFallback"]

N = TypeVar("N")


@mypyc_attr(allow_interpreted_subclasses=True)
class FallbackChain(Generic[N]):
    """The choice of the first strategy that has one.

    Use it for tiers: each strategy `Filtered` to the nodes of its tier, best tier first. All are
    asked about the same candidates with the same exclusions. While a balancer is in panic, all are
    asked for a node that is not ailing before any is asked for an ailing one.

    Args:
        strategies: At least one, in the order to ask.

    Raises:
        TypeError: An entry is not a strategy.
        ValueError: There are none.

    Thread-safety and cost: those of the strategies asked.

    Example:
        >>> from loadwise import Endpoint, Filtered, FnFilter, RoundRobin
        >>> tiers = FallbackChain(
        ...     [
        ...         Filtered(RoundRobin(), FnFilter(lambda node: node.priority == 0)),
        ...         Filtered(RoundRobin(), FnFilter(lambda node: node.priority == 1)),
        ...     ]
        ... )
        >>> nodes = [Endpoint("spare", priority=1), Endpoint("main", priority=0)]
        >>> tiers.select(nodes), tiers.select(nodes, SelectionContext(exclude={1}))
        (1, 0)
    """

    def __init__(self, strategies: Iterable[Strategy[N]]) -> None:
        self._strategies: tuple[ViewStrategy[N], ...] = tuple(map(adapt, strategies))
        if not self._strategies:
            raise ValueError("FallbackChain has no strategies; give at least one")
        # The first is asked at every pick, and mostly nobody else.
        self._first, *self._rest = self._strategies
        # The candidates of the last pick, and what of them to ask for first.
        self._kept: tuple[Sequence[N], Sequence[N]] = ((), ())

    @property
    def measures(self) -> tuple[LoadMeasure, ...]:
        """The load measures that any of the strategies consults."""
        return tuple(measure for each in self._strategies for measure in each.measures)

    def share_measures(self, measures: Sequence[LoadMeasure]) -> None:
        """Have the strategies consult these measures in the place of their own."""
        rest = list(measures)
        for each in self._strategies:
            count = len(each.measures)
            share_measures(each, rest[:count])
            del rest[:count]

    def select(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return the first index that a strategy chooses, or ``None`` when none does."""
        known, well = self._kept
        if known is not candidates:
            well = self._look(candidates)
        index = self._first.select(well, context)
        if index is None:
            index = self._ask_others(well, context)
            if index is None and well is not candidates:
                return self._ask_all(candidates, context)
        return index

    def _look(self, candidates: Sequence[N]) -> Sequence[N]:
        if not isinstance(candidates, NodeSet):
            return candidates
        well = candidates.well
        replaced = self._kept
        self._kept = (candidates, well)
        let_go(replaced)
        return well

    def _ask_all(self, candidates: Sequence[N], context: SelectionContext) -> int | None:
        index = self._first.select(candidates, context)
        return self._ask_others(candidates, context) if index is None else index

    def _ask_others(self, candidates: Sequence[N], context: SelectionContext) -> int | None:
        for strategy in self._rest:
            index = strategy.select(candidates, context)
            if index is not None:
                return index
        return None

    def peek(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return what `select` would return, changing nothing."""
        well = candidates.well if isinstance(candidates, NodeSet) else candidates
        for asked in (well,) if well is candidates else (well, candidates):
            for strategy in self._strategies:
                index = strategy.peek(asked, context)
                if index is not None:
                    return index
        return None

    def prepare(self, nodes: NodeSet[N]) -> None:
        """Have every strategy prepare for ``nodes``."""
        for strategy in self._strategies:
            strategy.prepare(nodes)

    def facts(self, nodes: NodeSet[N]) -> Mapping[str, Sequence[float]]:
        """Return what the choices are based on; an earlier strategy's facts win by name."""
        facts: dict[str, Sequence[float]] = {}
        for strategy in reversed(self._strategies):
            facts.update(strategy.facts(nodes))
        return facts


@mypyc_attr(allow_interpreted_subclasses=True)
class WithFallback(FallbackChain[N]):
    """The choice of a primary strategy, or else of a secondary one.

    Args:
        primary: Asked first.
        secondary: Asked when the primary chooses nothing.

    Raises:
        TypeError: An argument is not a strategy.

    Thread-safety and cost: those of the strategies asked.

    Example:
        >>> from loadwise import Filtered, FnFilter, LeastLoad, Random
        >>> local = Filtered(Random(), FnFilter(lambda node: node.startswith("eu")))
        >>> strategy = WithFallback(local, Random())
        >>> strategy.select(["us-1", "eu-1"]), strategy.select(["us-1"])
        (1, 0)
    """

    def __init__(self, primary: Strategy[N], secondary: Strategy[N]) -> None:
        super().__init__((primary, secondary))
