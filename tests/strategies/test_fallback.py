"""Fallbacks: who is asked, that exclusions and filters hold, and what is passed through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.strategies.support import picks

from loadwise import (
    Endpoint,
    FallbackChain,
    Filtered,
    HealthFilter,
    HealthTracker,
    InFlight,
    LeastLoad,
    NodeSet,
    PeakEwma,
    PowerOfTwoChoices,
    RoundRobin,
    SelectionContext,
    WeightedRoundRobin,
    WithFallback,
)


def tier(number: int) -> Callable[[Endpoint], bool]:
    """Return a filter that accepts the nodes of one priority."""
    return lambda node: node.priority == number


def tiers() -> FallbackChain[Endpoint]:
    """Return a round robin over the best tier that has a node left."""
    return FallbackChain([Filtered(RoundRobin(), tier(number)) for number in range(3)])


NODES = NodeSet(Endpoint(f"node-{i}", priority=i % 3) for i in range(6))


def test_the_first_that_has_a_choice_makes_it() -> None:
    """A later tier is asked only when all before it have nothing left."""
    strategy = tiers()
    assert picks(strategy, NODES, 3) == [0, 3, 0]
    assert picks(strategy, NODES, 2, exclude={0}) == [3, 3]
    assert picks(strategy, NODES, 3, exclude={0, 3}) == [1, 4, 1]
    assert picks(strategy, NODES.restrict([2, 3, 5]), 2, exclude={3}) == [2, 5]
    assert picks(strategy, NODES, 1, exclude=range(6)) == [None]


def test_a_filter_around_fallbacks_holds_in_each_of_them() -> None:
    """What a filter rules out is chosen by no fallback: litellm#15944, #19418."""
    health = HealthTracker()
    strategy = Filtered(
        WithFallback(Filtered(RoundRobin(), tier(0)), WeightedRoundRobin()),
        HealthFilter.available(health),
    )
    assert picks(strategy, NODES, 2) == [0, 3]
    for name in ("node-0", "node-3", "node-4"):
        for _ in range(3):
            health.report_failure(name)
    assert picks(strategy, NODES, 6) == [1, 2, 5, 1, 2, 5]
    assert picks(strategy, list(NODES), 6, exclude={1, 5}) == [2] * 6


def test_a_filter_on_the_primary_does_not_bind_the_secondary() -> None:
    """The secondary is there for the nodes that the primary may not use."""
    strategy = WithFallback(Filtered(RoundRobin[Endpoint](), tier(7)), RoundRobin())
    assert picks(strategy, NODES, 3) == [0, 1, 2]


def test_measures_are_collected_from_everywhere() -> None:
    """A Balancer finds every load measure, however deep it is nested, in the order asked."""
    one, two, three = InFlight(), PeakEwma(), InFlight()
    strategy = FallbackChain[Any](
        [
            RoundRobin(),
            Filtered(LeastLoad(load=one), tier(0)),
            WithFallback(PowerOfTwoChoices(load=two), LeastLoad(load=three)),
            LeastLoad(load=len),
        ]
    )
    assert strategy.measures == (one, two, three)


def test_the_first_to_have_a_fact_tells_it() -> None:
    """Facts are collected by name; those of a strategy asked earlier win."""
    one, two = InFlight(), InFlight()
    cell = two.cell("node-1")
    cell.append(None)
    strategy = FallbackChain[Endpoint](
        [LeastLoad(load=one), LeastLoad(load=two), WeightedRoundRobin()]
    )
    assert strategy.facts(NODES) == {"load": [0] * 6, "weight": (1,) * 6}


def test_peeking_takes_no_turn_in_any_of_them() -> None:
    """Asking about the next choice any number of times leaves all turns as they were."""
    asked, unasked = tiers(), tiers()
    for exclude in ({0}, set(), {0, 3}, {0, 1, 3, 4}, {0, 3}, set()):
        context = SelectionContext(exclude=exclude)
        told = [asked.peek(NODES, context) for _ in range(3)]
        assert told == [unasked.select(NODES, context)] * 3
        assert asked.select(NODES, context) == told[0]


def test_preparing_reaches_all_of_them() -> None:
    """Nodes that any of the strategies cannot work with are refused when prepared for."""
    strategy = WithFallback[str](RoundRobin(), Filtered(WeightedRoundRobin(), bool))
    with pytest.raises(TypeError, match="WeightedRoundRobin needs `weight`"):
        strategy.prepare(NodeSet(list("ab")))


def test_bad_arguments() -> None:
    """No strategies, or things that are none, are refused at construction with a remedy."""
    with pytest.raises(ValueError, match="FallbackChain has no strategies; give at least one"):
        FallbackChain([])
    with pytest.raises(TypeError, match=r"the class RoundRobin; give an instance: RoundRobin\(\)"):
        FallbackChain([RoundRobin])  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(TypeError, match="strategy is 'random'; it needs a method select"):
        WithFallback(RoundRobin(), "random")  # type: ignore[arg-type]  # the point of the test
