"""Rendezvous hashing: scores by their definition, exact shares, what moves."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies.support import SIGNIFICANCE, chi_square_tail

from loadwise import Endpoint, NodeSet, Rendezvous, SelectionContext

weights_of_nodes = st.lists(st.sampled_from([0, 1, 2, 0.5, 7, 1e-300, 1e300]), max_size=8)


def ranked(nodes: NodeSet[Endpoint], key: int) -> list[int]:
    """Return the nodes by score -w / ln(u), the best first; of scores alike, by the draw."""
    found: list[tuple[float, int, int]] = []
    for index, node in enumerate(nodes):
        draw = xxhash.xxh64_intdigest(
            key.to_bytes(8, "little"), xxhash.xxh64_intdigest(str(node.id).encode())
        )
        if node.weight:
            u = (draw + 1) / 2**64
            found.append(
                (
                    math.inf if u == 1 else math.log(-math.log(u)) - math.log(node.weight),
                    -draw,
                    index,
                )
            )
    return [index for _, _, index in sorted(found)]


@given(weights=weights_of_nodes, key=st.integers(0, 2**64 - 1))
def test_the_best_score_has_the_key(weights: list[float], key: int) -> None:
    """All ranks are those of the scores, whatever the weights."""
    nodes = NodeSet(Endpoint(f"node-{i}", weight=weight) for i, weight in enumerate(weights))
    expected, strategy = ranked(nodes, key), Rendezvous[Endpoint]()
    assert strategy.owners(nodes, key, len(weights)) == expected
    assert strategy.owner(nodes, key) == (expected[0] if expected else None)
    assert strategy.select(nodes, SelectionContext(key)) == (expected[0] if expected else None)
    for rank in range(1, len(expected)):
        context = SelectionContext(key, exclude=set(expected[:rank]))
        assert strategy.select(nodes, context) == expected[rank]


@pytest.mark.parametrize("weights", [[1] * 7, [5, 1, 0.5, 3, 1, 1, 2]])
def test_shares_are_exactly_by_weight(weights: list[float]) -> None:
    """Keys fall to nodes as by independent draws: chi square, error probability 1 in 10,000."""
    nodes = NodeSet(Endpoint(f"node-{i}", weight=weight) for i, weight in enumerate(weights))
    strategy = Rendezvous[Endpoint]()
    counts = Counter(strategy.owner(nodes, f"key-{number}") for number in range(20_000))
    assert chi_square_tail([counts[i] for i in range(7)], weights) > SIGNIFICANCE


def test_the_load_of_a_node_that_is_down_is_spread_by_weight() -> None:
    """Its keys go to all others, by their weights, and nobody else's move."""
    weights = [4, 1, 1, 2, 1, 1, 3, 1]
    nodes = NodeSet(Endpoint(f"node-{i}", weight=weight) for i, weight in enumerate(weights))
    down, strategy = nodes.without([0]), Rendezvous[Endpoint]()
    inherited: Counter[int | None] = Counter()
    for number in range(20_000):
        before, after = strategy.owner(nodes, str(number)), strategy.owner(down, str(number))
        if before == 0:
            inherited[after] += 1
        else:
            assert after == before
    assert chi_square_tail([inherited[i] for i in range(1, 8)], weights[1:]) > SIGNIFICANCE


def test_another_weight_moves_the_nodes_own_keys_only() -> None:
    """A node that grows takes keys, one that shrinks gives some, and none move between others."""

    def members(weight: float) -> NodeSet[Endpoint]:
        return NodeSet(Endpoint(f"node-{i}", weight=weight if i == 2 else 1) for i in range(6))

    strategy = Rendezvous[Endpoint]()
    for number in range(1000):
        key = f"key-{number}"
        light, equal, heavy = (strategy.owner(members(w), key) for w in (0.3, 1, 2.5))
        assert heavy in (equal, 2)
        assert equal in (light, 2)
