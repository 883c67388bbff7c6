"""Most available: the node with the most left of its budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from random import Random as RandomSource
from typing import Any

from loadwise._callables import refuse_awaitable
from loadwise._native import mypyc_attr
from loadwise._numbers import finite, number, shown
from loadwise._random import check_rng, fork_of, source_of
from loadwise.context import EMPTY, SelectionContext
from loadwise.node_set import NodeSet
from loadwise.nodes import node_id
from loadwise.strategies._extremes import draw_highest
from loadwise.strategies._planned import N, Plan, Planned, check_excluded, followed
from loadwise.strategies._requirements import require_method

__all__ = ["MostAvailable"]

_NEEDED_NOW = "a pick cannot wait: find it out beforehand, and return the last number"


@mypyc_attr(allow_interpreted_subclasses=True)
class MostAvailable(Planned[N, None, Plan[None]]):
    """The node with the most ``remaining()``; ties within epsilon at random.

    Use it to spend several budgets (API keys, token allowances) evenly. Needs `RateMetric` nodes.

    Args:
        epsilon: How much less than the most still counts as the same, in the unit of
            ``remaining()``; finite and >= 0. With 0 only exact ties are broken at random.
        rng: Source of randomness for ties; ``None`` for the shared one of the `random` module.

    Raises:
        TypeError: ``rng`` cannot be drawn from; at the pick, when a node has no ``remaining()``.
        ValueError: ``epsilon`` is negative, NaN or infinite.

    A NaN budget counts as none.

    Thread-safety: lock-free. Cost: O(n) per pick.

    Example:
        >>> class Key:
        ...     def __init__(self, id, left):
        ...         self.id, self.left = id, left
        ...     def remaining(self):
        ...         return self.left
        >>> keys = [Key("a", 10), Key("b", 900)]
        >>> keys[MostAvailable().select(keys)].id
        'b'
    """

    def __init__(self, epsilon: float = 0.0, rng: RandomSource | None = None) -> None:
        self._epsilon = finite("epsilon", epsilon)
        if not self._epsilon >= 0:
            raise ValueError(f"epsilon is {epsilon!r}; it must be finite and at least 0")
        check_rng(rng)
        self._rng = rng
        self._random = source_of(rng)
        super().__init__()

    def _make_state(self, nodes: NodeSet[N]) -> None:
        pass

    def _make_plan(self, nodes: NodeSet[N], state: None) -> Plan[None]:
        return Plan(nodes, state)

    def _patch(
        self,
        before: Plan[None],
        nodes: NodeSet[N],  # noqa: ARG002 - all is in the plan
        gone: list[int],
        back: list[int],
    ) -> Plan[None]:
        return followed(before, gone, back)

    def select(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return the index of the node with the most left, or ``None``."""
        source, plan = self._hot
        if source is not candidates:
            plan = self._resolve(candidates)
        return self._most(candidates, plan.eligible, self._random, context)

    def peek(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return what `select` would return, without drawing."""
        eligible = self._glance(candidates).eligible
        return self._most(candidates, eligible, fork_of(self._rng), context)

    def facts(self, nodes: NodeSet[N]) -> Mapping[str, Sequence[float]]:
        """Return what each node has left."""
        return {"remaining": [_left(node) for node in nodes]}

    def _check(self, candidates: Sequence[N]) -> None:
        require_method(candidates, self, "remaining", "", _NEEDED_NOW)

    def _most(
        self,
        candidates: Sequence[N],
        eligible: Sequence[int],
        draw: Callable[[], float],
        context: SelectionContext,
    ) -> int | None:
        nodes = candidates.membership.nodes if isinstance(candidates, NodeSet) else candidates
        if context.exclude:
            check_excluded(context.exclude, len(candidates))
            eligible = [i for i in eligible if i not in context.exclude]
        if len(eligible) < len(nodes):
            nodes = [nodes[i] for i in eligible]
        budgets = [_left(node) for node in nodes]
        position = draw_highest(budgets, draw, self._epsilon)
        return None if position is None else eligible[position]


def _left(node: object) -> float:
    rated: Any = node  # checked when the plan was made, but for what it returns
    left = rated.remaining()
    if isinstance(left, (int, float)):
        return left
    identity = node_id(node)
    refuse_awaitable(f"remaining() of node {identity!r}", left, _NEEDED_NOW)
    try:
        return number("remaining()", left)
    except ValueError:  # beyond what a float can hold
        return inf
    except TypeError:
        raise TypeError(
            f"remaining() of node {identity!r} returned {shown(left)}; it must return a number"
        ) from None
