"""Plans made from the one before are those that would be made from the beginning."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.balancer.test_complexity import calls
from tests.compiled import COMPILED
from tests.strategies.support import Server

from loadwise import (
    ConsistentHash,
    InFlight,
    LeastLoad,
    MostAvailable,
    NodeSet,
    PeakEwma,
    PowerOfTwoChoices,
    Random,
    SelectionContext,
    WeightedRandom,
)
from loadwise._membership import Membership, Owner
from loadwise.load import LoadMeasure
from loadwise.strategies._planned import Plan, Planned
from loadwise.strategies._weight_table import WeightTable

MAKERS: dict[str, Callable[[], Planned[Any, Any, Any]]] = {
    "P2C, InFlight": lambda: PowerOfTwoChoices(load=InFlight()),
    "P2C, PeakEwma": lambda: PowerOfTwoChoices(load=PeakEwma()),
    "P2C, own load": PowerOfTwoChoices,
    "LeastLoad": lambda: LeastLoad(load=InFlight()),
    "Random": Random,
    "WeightedRandom": WeightedRandom,
    "MostAvailable": MostAvailable,
    "ConsistentHash": lambda: ConsistentHash(virtual_nodes=3, max_points=64),
}
ALIAS = ("alias", "cells", "keep", "mask", "width")
every_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)

WEIGHTS = st.sampled_from([0, 1, 1, 2, 3, 1.0, 1e-320])


def facts(plan: Plan[Any]) -> dict[str, object]:
    """Return all that a plan holds; cells and nodes by identity, and of weights the chances."""
    told: dict[str, object] = {}
    for kind in type(plan).__mro__:
        for name in getattr(kind, "__slots__", ()):
            value = getattr(plan, name)
            by_identity = name in ("items", "choices", "state") and isinstance(value, Sequence)
            told[name] = list(map(id, value)) if by_identity else value
    table, holes = told.pop("table", None), told.pop("holes", frozenset())
    if "alias" in told:
        told["chances"] = drawn({name: told.pop(name) for name in ALIAS})
        return told
    if isinstance(table, WeightTable) and told["alike"] != plan.count:
        assert isinstance(holes, frozenset)
        told["chances"] = chances(table, holes)
    return told


def drawn(plan: dict[str, Any]) -> dict[int, float]:
    """Return the chance of each index that an alias table may draw."""
    weights: dict[int, float] = {}
    for own, keep, other in zip(plan["cells"], plan["keep"], plan["alias"], strict=True):
        weights[own] = weights.get(own, 0.0) + keep
        weights[other] = weights.get(other, 0.0) + 1.0 - keep
    mask, total = plan["mask"], sum(weights.values())
    assert total == pytest.approx(plan["width"])
    total = sum(weight for index, weight in weights.items() if mask[index])
    return {index: weight / total for index, weight in weights.items() if mask[index]}


def chances(table: WeightTable, holes: frozenset[int]) -> dict[int, float]:
    """Return the chance of each node that a table may draw, by index."""
    edges = pairwise([0.0, *table.sums])
    widths = {
        index: end - begin
        for position, (index, (begin, end)) in enumerate(zip(table.indices, edges, strict=True))
        if position not in holes
    }
    assert all(table.parts[index] > 0 for index in widths)
    return {index: width / sum(widths.values()) for index, width in widths.items()}


@every_maker
@given(
    weights=st.lists(WEIGHTS, min_size=1, max_size=8),
    changes=st.lists(
        st.tuples(st.integers(0, 9), WEIGHTS) | st.sets(st.integers(0, 9)), max_size=20
    ),
)
def test_plans(
    make: Callable[[], Planned[Any, Any, Any]],
    weights: list[float],
    changes: list[tuple[int, float] | set[int]],
) -> None:
    """Through members that come and go, and views of them, a plan is as if made at once."""
    strategy = make()
    membership: Membership[Any] = NodeSet(
        Server(str(number), weight) for number, weight in enumerate(weights)
    ).membership
    membership.owner = Owner()
    nodes = NodeSet.of_membership(membership)
    strategy.prepare(nodes)
    for number, change in enumerate(changes, len(weights)):
        if isinstance(change, set):
            nodes = NodeSet.of_membership(membership) if not change else nodes
            nodes = nodes.without(i for i in change if i < len(membership.nodes))
        else:
            draw, weight = change
            size = len(membership.nodes)
            membership = (
                membership.parted(draw % size)
                if size and draw % 2
                else membership.joined(Server(str(number), weight))
            )
            nodes = NodeSet.of_membership(membership)
            strategy.prepare(nodes)
        plan = strategy._resolve(nodes)
        state = strategy._state_of(nodes)
        alone = NodeSet(membership.nodes).restrict(nodes.eligible)
        anew: Plan[Any] = type(strategy)._make_plan(strategy, alone, state)
        # By the attribute: to compiled code all of them are of each other's classes.
        measure: LoadMeasure | None = getattr(strategy, "_measure", None)
        if measure is not None:
            cells = [measure.cell(identity) for identity in membership.ids]
            assert list(map(id, state)) == list(map(id, cells))
        wanted = facts(anew)
        if "chances" in wanted:
            wanted["chances"] = pytest.approx(wanted["chances"], abs=1e-12)
        assert facts(plan) == wanted


@every_maker
def test_plans_before_are_let_go(make: Callable[[], Planned[Any, Any, Any]]) -> None:
    """After 300 changes of who may be chosen there are no more plans than after three."""
    strategy = make()
    nodes = NodeSet(Server(str(number)) for number in range(10))

    def change(times: int) -> int:
        for number in range(times):
            strategy.select(nodes.without([number % 9]), SelectionContext(hash_key="k"))
        gc.collect()
        return sum(isinstance(thing, Plan) for thing in gc.get_objects())

    assert change(3) == change(300)


def test_nodes_that_are_known_are_not_checked_again() -> None:
    """Whether nodes have a load is looked up once for a membership, not for each view of it."""

    class Probed(Server):
        looked_up = 0

        @property
        def load_score(self) -> Any:  # counts how it is looked up
            type(self).looked_up += 1
            return lambda: 1.0

    nodes = NodeSet(Probed(str(number)) for number in range(100))
    strategy: PowerOfTwoChoices[Any] = PowerOfTwoChoices(rng=random.Random(1))
    strategy.select(nodes)
    assert Probed.looked_up >= 100
    before = Probed.looked_up
    strategy.select(nodes.without([1]))
    assert Probed.looked_up == before + 2, "only the two that were drawn"


@pytest.mark.skipif(COMPILED, reason="compiled code is not seen to call")
@pytest.mark.parametrize("make", [PowerOfTwoChoices, WeightedRandom])
def test_holes_change_no_other_nodes_chances(make: Callable[[], Planned[Any, Any, Any]]) -> None:
    """Of 300 unlike nodes any number goes down, and each of the others is drawn by its weight."""
    strategy, rng = make(), random.Random(5)
    nodes = NodeSet(Server(str(number), 1 + number % 7) for number in range(300))

    def tables(down: list[int]) -> int:
        view = nodes.without(down)
        made = calls(
            lambda: strategy.select(view),
            lambda frame: frame.f_code is WeightTable.__init__.__code__,
        )
        total = sum(view.weights[i] for i in view.eligible)
        wanted = {i: view.weights[i] / total for i in view.eligible}
        assert facts(strategy._resolve(view))["chances"] == pytest.approx(wanted, abs=1e-12)
        return made

    assert tables([]) == 1
    for number in (1, 2, 30, 60, 3, 1):
        assert tables(rng.sample(range(300), number)) == 0, "the table of all will do"
    assert tables(list(range(150))) == 1, "too much would be drawn again"
