"""Power of two choices: which pairs are drawn, who wins, and what that is good for."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import permutations
from statistics import fmean

import pytest
from tests.strategies.support import SIGNIFICANCE, Server, chi_square_tail, picks, shares

from loadwise import (
    Balancer,
    Endpoint,
    InFlight,
    LeastLoad,
    NodeSet,
    PeakEwma,
    PowerOfTwoChoices,
    Random,
    Strategy,
)
from loadwise.testing import ScriptedRandom


def every_pair(count: int) -> list[float]:
    """Return draws that fall once on each of ``count`` firsts by ``count - 1`` seconds."""
    return [
        draw
        for first in range(count)
        for second in range(count - 1)
        for draw in ((first + 0.5) / count, (second + 0.5) / (count - 1))
    ]


def test_pairs_are_distinct_and_alike() -> None:
    """Every ordered pair of two different nodes has the same chance."""
    asked: list[str] = []

    def load(node: str) -> float:
        asked.append(node)
        return 0.0

    strategy = PowerOfTwoChoices[str](load=load, rng=ScriptedRandom(every_pair(5)))
    picks(strategy, NodeSet(list("abcde")), 20)
    drawn = list(zip(asked[::2], asked[1::2], strict=True))
    assert sorted(drawn) == sorted(permutations("abcde", 2))


def test_the_less_loaded_of_each_pair_wins() -> None:
    """Over all pairs of 4 nodes the least loaded wins 6 of 12, the most loaded none."""
    loads = {"a": 2.0, "b": 3.0, "c": 1.0, "d": 0.0}
    rng = ScriptedRandom(every_pair(4))
    strategy = PowerOfTwoChoices[str](load=loads.__getitem__, rng=rng)
    assert shares(picks(strategy, NodeSet(list("abcd")), 12), 4) == [2, 0, 4, 6]


def test_ties_go_to_either_alike() -> None:
    """Over all pairs of 5 equally loaded nodes each wins the same number of times."""
    strategy = PowerOfTwoChoices[str](load=lambda _: 1, rng=ScriptedRandom(every_pair(5)))
    assert shares(picks(strategy, NodeSet(list("abcde")), 20), 5) == [4] * 5


@pytest.mark.parametrize(
    ("eligible", "exclude"),
    [(range(11), ()), ([1, 2, 7], ()), (range(11), {0, 5}), (range(11), set(range(8)))],
    ids=["all", "view", "few-excluded", "most-excluded"],
)
def test_ties_are_broken_uniformly(eligible: range | list[int], exclude: set[int]) -> None:
    """Loads that nobody feeds are all zero: chi-square over those left, error probability 1e-4."""
    nodes = NodeSet(range(11)).restrict(eligible)
    left = [i for i in eligible if i not in exclude]
    strategy = PowerOfTwoChoices[int](load=InFlight(), rng=random.Random(12))
    counts = shares(picks(strategy, nodes, 5000, exclude), 11)
    assert sum(counts[i] for i in left) == 5000
    assert chi_square_tail([counts[i] for i in left], [1] * len(left)) > SIGNIFICANCE


@pytest.mark.parametrize("exclude", [(), {4}], ids=["none-excluded", "one-excluded"])
def test_the_most_loaded_never_wins(exclude: set[int]) -> None:
    """Two distinct nodes are compared, so the most loaded of those left is never chosen."""
    strategy = PowerOfTwoChoices[int](load=float, rng=random.Random(13))
    assert set(picks(strategy, NodeSet(range(5)).without([4]), 200, exclude)) == {0, 1, 2}


def test_one_or_two_left() -> None:
    """One node left is chosen; of two the less loaded is, always."""
    strategy = PowerOfTwoChoices[int](load=float, rng=random.Random(14))
    nodes = NodeSet(range(4))
    assert picks(strategy, nodes.restrict([2]), 5) == [2] * 5
    assert picks(strategy, nodes, 5, exclude={0, 1, 3}) == [2] * 5
    assert picks(strategy, nodes.restrict([3, 1]), 50) == [1] * 50
    assert picks(strategy, nodes, 50, exclude={0, 2}) == [1] * 50


@pytest.mark.parametrize("exclude", [(), {2}], ids=["none-excluded", "one-excluded"])
def test_a_nan_load_loses(exclude: set[int]) -> None:
    """A NaN load loses to any other, infinity included, whichever is drawn first."""
    for other in (1e300, math.inf):
        loads = [math.nan, other, math.nan]
        strategy = PowerOfTwoChoices[int](load=loads.__getitem__, rng=random.Random(15))
        assert set(picks(strategy, NodeSet(range(3)).restrict([0, 1]), 50, exclude)) == {1}


def by_weight(*weights: float) -> NodeSet[Endpoint]:
    """Return nodes of these weights."""
    return NodeSet(Endpoint(i, weight=weight) for i, weight in enumerate(weights))


@pytest.mark.parametrize(
    ("keep", "exclude"),
    [(range(7), ()), ([0, 3, 5], ()), (range(7), {1, 6}), (range(7), {0, 1, 2, 3})],
    ids=["all", "view", "two-excluded", "most-excluded"],
)
def test_idle_nodes_share_by_weight(keep: range | list[int], exclude: set[int]) -> None:
    """Loads of zero tie, and the one drawn first wins: chi-square, error probability 1e-4."""
    weights = [9, 1, 0.5, 3, 40, 2.5, 7]
    left = [i for i in keep if i not in exclude]
    strategy = PowerOfTwoChoices[Endpoint](load=InFlight(), rng=random.Random(23))
    nodes = by_weight(*weights).restrict(keep)
    counts = shares(picks(strategy, nodes, 8000, exclude), 7)
    assert sum(counts[i] for i in left) == 8000
    assert chi_square_tail([counts[i] for i in left], [weights[i] for i in left]) > SIGNIFICANCE


def test_pairs_are_drawn_by_weight_without_replacement() -> None:
    """First by weight, then by weight among the others; over an even grid of draws, exactly."""
    grid = [(i + 0.5) / 60 for i in range(60)]
    draws = [draw for first in grid for second in grid for draw in (first, second)]
    asked: list[int] = []

    def load(node: Endpoint) -> float:
        asked.append(int(str(node.id)))
        return 0.0

    strategy = PowerOfTwoChoices[Endpoint](load=load, rng=ScriptedRandom(draws))
    picks(strategy, by_weight(3, 2, 1), 3600)
    drawn = Counter(zip(asked[::2], asked[1::2], strict=True))
    weights = (3, 2, 1)
    assert drawn == {
        (a, b): 3600 * weights[a] // 6 * weights[b] // (6 - weights[a])
        for a, b in permutations(range(3), 2)
    }


@pytest.mark.parametrize("exclude", [(), {2}], ids=["none-excluded", "one-excluded"])
def test_load_is_compared_per_weight(exclude: set[int]) -> None:
    """18 requests at weight 9 are less than 3 at weight 1, and more than 1."""
    loads = {0: 18.0, 1: 3.0, 2: 0.0}
    nodes = by_weight(9, 1, 2) if exclude else by_weight(9, 1)
    strategy = PowerOfTwoChoices[Endpoint](
        load=lambda node: loads[int(str(node.id))], rng=random.Random(24)
    )
    assert set(picks(strategy, nodes, 50, exclude)) == {0}
    loads[1] = 1.0
    assert set(picks(strategy, nodes, 50, exclude)) == {1}
    loads[0] = math.nan
    assert set(picks(strategy, nodes, 50, exclude)) == {1}
    assert picks(strategy, nodes.restrict([0]), 2) == [0, 0]
    assert picks(strategy, nodes.restrict([0, 1]), 2, exclude={0, 1}) == [None, None]


@pytest.mark.parametrize("make", [PowerOfTwoChoices, LeastLoad])
@pytest.mark.parametrize("measure", [InFlight, PeakEwma])
def test_busy_nodes_hold_by_weight(
    make: type[PowerOfTwoChoices[Endpoint] | LeastLoad[Endpoint]],
    measure: type[InFlight | PeakEwma],
) -> None:
    """Weights 9 and 1 hold 900 and 100 of 1,000 requests (nginx's ``least_conn``), within 5."""
    balancer = Balancer(by_weight(9, 1), make(load=measure(), rng=random.Random(25)))
    leases = [balancer.acquire() for _ in range(1000)]
    held = Counter(lease.node.id for lease in leases)
    assert held[0] == pytest.approx(900, abs=5)
    for lease in leases:
        lease.cancel()


def test_a_measure_is_fed_and_read() -> None:
    """Picks that are fed back as requests in flight spread: 3 nodes, 300 picks, all within 3."""
    measure = InFlight()
    strategy, nodes = (
        PowerOfTwoChoices[str](load=measure, rng=random.Random(16)),
        NodeSet(list("abc")),
    )
    cells = [measure.cell(name) for name in nodes]
    for _ in range(300):
        index = strategy.select(nodes)
        assert index is not None
        cells[index].append(None)
    assert max(map(len, cells)) - min(map(len, cells)) <= 3
    assert strategy.measures == (measure,)
    assert strategy.facts(nodes) == {"load": [len(cell) for cell in cells]}


@pytest.mark.parametrize("exclude", [(), {2}], ids=["none-excluded", "one-excluded"])
def test_the_nodes_own_score_is_read_at_each_pick(exclude: set[int]) -> None:
    """Without load= the nodes' load_score() decides, as it is now, whatever object that is now."""
    nodes = [Server(name, load=load) for name, load in (("a", 2), ("b", 1), ("c", 9))]
    strategy = PowerOfTwoChoices[Server](rng=random.Random(19))
    for candidates in (nodes[: 3 if exclude else 2], NodeSet(nodes).without([2])):
        nodes[1].load = 1
        assert set(picks(strategy, candidates, 20, exclude)) == {1}
        nodes[1].load = 3
        assert set(picks(strategy, candidates, 20, exclude)) == {0}
        nodes[0].load_score = lambda: 4.0  # type: ignore[method-assign]  # the point of the test
        assert set(picks(strategy, candidates, 20, exclude)) == {1}
        del nodes[0].load_score
        assert set(picks(strategy, candidates, 20, exclude)) == {0}


def test_two_scores_a_pick() -> None:
    """Of any number of nodes two are asked for their score."""
    asked: list[str] = []

    class Asked(Server):
        def load_score(self) -> float:
            asked.append(self.id)
            return self.load

    nodes = NodeSet(Asked(f"node-{i}") for i in range(50))
    picks(PowerOfTwoChoices(rng=random.Random(20)), nodes, 10)
    assert len(asked) == 20
    assert all(one != other for one, other in zip(asked[::2], asked[1::2], strict=True))


def mean_of_maximum(strategy: Strategy[int], bins: list[int], rounds: int) -> float:
    """Return the mean number of balls in the fullest bin, over rounds of one ball per bin."""
    nodes = NodeSet(range(len(bins)))
    maxima = []
    for _ in range(rounds):
        bins[:] = [0] * len(bins)
        for _ in range(len(bins)):
            index = strategy.select(nodes)
            assert index is not None
            bins[index] += 1
        maxima.append(max(bins))
    return fmean(maxima)


def test_two_choices_of_bins() -> None:
    """1024 balls in 1024 bins: the fullest holds 3.00 on average, against 5.53 for one choice.

    M. Mitzenmacher, "The power of two choices in randomized load balancing". The maxima of 300
    rounds deviate by about 0.08 and 0.75, so a mean strays from the truth by more than 0.05 or 0.2
    less than once in 10^5 times.
    """
    bins = [0] * 1024
    two = PowerOfTwoChoices[int](load=bins.__getitem__, rng=random.Random(17))
    assert mean_of_maximum(two, bins, 300) == pytest.approx(3.00, abs=0.05)
    one = Random[int](rng=random.Random(18))
    assert mean_of_maximum(one, bins, 300) == pytest.approx(5.53, abs=0.2)


def test_a_node_without_a_score_is_named() -> None:
    """The error names the strategy, the node, what it lacks, and the way out."""
    for candidates in (["a", "b"], NodeSet(list("ab")), [Server("x"), "a"]):
        with pytest.raises(
            TypeError, match=r"PowerOfTwoChoices needs `load_score\(\)` .* node 'a'.*load="
        ):
            PowerOfTwoChoices[object]().select(candidates)
