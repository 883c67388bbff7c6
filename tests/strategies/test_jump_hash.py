"""Jump hash: the published values, numbers of all kinds, exact shares, what moves."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies.support import SIGNIFICANCE, chi_square_tail

from loadwise import Balancer, Endpoint, JumpHash, NodeSet, SelectionContext

HUNDRED = [0, 55, 62, 8, 45, 59, 86, 97, 82, 59]
"""Shards of the keys 0 to 9 out of 100: J. Lamping and E. Veach's function."""


def jump(key: int, shards: int) -> int:
    """Return the shard of a key, as published."""
    shard, following = -1, 0
    while following < shards:
        shard = following
        key = (key * 2862933555777941757 + 1) % 2**64
        following = int((shard + 1) * ((1 << 31) / ((key >> 33) + 1)))
    return shard


@pytest.mark.parametrize(
    "ids",
    [range(100), [str(i) for i in range(100)], [f"web-{i:03}" for i in range(100)]],
    ids=["ints", "digits", "after a dash"],
)
def test_the_published_values(ids: Any) -> None:
    """Whatever way the shards are numbered, and whatever their order."""
    strategy = JumpHash[Any]()
    assert [strategy.owner(NodeSet(ids), key) for key in range(10)] == HUNDRED
    backwards = NodeSet(list(ids)[::-1])
    assert [strategy.owner(backwards, key) for key in range(10)] == [99 - s for s in HUNDRED]


@given(key=st.integers(0, 2**64 - 1), shards=st.integers(1, 3000))
def test_any_value_is_that_of_the_published_function(key: int, shards: int) -> None:
    """Equal weights of any size change nothing of it."""
    strategy = JumpHash[Any]()
    assert strategy.owner(NodeSet(range(shards)), key) == jump(key, shards)


def test_shards_may_begin_at_another_number() -> None:
    """With first=1, shards 1 to 100 have the keys of 0 to 99."""
    nodes = NodeSet(f"shard-{number}" for number in range(1, 101))
    strategy = JumpHash[str](first=1)
    assert [strategy.owner(nodes, key) for key in range(10)] == HUNDRED
    with pytest.raises(ValueError, match=r"'shard-0' has the number 0, but .* given first=1"):
        strategy.prepare(NodeSet(["shard-1", "shard-0"]))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (
            ["shard-0", "cache"],
            "JumpHash needs numbered nodes, but one has the id 'cache'; give ids",
        ),
        (["shard0"], "one has the id 'shard0'"),
        ([-1], "one has the id -1"),
        ([True], "one has the id True"),
        ([2**31], "one has the id 2147483648"),
        (["a-"], "one has the id 'a-'"),
        (["x-²"], "one has the id 'x-²'"),
        ([("shard", 1)], r"one has the id \('shard', 1\)"),
        (["eu-7", "us-7"], "of different numbers, but 'eu-7' and 'us-7' both have 7"),
        ([7, "07"], "but 7 and '07' both have 7"),
    ],
)
def test_ids_without_a_number_of_their_own_are_refused(ids: list[Any], message: str) -> None:
    """At construction of the balancer, by the id and with what would do."""
    with pytest.raises(ValueError, match=message):
        Balancer(ids, JumpHash())


def test_a_balancer_keeps_its_members_where_one_without_a_number_would_join() -> None:
    """An add that is refused changes nothing."""
    balancer = Balancer(["shard-0", "shard-1"], JumpHash())
    with pytest.raises(ValueError, match="'shard-01' both have 1"):
        balancer.add("shard-01")
    assert balancer.nodes == ("shard-0", "shard-1")


def test_shares_are_by_weight() -> None:
    """Shards have keys by weight: the chance of counts as far off is above one in 10,000."""
    weights = [5, 1, 0.5, 3, 1, 1, 2]
    nodes = NodeSet(Endpoint(number, weight=weight) for number, weight in enumerate(weights))
    strategy = JumpHash[Endpoint]()
    counts = Counter(strategy.owner(nodes, f"key-{number}") for number in range(20_000))
    assert chi_square_tail([counts[i] for i in range(7)], weights) > SIGNIFICANCE


def test_a_shard_takes_its_weight_from_all_and_moves_nothing_else() -> None:
    """A last shard of any weight joins, and only keys that it has now have moved."""
    weights = [2, 1, 3, 1, 1]
    nodes = [Endpoint(number, weight=weight) for number, weight in enumerate(weights)]
    before, strategy = NodeSet(nodes), JumpHash[Endpoint]()
    for weight in (0.1, 1, 4):
        after = NodeSet([*nodes, Endpoint("shard-5", weight=weight)])
        moved = 0
        for number in range(4000):
            old, new = strategy.owner(before, str(number)), strategy.owner(after, str(number))
            assert new in (old, 5)
            moved += new == 5
        share = weight / (8 + weight)
        assert abs(moved - 4000 * share) <= 4 * (4000 * share) ** 0.5


@pytest.mark.parametrize("weights", [[1] * 9, [2, 1, 1, 3, 1, 1, 1, 0.5, 1]])
def test_a_shard_that_is_missing_or_drained_keeps_its_place(weights: list[float]) -> None:
    """No key moves between the others when one in the middle leaves or has weight 0.

    Of different weights, it is as if the missing one weighed what most do, so that one is taken.
    """
    nodes = [Endpoint(number, weight=weight) for number, weight in enumerate(weights)]
    strategy = JumpHash[Endpoint]()
    whole = NodeSet(nodes)
    missing = NodeSet(node for node in nodes if node.id != 4)
    drained = NodeSet(Endpoint(node.id, weight=node.weight * (node.id != 4)) for node in nodes)
    seen: set[object] = set()
    for number in range(2000):
        key = str(number)
        before, without = strategy.owner(whole, key), strategy.owner(missing, key)
        assert without is not None
        seen.add(missing.ids[without])
        assert strategy.owner(drained, key) == missing.ids[without]
        assert before in (4, missing.ids[without])
    assert seen == {0, 1, 2, 3, 5, 6, 7, 8}


def test_large_gaps_cost_but_64_tries() -> None:
    """Ports as numbers are few among many: all are found, evenly enough, in bounded time."""
    nodes = NodeSet(f"10.0.0.{number % 7}-{8000 + number}" for number in range(7))
    strategy = JumpHash[str]()
    assert {strategy.owner(nodes, str(number)) for number in range(400)} == set(range(7))
    far = NodeSet(["a-2147483647"])
    assert strategy.owner(far, "key") == 0
    assert strategy.select(far, SelectionContext("key", exclude={0})) is None
