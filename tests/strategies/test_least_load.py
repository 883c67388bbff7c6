"""Least load: the minimum, and what happens on ties and on loads that are no numbers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from tests.strategies.support import SIGNIFICANCE, Server, chi_square_tail, picks, shares

from loadwise import Endpoint, InFlight, LeastLoad, NodeSet, PeakEwma


def test_the_least_of_a_function() -> None:
    """The node for which the function is least is chosen, on views and without the excluded."""
    loads = {"a": 3.0, "b": 1.0, "c": 2.0, "d": 0.5}
    strategy, nodes = LeastLoad[str](load=loads.__getitem__), NodeSet(list("abcd"))
    assert picks(strategy, nodes, 1) == [3]
    assert picks(strategy, nodes.without([3]), 1) == [1]
    assert picks(strategy, nodes.without([3]), 1, exclude={1}) == [2]
    loads["a"] = 0.0
    assert picks(strategy, nodes, 1) == [0]


def test_the_nodes_own_score_is_read_at_each_pick() -> None:
    """Without load= the nodes' load_score() decides, as it is now."""
    strategy, nodes = LeastLoad[Server](), [Server("a", load=2), Server("b", load=1)]
    for candidates in (nodes, NodeSet(nodes)):
        nodes[1].load = 1
        assert strategy.select(candidates) == 1
        nodes[1].load = 3
        assert strategy.select(candidates) == 0


@pytest.mark.parametrize("make", [InFlight, PeakEwma])
def test_the_least_of_a_measure(make: Callable[[], InFlight | PeakEwma]) -> None:
    """What is measured by id decides, for lists and sets of whatever nodes have that id."""
    measure = make()
    strategy = LeastLoad[object](load=measure)
    cells = [measure.cell(name) for name in "ab"]
    for number in (0, 1, 0):
        cells[number].append(None)
        for candidates in (["a", "b"], NodeSet([Server("a"), Server("b")])):
            assert strategy.select(candidates) == 1 - number
        cells[number].pop()
    assert strategy.measures == (measure,)


@pytest.mark.parametrize("load", [lambda _: 1.0, InFlight(), PeakEwma()])
def test_ties_are_broken_uniformly(load: InFlight | PeakEwma) -> None:
    """Of equal loads, such as those of a measure never fed, each is chosen alike.

    Chi-square, error probability 1e-4. Always taking the first of a tie sent 94% of the traffic of
    litellm#39322 to one node.
    """
    nodes = NodeSet(range(11)).without([0, 5])
    chosen = picks(LeastLoad(load=load, rng=random.Random(8)), nodes, 5000)
    counts = shares(chosen, 11)
    assert counts[0] == counts[5] == 0
    assert chi_square_tail([*counts[1:5], *counts[6:]], [1] * 9) > SIGNIFICANCE


def test_only_the_best_tie() -> None:
    """Two of three are least loaded: they share all picks about evenly, within 5 deviations."""
    loads = {"a": 1, "b": 2, "c": 1}
    strategy = LeastLoad[str](load=loads.__getitem__, rng=random.Random(9))
    counts = shares(picks(strategy, NodeSet(list("abc")), 1000), 3)
    assert counts[1] == 0
    assert counts[0] == pytest.approx(500, abs=5 * math.sqrt(250))


@pytest.mark.parametrize("exclude", [frozenset(), {3}], ids=["none-excluded", "one-excluded"])
def test_load_is_compared_per_weight_and_ties_are_drawn_by_weight(exclude: set[int]) -> None:
    """Loads of 18, 2 and 5 at weights 9, 1 and 2.5 are alike: chi-square, error probability 1e-4.

    As nginx's ``least_conn``, which takes turns among them by weight.
    """
    loads, weights = [18.0, 2.0, 5.0, 0.0], [9, 1, 2.5, 4]
    nodes = NodeSet(Endpoint(i, weight=weight) for i, weight in enumerate(weights))
    strategy = LeastLoad[Endpoint](
        load=lambda node: loads[int(str(node.id))], rng=random.Random(26)
    )
    if not exclude:
        assert picks(strategy, nodes, 5) == [3] * 5
        nodes = nodes.without([3])
    counts = shares(picks(strategy, nodes, 4000, exclude), 4)
    assert chi_square_tail(counts[:3], weights[:3]) > SIGNIFICANCE
    loads[1] = 1.9
    assert picks(strategy, nodes, 5, exclude) == [1] * 5
    loads[:3] = [math.nan, math.inf, math.nan]
    assert set(picks(strategy, nodes, 200, exclude)) == {0, 1, 2}
    assert picks(strategy, nodes, 1, {0, 1, 2, 3}) == [None]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_nan_load_loses(position: int) -> None:
    """A NaN load counts as the highest, wherever it stands."""
    loads = [5.0, 7.0, 6.0]
    loads[position] = math.nan
    strategy = LeastLoad[int](load=loads.__getitem__, rng=random.Random(10))
    best = min((load, i) for i, load in enumerate(loads) if i != position)[1]
    assert picks(strategy, NodeSet(range(3)), 50) == [best] * 50
    assert set(picks(strategy, NodeSet(range(3)), 50, exclude={best})) == {3 - best - position}


@pytest.mark.parametrize("load", [math.nan, math.inf])
def test_when_all_are_hopeless_all_have_a_chance(load: float) -> None:
    """If every load is NaN, or infinite, the choice is random, not an error."""
    strategy = LeastLoad[int](load=lambda _: load, rng=random.Random(11))
    assert set(picks(strategy, NodeSet(range(3)), 50)) == {0, 1, 2}


def test_a_node_without_a_score_is_named() -> None:
    """The error names the strategy, the node, what it lacks, and the way out."""
    for candidates in (["a", "b"], NodeSet(list("ab")), [Server("x"), "a"]):
        with pytest.raises(TypeError, match=r"LeastLoad needs `load_score\(\)` .* node 'a'.*load="):
            LeastLoad[object]().select(candidates)


@pytest.mark.parametrize("load", ["cpu", 3, object()])
def test_a_load_must_be_callable_or_a_measure(load: object) -> None:
    """A load of another kind is refused at construction."""
    with pytest.raises(TypeError, match=r"it must be None .* a function of a node, or a measure"):
        LeastLoad(load=load)  # type: ignore[arg-type]  # the point of the test


def test_a_class_is_no_measure() -> None:
    """Forgetting the brackets of InFlight() is told at construction."""
    with pytest.raises(TypeError, match=r"InFlight\(\)"):
        LeastLoad(load=InFlight)  # type: ignore[arg-type]  # the point of the test


def test_asking_shows_the_loads() -> None:
    """What the choice is based on are the loads, of the ineligible too, by index."""
    measure = InFlight()
    cell = measure.cell("b")
    cell.append(None)
    nodes = NodeSet(list("abc")).without([0])
    assert LeastLoad[str](load=measure).facts(nodes) == {"load": [0, 1, 0]}
    assert LeastLoad[str](load=ord).facts(nodes) == {"load": [97, 98, 99]}
