"""The contract is worth something: for each of its tests there is a strategy that fails it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from loadwise import NodeSet, RoundRobin, SelectionContext, Strategy
from loadwise.testing import StrategyContract

NOTHING = SelectionContext()


class Subject(StrategyContract):
    """The contract, applied to what ``maker`` makes."""

    def __init__(self, maker: Callable[[], Any]) -> None:
        self.maker = maker

    def make(self) -> Strategy[Any]:
        strategy: Strategy[Any] = self.maker()
        return strategy


class ChoosesFromNothing:
    def select(self, candidates: Sequence[Any], context: SelectionContext = NOTHING) -> int:
        return 0


class NeverChooses:
    def select(self, candidates: Sequence[Any], context: SelectionContext = NOTHING) -> None:
        return None


class ReturnsTheNode:
    def select(self, candidates: Sequence[Any], context: SelectionContext = NOTHING) -> object:
        return candidates[0] if candidates else None


class ReturnsAFlag:
    def select(self, candidates: Sequence[Any], context: SelectionContext = NOTHING) -> object:
        return False


class CountsFromOne:
    def select(self, candidates: Sequence[Any], context: SelectionContext = NOTHING) -> int:
        return len(candidates)


class TreatsListsApart:
    def select(self, candidates: Sequence[Any], context: SelectionContext = NOTHING) -> int:
        return 0 if isinstance(candidates, list) else len(candidates) - 1


class IgnoresExclusions(RoundRobin[Any]):
    def select(self, candidates: Sequence[Any], context: SelectionContext = NOTHING) -> int | None:
        return super().select(candidates)


class GivesUpWhenTheFirstIsExcluded(RoundRobin[Any]):
    def select(self, candidates: Sequence[Any], context: SelectionContext = NOTHING) -> int | None:
        return None if context.is_excluded(0) else super().select(candidates, context)


class IgnoresViews(RoundRobin[Any]):
    def select(self, candidates: Sequence[Any], context: SelectionContext = NOTHING) -> int | None:
        return super().select(list(candidates), context)

    def peek(self, candidates: Sequence[Any], context: SelectionContext = NOTHING) -> int | None:
        return super().peek(list(candidates), context)


class RemembersTheFirstList(RoundRobin[Any]):
    known: NodeSet[Any] | None = None

    def select(self, candidates: Sequence[Any], context: SelectionContext = NOTHING) -> int | None:
        self.known = self.known or NodeSet(candidates)
        return super().select(self.known, context)


class TakesTheTurnWhenPeekedAt(RoundRobin[Any]):
    def peek(self, candidates: Sequence[Any], context: SelectionContext = NOTHING) -> int | None:
        return self.select(candidates, context)


class TellsAnotherChoice(RoundRobin[Any]):
    def peek(self, candidates: Sequence[Any], context: SelectionContext = NOTHING) -> int | None:
        return 4


class WorksInOneThreadOnly(RoundRobin[Any]):
    def select(self, candidates: Sequence[Any], context: SelectionContext = NOTHING) -> int | None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("not here")
        return super().select(candidates, context)


CAUGHT: list[tuple[Callable[[], object], str]] = [
    (ChoosesFromNothing, "test_nothing_to_choose_from"),
    (NeverChooses, "test_only_one_to_choose"),
    (ReturnsTheNode, "test_returns_indices"),
    (ReturnsAFlag, "test_returns_indices"),
    (CountsFromOne, "test_returns_indices"),
    (TreatsListsApart, "test_plain_sequences_and_node_sets_choose_alike"),
    (IgnoresExclusions, "test_honours_exclusions"),
    (GivesUpWhenTheFirstIsExcluded, "test_honours_exclusions"),
    (IgnoresViews, "test_honours_views"),
    (RemembersTheFirstList, "test_notices_new_nodes_in_a_list"),
    (TakesTheTurnWhenPeekedAt, "test_peek_tells_the_next_choice"),
    (TellsAnotherChoice, "test_peek_tells_the_next_choice"),
    (WorksInOneThreadOnly, "test_holds_under_threads"),
]


@pytest.mark.parametrize(("maker", "test"), CAUGHT)
def test_a_bad_strategy_is_caught(maker: Callable[[], object], test: str) -> None:
    """A strategy that breaks one rule fails the test of that rule."""
    with pytest.raises(AssertionError):
        getattr(Subject(maker), test)()


def test_every_rule_has_a_strategy_that_breaks_it() -> None:
    """No test of the contract is left that nothing can fail."""
    rules = {name for name in dir(StrategyContract) if name.startswith("test_")}
    assert rules == {test for _, test in CAUGHT}


def test_the_contract_asks_for_a_strategy() -> None:
    """Who forgets to define make() is told so."""
    with pytest.raises(NotImplementedError, match="StrategyContract must define make"):
        StrategyContract().test_returns_indices()
