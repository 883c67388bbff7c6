"""Weighted round robin: nginx's sequence from a table, the limits of it, and what lies beyond."""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction
from threading import Barrier, Thread

import pytest
from tests.strategies.support import (
    SIGNIFICANCE,
    chi_square_tail,
    furthest_from_proportional,
    picks,
    shares,
    smooth_sequence,
    smooth_steps,
)

from loadwise import Endpoint, NodeSet, WeightedRoundRobin
from loadwise.strategies._sequences import Schedule
from loadwise.strategies.weighted_round_robin import smooth_cycle


def weighted(*weights: float) -> NodeSet[Endpoint]:
    """Return nodes of the given weights."""
    return NodeSet(Endpoint(f"node-{i}", weight=weight) for i, weight in enumerate(weights))


def uses_table(*weights: float) -> bool:
    """Tell whether the picks of these weights are read from a table."""
    return smooth_cycle(range(len(weights)), weights) is not None


def test_the_reference_gives_the_published_currents() -> None:
    """Weights 5, 1, 1 give a a b a c a a and these currents (nginx, commit 52327e0)."""
    assert smooth_steps([5, 1, 1], 7, range(3)) == [
        (0, (-2, 1, 1)),
        (0, (-4, 2, 2)),
        (1, (1, -4, 3)),
        (0, (-1, -3, 4)),
        (2, (4, -2, -2)),
        (0, (2, -1, -1)),
        (0, (0, 0, 0)),
    ]


def test_published_sequence() -> None:
    """Weights 5, 1, 1 give a a b a c a a, over and over (nginx, commit 52327e0)."""
    assert picks(WeightedRoundRobin(), weighted(5, 1, 1), 14) == [0, 0, 1, 0, 2, 0, 0] * 2


@pytest.mark.parametrize(
    "weights",
    [
        (7,),
        (1, 1, 1),
        (1, 2, 3),
        (4, 2, 1),
        (10, 1, 1, 1),
        (3, 3, 5, 5, 5, 1),
        (60, 20, 100, 20),
        (1, 0, 2, 0, 1),
        (997, 1, 31, 31, 500),
    ],
)
@pytest.mark.parametrize("plain", [False, True], ids=["NodeSet", "list"])
def test_the_exact_smooth_sequence(weights: tuple[int, ...], *, plain: bool) -> None:
    """The table holds nginx's sequence, computed by its definition, over more than two cycles."""
    nodes = weighted(*weights)
    count = min(2 * sum(weights) + 5, 2000)
    expected = smooth_sequence(weights, count, nodes.eligible)
    assert picks(WeightedRoundRobin(), list(nodes) if plain else nodes, count) == expected


def test_a_view_has_the_sequence_of_those_that_are_left() -> None:
    """Ineligible nodes take no part: the rest follow the sequence of their own weights."""
    weights = (5, 1, 3, 2)
    view = weighted(*weights).restrict([0, 2, 3])
    assert picks(WeightedRoundRobin(), view, 25) == smooth_sequence(weights, 25, [0, 2, 3])


def from_claims(claims: list[Fraction], weights: Sequence[int], count: int) -> list[int]:
    """Return the picks of nginx's rule from these claims on, which are left as they are then."""
    total, chosen = sum(weights), []
    for _ in range(count):
        for index, weight in enumerate(weights):
            claims[index] += Fraction(weight, total)
        best = claims.index(max(claims))
        claims[best] -= 1
        chosen.append(best)
    return chosen


def test_views_go_on_from_the_claims_of_their_nodes() -> None:
    """A view that is new begins with what its nodes were behind; a remembered one goes on."""
    strategy, weights = WeightedRoundRobin[Endpoint](), (3, 2, 1)
    nodes = weighted(*weights)
    claims = [Fraction(0)] * 3
    assert picks(strategy, nodes, 2) == from_claims(claims, weights, 2)
    of_view = list(claims)
    assert picks(strategy, nodes.without([1]), 3) == from_claims(of_view, (3, 0, 1), 3)
    assert picks(strategy, nodes, 4) == from_claims(claims, weights, 4)
    assert picks(strategy, nodes.without([1]), 9) == from_claims(of_view, (3, 0, 1), 9)


@pytest.mark.parametrize("plain", [False, True], ids=["NodeSet", "list"])
def test_new_weights_go_on_from_the_claims(*, plain: bool) -> None:
    """After a change of weights who was behind comes first."""
    strategy = WeightedRoundRobin[Endpoint]()
    old, new = weighted(5, 1, 1), weighted(1, 5, 1)
    claims = [Fraction(0)] * 3
    first = picks(strategy, list(old) if plain else old, 4)
    assert first == from_claims(claims, (5, 1, 1), 4) == [0, 0, 1, 0]
    second = picks(strategy, list(new) if plain else new, 20)
    assert second == from_claims(claims, (1, 5, 1), 20)
    assert second[:2] == [2, 1]


def test_weights_renewed_before_each_pick_starve_nobody() -> None:
    """Weights that telemetry renews before every pick: 200 of 800 each, where 200 each are due."""
    strategy, source = WeightedRoundRobin[Endpoint](), random.Random(21)
    counts, due = [0] * 4, [0.0] * 4
    for _ in range(800):
        nodes = weighted(*(source.uniform(0.5, 1.5) for _ in range(4)))
        index = strategy.select(nodes)
        assert index is not None
        counts[index] += 1
        due = [d + w / sum(nodes.weights) for d, w in zip(due, nodes.weights, strict=True)]
    assert counts == pytest.approx(due, abs=1 + 1 / 2 + 1 / 3 + 1 / 4)


@pytest.mark.parametrize("unit", [1, 1.0], ids=["table", "schedule"])
def test_a_random_start_is_by_weight(unit: float) -> None:
    """With start=None each node is first by its weight: chi-square, error probability 1e-4."""
    nodes = weighted(3 * unit, 2 * unit, 5 * unit)
    source = random.Random(22)
    chosen = [WeightedRoundRobin[Endpoint](None, source).select(nodes) for _ in range(2000)]
    assert chi_square_tail(shares(chosen, 3), [3, 2, 5]) > SIGNIFICANCE


@pytest.mark.parametrize("unit", [1, 1.0], ids=["table", "schedule"])
def test_a_random_start_is_no_burden(unit: float) -> None:
    """From wherever it begins, a sequence stays within 2 picks of the shares."""
    for seed in range(20):
        nodes = weighted(3 * unit, 2 * unit, 5 * unit, unit)
        chosen = picks(WeightedRoundRobin(None, random.Random(seed)), nodes, 300)
        assert shares(chosen, 4) == pytest.approx(
            [300 * w / sum(nodes.weights) for w in nodes.weights], abs=2
        )


def test_a_start_is_a_position_in_the_sequence() -> None:
    """The sequence a a b a c a a from its fourth turn on, and from its eleventh."""
    for start in (3, 10):
        chosen = picks(WeightedRoundRobin(start=start), weighted(5, 1, 1), 7)
        assert chosen == [0, 2, 0, 0, 0, 0, 1]


def test_two_sets_served_by_turns_keep_their_sequences() -> None:
    """One strategy asked alternately about two sets gives each its own sequence, undisturbed."""
    strategy, one = WeightedRoundRobin[Endpoint](), weighted(5, 1, 1)
    other = NodeSet([Endpoint("a", weight=2), Endpoint("b")])
    chosen = [(strategy.select(one), strategy.select(other)) for _ in range(21)]
    assert [index for index, _ in chosen] == [0, 0, 1, 0, 2, 0, 0] * 3
    assert [index for _, index in chosen] == [0, 1, 0] * 7


def test_ten_thousand_nodes_in_one_cycle() -> None:
    """10,000 nodes of weights 1 to 3 get exactly their weights in one cycle, smoothly spread."""
    weights = [1 + number % 3 for number in range(10_000)]
    chosen = picks(WeightedRoundRobin(), weighted(*weights), sum(weights))
    assert shares(chosen, 10_000) == weights
    behind, ahead = furthest_from_proportional((i for i in chosen if i is not None), weights)
    assert behind < 2
    assert ahead < 2


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((65_535, 1), True),
        ((65_536, 1), False),
        ((131_070, 2), True),
        ((131_072, 2), False),
        ((131_070, 2, 1), False),
        ((10**30,), True),
    ],
)
def test_the_longest_cycle(weights: tuple[int, ...], *, expected: bool) -> None:
    """The table serves up to W = 65,536, the sum of the weights over their common divisor."""
    assert uses_table(*weights) is expected


@pytest.mark.parametrize(
    ("distinct", "total", "expected"),
    [
        (16, 65_536, True),
        (17, 61_680, True),
        (17, 61_681, False),
        (17, 65_536, False),
        (32, 32_768, True),
        (32, 32_769, False),
    ],
)
def test_the_most_work_for_a_table(distinct: int, total: int, *, expected: bool) -> None:
    """The table serves up to W * k = 2^20 for k distinct weights."""
    weights = [*range(1, distinct)]
    weights.append(total - sum(weights))
    assert uses_table(*weights) is expected


def test_the_longest_table_is_still_exact() -> None:
    """At the very limit, W = 65,536 of 16 distinct weights, the sequence is nginx's."""
    weights = [*range(1, 16)]
    weights.append(65_536 - sum(weights))
    cycle = smooth_cycle(range(16), weights)
    assert cycle is not None
    assert list(cycle) == smooth_sequence(weights, 65_536, range(16))


@pytest.mark.parametrize("weights", [(2.0, 1.0), (2, 1.0), (0.5, 0.25), (65_536, 1)])
def test_what_no_table_holds_is_scheduled(weights: tuple[float, ...]) -> None:
    """Any float among the weights, even a whole one, or too long a cycle: a schedule serves."""
    strategy, nodes = WeightedRoundRobin[Endpoint](), weighted(*weights)
    assert isinstance(strategy._resolve(nodes).turns._source, Schedule)
    chosen = picks(strategy, nodes, 3000)
    assert abs(shares(chosen, 2)[0] - 3000 * weights[0] / sum(weights)) < 2


def test_equal_ints_and_floats_are_told_apart() -> None:
    """Nodes of weights 2 and 2.0 are not the same to a rule that treats floats apart."""
    for form in (NodeSet[Endpoint], list[Endpoint]):
        strategy = WeightedRoundRobin[Endpoint]()
        ints, floats = (form([Endpoint("a", weight=w), Endpoint("b")]) for w in (2, 2.0))
        turns = [strategy._resolve(nodes).turns for nodes in (ints, floats, ints)]
        assert turns[0] is turns[2] is not turns[1]


@pytest.mark.parametrize("heavy", [10_000, 60_000.0], ids=["table", "schedule"])
def test_a_drained_node_is_never_picked(heavy: float) -> None:
    """Weight 0 means never, from the table and from the schedule, on lists and on views."""
    nodes = weighted(0, heavy, 0, 2)
    for candidates in (nodes, list(nodes), nodes.restrict([0, 1, 3])):
        assert set(picks(WeightedRoundRobin(), candidates, 31_000)) == {1, 3}
    assert picks(WeightedRoundRobin(), nodes.restrict([0, 2]), 3) == [None] * 3


@pytest.mark.parametrize("heavy", [20_000, 1e9], ids=["table", "schedule"])
def test_the_rest_share_in_proportion_when_nearly_all_weight_is_excluded(heavy: float) -> None:
    """With the heavy node excluded, the others get shares by weight, here to within 1%."""
    nodes = weighted(heavy, 3, 2, 1)
    chosen = picks(WeightedRoundRobin(), nodes, 6000, exclude={0})
    counts = shares(chosen, 4)
    assert counts[0] == 0
    assert counts[1:] == pytest.approx([3000, 2000, 1000], abs=60)


def test_an_excluded_turn_passes_to_the_next_of_the_sequence() -> None:
    """Without the excluded node the sequence goes on: a a b a c a a less a is b c."""
    assert picks(WeightedRoundRobin(), weighted(5, 1, 1), 6, exclude={0}) == [1, 2, 1, 2, 1, 2]


@pytest.mark.parametrize("unit", [1, 1.0], ids=["table", "schedule"])
@pytest.mark.usefixtures("restless")
def test_threads_together_take_the_one_sequence(unit: float) -> None:
    """What 8 threads pick together is, in number, what one thread alone would have picked."""
    weights = [5 * unit, 3 * unit, 1 * unit, 7 * unit]
    nodes, strategy = weighted(*weights), WeightedRoundRobin[Endpoint]()
    begin = Barrier(8)
    chosen: list[list[int | None]] = []

    def work() -> None:
        begin.wait(timeout=30)
        chosen.append([strategy.select(nodes) for _ in range(501)])

    workers = [Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=30)
    alone = picks(WeightedRoundRobin(), nodes, 8 * 501)
    assert shares((i for part in chosen for i in part), 4) == shares(alone, 4)


@pytest.mark.parametrize("unit", [1, 1.0], ids=["table", "schedule"])
def test_few_sets_are_kept_however_many_views_there_are(unit: float) -> None:
    """Thousands of health states of one membership do not pile up, nor do they disturb picks."""
    weights = [unit * (1 + i % 3) for i in range(12)]
    strategy, nodes = WeightedRoundRobin[Endpoint](), weighted(*weights)
    for number in range(2000):
        down = {i for i in range(12) if number >> i & 1}
        index = strategy.select(nodes.without(down))
        assert index is not None
        assert index not in down
    book = strategy._resolve(nodes).state
    assert len(book._sets) == 64
    assert len(book._views[nodes.membership]) <= 64
    assert len(book._owed) <= 12


def test_asking_shows_the_weights() -> None:
    """What the choice is based on are the weights, by index."""
    assert WeightedRoundRobin[Endpoint]().facts(weighted(5, 0, 1.5)) == {"weight": (5, 0, 1.5)}
