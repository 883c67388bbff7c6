"""Filtered: the view a strategy is shown, and that it follows what the filter depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tests.strategies.support import picks, shares

from loadwise import (
    Endpoint,
    Filtered,
    FnFilter,
    HealthFilter,
    HealthStatus,
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
    nodes = NodeSet(list("abc"))
    assert set(picks(strategy, nodes, 4)) == {0, 1}
    near.remove("a")
    assert picks(strategy, nodes, 2) == [1, 1]
    near.clear()
    assert picks(strategy, nodes, 1) == [None]


class CountingFilter(HealthFilter):
    """Counts the nodes that it is asked about and the views that it is asked for."""

    def __init__(self, health: HealthTracker) -> None:
        super().__init__(health, ~HealthStatus.UNHEALTHY)
        self.nodes = self.views = 0

    def __call__(self, node: object) -> bool:
        self.nodes += 1
        return super().__call__(node)

    def view(self, candidates: Sequence[Any]) -> NodeSet[Any]:
        self.views += 1
        return super().view(candidates)


def test_the_filter_is_asked_once_until_something_changes() -> None:
    """Picks from the same nodes ask for a view at the first, and at the first after a change."""
    health = HealthTracker()
    accept = CountingFilter(health)
    strategy, nodes = Filtered[str](RoundRobin(), accept), NodeSet(list("abcd"))
    picks(strategy, nodes, 100)
    assert (accept.views, accept.nodes) == (1, 4)
    for _ in range(3):
        health.report_failure("b")
    assert set(picks(strategy, nodes, 100)) == {0, 2, 3}
    assert (accept.views, accept.nodes) == (2, 8)


def test_strategies_that_share_a_filter_do_not_disturb_each_other() -> None:
    """Each keeps the view of its own nodes, though the filter itself keeps only the latest."""
    accept = CountingFilter(HealthTracker())
    one, other = (Filtered[str](RoundRobin(), accept) for _ in range(2))
    here, there = NodeSet(list("abcd")), NodeSet(list("xyz"))
    chosen = [(one.select(here), other.select(there)) for _ in range(12)]
    assert chosen == [(turn % 4, turn % 3) for turn in range(12)]
    assert accept.nodes == 7


def test_what_a_filter_makes_of_a_kept_view_counts() -> None:
    """A filter that restricts further what it inherits is asked at every pick, and obeyed."""

    class Rotating(CountingFilter):
        def view(self, candidates: Sequence[Any]) -> NodeSet[Any]:
            return super().view(candidates).restrict([self.views % 3])

    strategy = Filtered[str](RoundRobin(), Rotating(HealthTracker()))
    assert picks(strategy, NodeSet(list("abc")), 6) == [1, 2, 0, 1, 2, 0]


def test_a_view_stays_a_view() -> None:
    """What is not eligible in the candidates does not become so by being accepted."""
    strategy = Filtered[str](RoundRobin(), FnFilter[str](lambda node: node != "a"))
    assert set(picks(strategy, NodeSet(list("abcd")).restrict([0, 1, 3]), 6)) == {1, 3}


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
    nodes = NodeSet(list("abc"))
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
