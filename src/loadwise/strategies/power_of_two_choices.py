"""Power of two choices: of two nodes drawn at random, the less loaded one."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from random import Random as RandomSource
from typing import Any

from loadwise._native import mypyc_attr
from loadwise._random import check_rng, fork_of, source_of
from loadwise.context import EMPTY, SelectionContext
from loadwise.strategies._draws import draw_one, position_besides
from loadwise.strategies._load_plans import Load, LoadPlan, LoadPlanned, as_loads
from loadwise.strategies._planned import N, check_excluded, none_left
from loadwise.strategies._weight_table import WeightTable

__all__ = ["PowerOfTwoChoices"]


@mypyc_attr(allow_interpreted_subclasses=True)
class PowerOfTwoChoices(LoadPlanned[N]):
    """Of two distinct nodes drawn at random, the less loaded one; on a tie the one drawn first.

    Use it by default. It is nearly as good as asking every node for its load, costs the same at
    any fleet size, and where many clients act on the same stale loads it does not send them all
    to the one node that looked best.

    Args:
        load: ``None`` for each node's own ``load_score()``, a function of a node, or a measure
            from `loadwise.load` that a Balancer feeds. Lower is better. A NaN load loses.
        rng: Source of randomness; ``None`` for the shared one of the `random` module.

    Raises:
        TypeError: ``load`` or ``rng`` is of the wrong kind; at the pick, when ``load`` is
            ``None`` and a node has no ``load_score()``, or when a load is no number.

    Where weights differ, nodes are drawn by weight, and what is compared is load / weight, as in
    nginx's ``least_conn``: idle nodes of weights 9 and 1 share picks 9 to 1, and so do busy ones.
    A node without a weight has weight 1.

    Thread-safety: lock-free. Cost: O(1) per pick: two draws, two loads; O(log n) where weights
    differ.

    Source: M. Mitzenmacher, "The power of two choices in randomized load balancing", IEEE
    Transactions on Parallel and Distributed Systems 12(10), 2001.

    Example:
        >>> busy = {"a": 4, "b": 1}
        >>> nodes = ["a", "b"]
        >>> nodes[PowerOfTwoChoices(load=busy.get).select(nodes)]
        'b'
    """

    def __init__(self, load: Load[N] = None, rng: RandomSource | None = None) -> None:
        check_rng(rng)
        self._rng = rng
        self._random = source_of(rng)
        super().__init__(load)

    def _consult(self, load: Load[N]) -> None:
        super()._consult(load)
        self._prefers: Callable[[Any, Any], bool] | None = None
        if self._ageing is not None:
            self._prefers = self._ageing.prefers
        elif self._sound:  # without a function around it that would only be called to call it
            self._prefers = getattr(self._measure, "prefers", None)

    def select(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return the index of the less loaded of two, or ``None`` when none may be chosen."""
        source, plan = self._hot
        if source is not candidates:
            plan = self._resolve(candidates)
        count = plan.alike
        if context.exclude or count < 2:  # noqa: PLR2004 - two choices
            return self._among(candidates, plan, self._random, context)
        random = self._random
        first = int(random() * count)
        second = int(random() * (count - 1))
        if second >= first:
            second += 1
        choices = plan.choices
        prefers = self._prefers
        if prefers is not None:
            chosen = first if prefers(choices[first], choices[second]) else second
            return chosen if plan.whole else plan.eligible[chosen]
        if self._sound:
            key = self._key
            one = key(choices[first])
            other = key(choices[second])
        else:
            mine: Any
            theirs: Any
            if self._own:  # without a function around it that would only be called to call it
                mine = choices[first].load_score()
                theirs = choices[second].load_score()
            else:
                ask = self._ask
                mine = ask(choices[first])
                theirs = ask(choices[second])
            kind = mine.__class__
            if kind is not theirs.__class__ or (kind is not float and kind is not int):
                pair = candidates[plan.eligible[first]], candidates[plan.eligible[second]]
                mine, theirs = as_loads((mine, theirs), pair)
            one, other = mine, theirs
        # The pair is drawn in either order alike, so on a tie its first is a random one.
        chosen = first if one <= other or other != other else second  # noqa: PLR0124 - only NaN
        return chosen if plan.whole else plan.eligible[chosen]

    def peek(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return what `select` would return, without drawing."""
        return self._among(candidates, self._glance(candidates), fork_of(self._rng), context)

    def _among(
        self,
        candidates: Sequence[N],
        plan: LoadPlan,
        draw: Callable[[], float],
        context: SelectionContext,
    ) -> int | None:
        exclude = context.exclude
        check_excluded(exclude, plan.size)
        if plan.table is not None and not plan.alike:
            return self._by_weight(candidates, plan, plan.table, draw, exclude)
        if not exclude and plan.count > 1:
            first = int(draw() * plan.count)
            second = int(draw() * (plan.count - 1))
            return self._better(
                candidates, plan, plan.eligible[first], plan.eligible[second + (second >= first)]
            )
        if not exclude:
            return plan.eligible[0] if plan.count else None
        one = draw_one(plan.eligible, draw, exclude)
        if one is None:
            return None
        other = draw_one(plan.eligible, draw, exclude | {one})
        return one if other is None else self._better(candidates, plan, one, other)

    def _better(self, candidates: Sequence[N], plan: LoadPlan, one: int, other: int) -> int:
        if self._prefers is not None:
            return one if self._prefers(plan.items[one], plan.items[other]) else other
        first = self._load_of(candidates, plan, one)
        second = self._load_of(candidates, plan, other)
        return one if first <= second or second != second else other  # noqa: PLR0124

    def _by_weight(
        self,
        candidates: Sequence[N],
        plan: LoadPlan,
        table: WeightTable,
        draw: Callable[[], float],
        exclude: AbstractSet[int],
    ) -> int | None:
        """Draw both by weight, and compare what they bear per weight."""
        if none_left(plan.eligible, exclude):
            return None
        holes, indices = plan.holes, table.indices
        out: list[int] = []
        if exclude:
            out = table.positions(exclude, holes)
            first = table.draw(out, holes, draw)
        else:  # the same, without the calls
            sums = table.sums
            first = min(bisect_right(sums, draw() * sums[-1]), len(sums) - 1)
            if first in holes:
                first = table.draw(out, holes, draw)
        one = indices[first]
        insort(out, first)
        if len(out) == plan.count:
            return one
        second = position_besides(table.sums, out, draw())
        other = indices[table.draw(out, holes, draw) if second in holes else second]
        mine = self._true_load(candidates, plan, one) / table.parts[one]
        theirs = self._true_load(candidates, plan, other) / table.parts[other]
        if table.warm_up is not None:
            mine = self._eased(plan, table, one, mine)
            theirs = self._eased(plan, table, other, theirs)
        return one if mine <= theirs or theirs != theirs else other  # noqa: PLR0124
