"""Strategies of the user's own, which know nothing of views, inside the combinators."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
from tests.strategies.support import any_server, picks

from loadwise import (
    Filtered,
    HealthFilter,
    HealthTracker,
    InFlight,
    LoadwiseError,
    NodeSet,
    RoundRobin,
    SelectionContext,
    WithFallback,
)


class Recorder:
    """Remembers what it was shown and returns what it is told to."""

    def __init__(self, answer: object = 0) -> None:
        self.answer = answer
        self.shown: list[Sequence[Any]] = []
        self.contexts: list[SelectionContext] = []

    def select(self, candidates: Sequence[Any], context: SelectionContext | None = None) -> Any:
        assert context is not None
        self.shown.append(candidates)
        self.contexts.append(context)
        return self.answer


def test_it_is_shown_only_what_it_may_choose() -> None:
    """Excluded and ineligible nodes are kept from it, and its index is translated back."""
    own = Recorder(answer=1)
    strategy = Filtered[str](own, lambda node: node != "a")
    context = SelectionContext("key", exclude={2}, tags={"model": "x"}, estimated_cost=3.0)
    assert strategy.select(NodeSet(list("abcde")), context) == 3
    assert list(own.shown[0]) == ["b", "d", "e"]
    assert own.contexts[0] == SelectionContext("key", tags={"model": "x"}, estimated_cost=3.0)


def test_the_same_view_is_shown_as_the_same_set() -> None:
    """While nothing changes it is shown one NodeSet, so it can keep what it works out."""
    own, health = Recorder(), HealthTracker()
    for _ in range(3):
        health.report_failure("a")
    strategy = Filtered[str](own, HealthFilter.available(health))
    nodes = NodeSet(list("abc"))
    picks(strategy, nodes, 3)
    health.report_success("a")
    picks(strategy, nodes, 2)
    first, second, third, fourth, fifth = own.shown
    assert first is second is third
    assert list(first) == ["b", "c"]
    assert fourth is fifth
    assert list(fourth) == ["a", "b", "c"]


def test_views_that_are_gone_are_forgotten() -> None:
    """Nothing is kept of the sets that nobody holds any more."""
    strategy, nodes = WithFallback[str](RoundRobinOfMine(), RoundRobin()), NodeSet(list("abc"))
    gone = []
    for _ in range(100):
        view = nodes.restrict([2])
        assert strategy.select(view) == 2
        gone.append(weakref.ref(view))
    del view
    gc.collect()
    assert sum(view() is not None for view in gone) <= 1


class RoundRobinOfMine:
    """Takes turns over what it is shown."""

    measures: tuple[InFlight, ...] = ()
    turn = -1

    def select(self, candidates: Sequence[Any], context: SelectionContext | None = None) -> int:
        self.turn += 1
        return self.turn % len(candidates)


def test_its_measures_are_fed_and_its_turns_are_kept() -> None:
    """A strategy of one's own may offer measures; without peek() it is never asked in vain."""
    own = RoundRobinOfMine()
    measure = InFlight()
    own.measures = (measure,)
    strategy = WithFallback[str](own, RoundRobin())
    assert strategy.measures == (measure,)
    nodes = NodeSet(list("abc"))
    strategy.prepare(nodes)
    assert strategy.facts(nodes) == {}
    with pytest.raises(LoadwiseError, match=r"RoundRobinOfMine has no peek\(\)"):
        strategy.peek(nodes)
    assert picks(strategy, nodes, 4) == [0, 1, 2, 0]


@pytest.mark.parametrize("answer", [3, -1, "a", 1.0, (0,)])
def test_a_wrong_answer_is_told(answer: object) -> None:
    """What is no index into the candidates is an error that names the strategy and the answer."""
    strategy = Filtered[str](Recorder(answer), any_server)
    with pytest.raises(LoadwiseError, match=r"Recorder\.select returned .* an index into its 3"):
        strategy.select(NodeSet(list("abc")))
