"""Weighted random: chances in proportion, whatever is left to choose from."""

from __future__ import annotations

import random

import pytest
from tests.strategies.support import SIGNIFICANCE, chi_square_tail, picks, shares

from loadwise import Endpoint, NodeSet, WeightedRandom


def weighted(*weights: float) -> NodeSet[Endpoint]:
    """Return nodes of the given weights."""
    return NodeSet(Endpoint(f"node-{i}", weight=weight) for i, weight in enumerate(weights))


@pytest.mark.parametrize(
    ("weights", "eligible", "exclude"),
    [
        ((5, 1, 1), range(3), ()),
        ((0.1, 0.25, 3.5, 1.0, 0.4), range(5), ()),
        ((5, 4, 3, 2, 1), [0, 2, 4], ()),
        ((5, 4, 3, 2, 1), range(5), {0, 3}),
        ((1e6, 3, 2, 1), range(4), {0}),
        ((1e6, 1e6, 0, 3, 2, 1), [0, 2, 3, 4, 5], {0}),
    ],
    ids=["published", "floats", "view", "excluded", "nearly-all-excluded", "and-a-view"],
)
def test_in_proportion_over_what_is_left(
    weights: tuple[float, ...], eligible: range | list[int], exclude: set[int]
) -> None:
    """Each of those left has a chance by weight: chi-square, error probability 1e-4."""
    nodes = weighted(*weights).restrict(eligible)
    left = [i for i in eligible if i not in exclude and weights[i]]
    chosen = picks(WeightedRandom(rng=random.Random(5)), nodes, 5000, exclude)
    counts = shares(chosen, len(weights))
    assert sum(counts[i] for i in left) == 5000
    tail = chi_square_tail([counts[i] for i in left], [weights[i] for i in left])
    assert tail > SIGNIFICANCE


def test_a_drained_node_is_never_drawn() -> None:
    """Weight 0 has no chance, beside weights large and small."""
    chosen = picks(WeightedRandom(rng=random.Random(6)), weighted(0, 1e-9, 0, 1), 2000)
    assert set(chosen) <= {1, 3}
    assert picks(WeightedRandom(), weighted(0, 0), 2) == [None, None]


def test_weights_whose_sum_overflows() -> None:
    """Weights that add up to more than a float can hold are still shared by proportion."""
    nodes = weighted(1.5e308, 1.5e308, 1.5e308)
    counts = shares(picks(WeightedRandom(rng=random.Random(7)), nodes, 3000), 3)
    assert chi_square_tail(counts, [1, 1, 1]) > SIGNIFICANCE


def test_asking_shows_the_weights() -> None:
    """What the choice is based on are the weights, by index."""
    assert WeightedRandom[Endpoint]().facts(weighted(5, 0, 1.5)) == {"weight": (5, 0, 1.5)}
