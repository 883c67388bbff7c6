"""Most available: the most that is left, within epsilon."""

from __future__ import annotations

import math
import random

import pytest
from tests.strategies.support import SIGNIFICANCE, Server, chi_square_tail, picks, shares

from loadwise import MostAvailable, NodeSet


def servers(*left: float) -> list[Server]:
    """Return nodes with so much left."""
    return [Server(f"node-{i}", left=amount) for i, amount in enumerate(left)]


def test_the_most_left() -> None:
    """The node with the most left is chosen, as it is now, on views and without the excluded."""
    strategy, nodes = MostAvailable[Server](), servers(10, 900, -5, 30)
    for candidates in (nodes, NodeSet(nodes)):
        assert picks(strategy, candidates, 1) == [1]
        assert picks(strategy, candidates, 1, exclude={1}) == [3]
    assert picks(strategy, NodeSet(nodes).restrict([0, 2]), 1) == [0]
    nodes[2].left = 1e9
    assert picks(strategy, NodeSet(nodes), 1) == [2]
    assert picks(strategy, nodes, 1) == [2]


@pytest.mark.parametrize(
    ("epsilon", "ties"), [(0.0, [1, 4, 6]), (4.9, [1, 4, 6]), (5.0, [0, 1, 3, 4, 6])]
)
def test_ties_within_epsilon_are_broken_uniformly(epsilon: float, ties: list[int]) -> None:
    """All that have at most epsilon less than the most: chi-square, error probability 1e-4."""
    nodes = NodeSet(servers(95, 100, 94, 95, 100, 0, 100))
    strategy = MostAvailable[Server](epsilon=epsilon, rng=random.Random(19))
    counts = shares(picks(strategy, nodes, 3000), 7)
    assert sum(counts[i] for i in ties) == 3000
    assert chi_square_tail([counts[i] for i in ties], [1] * len(ties)) > SIGNIFICANCE


@pytest.mark.parametrize("epsilon", [0.0, 2.0])
def test_budgets_that_are_no_numbers(epsilon: float) -> None:
    """NaN counts as none, wherever it stands; an infinite budget beats any finite one."""
    strategy = MostAvailable[Server](epsilon=epsilon, rng=random.Random(20))
    for left, best in [
        ((math.nan, 1, 5), 2),
        ((1, math.nan, 5), 2),
        ((5, 1, math.nan), 0),
        ((1e308, math.inf, 0), 1),
        ((-math.inf, -5, math.nan), 1),
    ]:
        assert picks(strategy, servers(*left), 20) == [best] * 20
    assert set(picks(strategy, servers(math.nan, math.nan), 40)) == {0, 1}


@pytest.mark.parametrize("epsilon", [-0.1, math.nan, math.inf])
def test_epsilon_is_finite_and_not_negative(epsilon: float) -> None:
    """Any other epsilon is refused at construction."""
    with pytest.raises(ValueError, match=f"epsilon is {epsilon!r}; it must be finite"):
        MostAvailable(epsilon=epsilon)


def test_a_node_without_a_budget_is_named() -> None:
    """The error names the strategy, the node and what it lacks."""
    for candidates in (["a", "b"], NodeSet(list("ab")), [Server("x"), "a"]):
        with pytest.raises(TypeError, match=r"MostAvailable needs `remaining\(\)` .* node 'a'"):
            MostAvailable[object]().select(candidates)


def test_asking_shows_what_is_left() -> None:
    """What the choice is based on is what each has left, of the ineligible too, by index."""
    nodes = NodeSet(servers(3, 1, 2)).without([0])
    assert MostAvailable[Server]().facts(nodes) == {"remaining": [3, 1, 2]}
