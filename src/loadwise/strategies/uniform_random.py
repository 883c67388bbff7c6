"""Uniformly random: every node with the same chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random as RandomSource
from typing import ClassVar

from loadwise._native import mypyc_attr
from loadwise._random import check_rng, fork_of, source_of
from loadwise.context import EMPTY, SelectionContext
from loadwise.node_set import NodeSet
from loadwise.strategies._draws import draw_one
from loadwise.strategies._planned import N, Plan, Planned, check_excluded, followed

__all__ = ["Random"]


@mypyc_attr(allow_interpreted_subclasses=True)
class Random(Planned[N, None, Plan[None]]):
    """Every node with the same chance.

    Use it when many clients share nodes and must not fall into step, and as the baseline that any
    other strategy has to beat. Needs nothing of a node.

    Args:
        rng: Source of randomness; ``None`` for the shared one of the `random` module.

    Raises:
        TypeError: ``rng`` cannot be drawn from.

    Thread-safety: lock-free. Cost: O(1) per pick.

    Example:
        >>> import random
        >>> Random(rng=random.Random(7)).select(["a", "b", "c"])
        0
    """

    takes_any: ClassVar[bool] = True

    def __init__(self, rng: RandomSource | None = None) -> None:
        check_rng(rng)
        self._rng = rng
        self._random = source_of(rng)
        super().__init__()

    def _make_state(self, nodes: NodeSet[N]) -> None:  # noqa: ARG002 - nothing to share
        return None

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
        """Return the index drawn, or ``None`` when none may be chosen."""
        source, plan = self._hot
        if source is not candidates:
            plan = self._resolve(candidates)
        elif not context.exclude:
            random = self._random  # self._random() would look it up as a method, the slow way
            return plan.eligible[int(random() * plan.count)]
        check_excluded(context.exclude, plan.size)
        return draw_one(plan.eligible, self._random, context.exclude)

    def peek(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return what `select` would return, without drawing."""
        draw: Callable[[], float] = fork_of(self._rng)
        plan = self._glance(candidates)
        check_excluded(context.exclude, plan.size)
        return draw_one(plan.eligible, draw, context.exclude)
