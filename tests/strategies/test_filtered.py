"""Filtered: the view a strategy is shown, and that it follows what the filter depends on."""

from __future__ import annotations

import pytest
from tests.strategies.support import picks, shares

from loadwise import (
    Endpoint,
    Filtered,
    FnFilter,
    HealthFilter,
    HealthTracker,
    InFlight,
    LeastLoad,
    NodeSet,
    RoundRobin,
    SelectionContext,
    WeightedRoundRobin,
)


def test_three_unhealthy_neighbours_leave_equal_shares() -> None:
    """With 3 neighbours of 10 unhealthy the other 7 get equal shares, within 1."""
    health = HealthTracker()
    strategy = Filtered(RoundRobin[int](), HealthFilter.available(health))
    for candidates in (NodeSet(range(10)), list(range(10))):
        for down in (3, 4, 5):
            for _ in range(3):
                health.report_failure(down)
        counts = shares(picks(strategy, candidates, 1003), 10)
        assert counts[3:6] == [0, 0, 0]
        assert {143, 144} == {counts[i] for i in (0, 1, 2, 6, 7, 8, 9)}
        for down in (3, 4, 5):
            health.remove(down)
        assert shares(picks(strategy, candidates, 1000), 10) == [100] * 10


def test_a_function_is_asked_at_every_pick() -> None:
    """A function may change its mind at any time, and is heeded at once."""
    near = {"a", "b"}
    strategy = Filtered[str](RoundRobin(), near.__contains__)
    nodes = NodeSet("abc")
    assert set(picks(strategy, nodes, 4)) == {0, 1}
    near.remove("a")
    assert picks(strategy, nodes, 2) == [1, 1]
    near.clear()
    assert picks(strategy, nodes, 1) == [None]


def test_a_view_stays_a_view() -> None:
    """What is not eligible in the candidates does not become so by being accepted."""
    strategy = Filtered[str](RoundRobin(), FnFilter[str](lambda node: node != "a"))
    assert set(picks(strategy, NodeSet("abcd").restrict([0, 1, 3]), 6)) == {1, 3}


def test_filters_within_filters() -> None:
    """Both filters hold."""
    strategy = Filtered[int](Filtered(RoundRobin(), lambda n: n % 2 == 0), lambda n: n % 3 == 0)
    assert set(picks(strategy, list(range(12)), 4)) == {0, 6}


def test_the_strategy_shines_through() -> None:
    """Measures, facts, preparation and peeking are those of the strategy."""
    measure = InFlight()
    cell = measure.cell("b")
    cell.append(None)
    strategy = Filtered[str](LeastLoad(load=measure), lambda node: node != "a")
    nodes = NodeSet("abc")
    assert strategy.measures == (measure,)
    assert strategy.facts(nodes) == {"load": [0, 1, 0]}
    assert strategy.peek(nodes) == 2
    turns = Filtered[Endpoint](WeightedRoundRobin(), lambda node: node.zone == "eu")
    endpoints = NodeSet(Endpoint(i, weight=5 - i, zone="eu" if i else "us") for i in range(3))
    for _ in range(8):
        told = turns.peek(endpoints, SelectionContext())
        assert told == turns.peek(endpoints) == turns.select(endpoints)
    with pytest.raises(TypeError, match="needs `weight`"):
        Filtered[str](WeightedRoundRobin(), bool).prepare(nodes)


def test_bad_arguments() -> None:
    """A class for a strategy, or a filter that cannot be asked, is refused at construction."""
    with pytest.raises(TypeError, match=r"give an instance: RoundRobin\(\)"):
        Filtered(RoundRobin, bool)  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(TypeError, match="the filter is 'eu'; it must be a Filter or a function"):
        Filtered(RoundRobin[str](), "eu")  # type: ignore[arg-type]  # the point of the test
