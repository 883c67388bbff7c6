"""Consistent hashing with bounded loads: a key passes on nodes that have more than their share."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import ceil, isfinite
from typing import Any, ClassVar, Final

from loadwise._native import mypyc_attr
from loadwise._numbers import finite, shown
from loadwise.context import EMPTY, HashKey, SelectionContext
from loadwise.load import Cell, InFlight, LoadMeasure
from loadwise.node_set import NodeSet
from loadwise.strategies._planned import N, Plan, Planned
from loadwise.strategies.protocols import KeyOrder

__all__ = ["BoundedLoads"]

_DIGITS: Final = 9
"""Decimals of a bound that count, so that 1.1 times 10 requests of 11 are 1 and not a bit more."""


class _AllInFlight(InFlight):
    """Counts the requests of all nodes together: every node has the one counter."""

    def _after_fork(self) -> None:
        super()._after_fork()
        self._everybody = Cell()

    def cell(self, node_id: Hashable) -> Cell:  # noqa: ARG002 - the same for all
        """Return the counter of all nodes."""
        return self._everybody


class _LoadCounters:
    """Counters and weights of a membership, by index. Immutable."""

    __slots__ = ("cells", "parts")

    def __init__(self, nodes: NodeSet[Any], loads: InFlight) -> None:
        self.cells = [loads.cell(identity) for identity in nodes.ids]
        self.parts = _parts(nodes.weights)


@mypyc_attr(allow_interpreted_subclasses=True)
class _BoundPlan(Plan[_LoadCounters]):
    """Counters and weights, and the sum of the weights of those that may be chosen."""

    __slots__ = ("cells", "parts", "total", "warming")

    def __init__(self, nodes: NodeSet[Any], counters: _LoadCounters) -> None:  # only indices matter
        super().__init__(nodes, counters)
        self.cells = counters.cells
        # Those of the view are less for nodes in slow start.
        self.warming = nodes.warm_up is not None
        self.parts = _parts(nodes.weights) if self.warming else counters.parts
        self.total = sum(map(self.parts.__getitem__, self.eligible))

    def patched(self, gone: Sequence[int], back: Sequence[int]) -> _BoundPlan:
        """Return the plan for a set of which a few others are eligible; see `Planned`."""
        twin = _BoundPlan.__new__(_BoundPlan)
        twin.follow(self, gone, back)
        twin.cells, twin.parts, twin.warming = self.cells, self.parts, False
        # Added up again, for differences of floats would add up to an error.
        twin.total = sum(map(self.parts.__getitem__, twin.eligible))
        return twin


@mypyc_attr(allow_interpreted_subclasses=True)
class BoundedLoads(Planned[N, _LoadCounters, _BoundPlan]):
    """The node of a key, or the next in its order that has less than its bound in flight.

    Use it where keys should stay on their nodes and some are so popular that one node cannot serve
    them alone: a hot key spills over to the next nodes, and the others stay.

    No node is given a request by which it would hold more than ``ceil(factor * m * share)``, where
    m is the number of requests in flight, the new one included, and its share is that of its weight
    among the nodes that may be chosen. A node with nothing in flight always has room. Where a
    request excludes so many that nobody else has room, shares are those among the rest.

    Args:
        inner: A strategy of the hash family: `ConsistentHash`, `Maglev`, `Rendezvous`, `JumpHash`.
        factor: How far above the mean a load may be, > 1. 1.25 is usual; the nearer to 1, the more
            even the loads, and the more keys are away from home.

    Loads are the leases of a `Balancer`; without one they read zero, and the choice is that of
    ``inner``. `owner` and `owners` tell where a key is at home, and do not depend on loads.

    Raises:
        TypeError: ``inner`` has no order of nodes for a key, or ``factor`` is no number.
        ValueError: ``factor`` is not above 1; else as ``inner``.

    Thread-safety: that of ``inner``; counts are exact without a lock. Threads that choose at the
    same moment do not see each other's choice, so each of them may take the last place.

    Cost: that of ``inner``, and O(1) expected beside: of nodes that are full, one in ``factor`` at
    most is met.

    Source: V. Mirrokni, M. Thorup, M. Zadimoghaddam, "Consistent hashing with bounded loads", 2016;
    as HAProxy's hash-balance-factor.

    Example:
        >>> from loadwise import Balancer, ConsistentHash
        >>> balancer = Balancer(["a", "b", "c", "d"], BoundedLoads(ConsistentHash(), factor=1.5))
        >>> leases = [balancer.acquire(hash_key="hot") for _ in range(8)]
        >>> sorted(status.in_flight for status in balancer.status())
        [0, 2, 3, 3]
        >>> for lease in leases:
        ...     _ = lease.success()
    """

    needs_all_nodes: ClassVar[bool] = True
    """Tells that it cannot choose within a group of nodes: it counts the requests of all."""

    def __init__(self, inner: KeyOrder[N], factor: float = 1.25) -> None:
        if not _is_key_order(inner):
            raise TypeError(
                f"inner is {_what(inner)}; BoundedLoads needs a strategy with an order of nodes "
                f"for a key, such as ConsistentHash(); Sticky and the like go around it"
            )
        self._inner = inner
        self._factor = finite("factor", factor)
        if not self._factor > 1:
            raise ValueError(
                f"factor is {shown(factor)}; it must be finite and above 1, such as 1.25: with 1 "
                f"or less all nodes could be full"
            )
        self._loads = InFlight()
        self._total = _AllInFlight()
        super().__init__()

    def _after_fork(self) -> None:
        super()._after_fork()
        self._in_flight = self._total.cell(None)

    @property
    def measures(self) -> tuple[LoadMeasure, ...]:
        """The load measures it consults: requests in flight, by node and of all together."""
        return (self._loads, self._total)

    def _make_state(self, nodes: NodeSet[N]) -> _LoadCounters:
        return _LoadCounters(nodes, self._loads)

    def _make_plan(self, nodes: NodeSet[N], state: _LoadCounters) -> _BoundPlan:
        return _BoundPlan(nodes, state)

    def _patch(
        self,
        before: _BoundPlan,
        nodes: NodeSet[N],
        gone: list[int],
        back: list[int],
    ) -> _BoundPlan | None:
        warming = before.warming or nodes.warm_up is not None
        return None if warming else before.patched(gone, back)

    def prepare(self, nodes: NodeSet[N]) -> None:
        """Have the inner strategy prepare for ``nodes``, and do so, too."""
        self._inner.prepare(nodes)
        super().prepare(nodes)

    def select(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return the index of the first node in the key's order with room, or ``None``."""
        source, plan = self._hot
        if source is not candidates:
            plan = self._resolve(candidates)
        index = self._inner.select(candidates, context)
        if index is None:
            return None
        load = len(plan.cells[index])
        # Who has nothing to do has room in any case.
        if not load or load < self._bound(plan, index, plan.total):
            return index
        return self._next(candidates, plan, context)

    def peek(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return what `select` would return: it changes nothing."""
        return self.select(candidates, context)

    def owner(self, candidates: Sequence[N], hash_key: HashKey) -> int | None:
        """Return the index of the node where a key is at home, as the inner strategy does."""
        return self._inner.owner(candidates, hash_key)

    def owners(self, candidates: Sequence[N], hash_key: HashKey, k: int) -> list[int]:
        """Return the indices of the first ``k`` nodes for a key, as the inner strategy does."""
        return self._inner.owners(candidates, hash_key, k)

    def facts(self, nodes: NodeSet[N]) -> Mapping[str, Sequence[float]]:
        """Return the loads, and up to where nodes may be given another request."""
        plan = self._resolve(nodes)
        bounds = [0] * len(nodes)
        for index in plan.eligible:
            bounds[index] = max(1, self._bound(plan, index, plan.total))
        return {"load": list(map(len, plan.cells)), "bound": bounds}

    def _bound(self, plan: _BoundPlan, index: int, total: float) -> int:
        """Return how much a node may hold with the next request, given the sum of the weights."""
        in_flight = len(self._in_flight) + 1
        return ceil(round(self._factor * in_flight * plan.parts[index] / total, _DIGITS))

    def _next(
        self, candidates: Sequence[N], plan: _BoundPlan, context: SelectionContext
    ) -> int | None:
        exclude, cells = context.exclude, plan.cells
        totals = [plan.total]
        if exclude:
            totals.append(sum([plan.parts[i] for i in plan.eligible if i not in exclude]))
        for total in totals:
            for index in self._inner.ranking(candidates, context.hash_key):
                if index not in exclude:
                    load = len(cells[index])
                    if not load or load < self._bound(plan, index, total):
                        return index
        return None


def _parts(weights: Sequence[int | float]) -> Sequence[int | float]:
    if isfinite(sum(weights)):
        return weights
    largest = max(weights)
    return [weight / largest for weight in weights]


def _is_key_order(inner: object) -> bool:
    return isinstance(inner, KeyOrder) and not isinstance(inner, type)


def _what(inner: object) -> str:
    if isinstance(inner, type):
        return f"the class {inner.__name__}; an instance is needed, {inner.__name__}()"
    return type(inner).__name__
