"""How far round robins leave any node from its share, whatever is asked between and changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadwise import Endpoint, NodeSet, RoundRobin, SelectionContext, WeightedRoundRobin
from loadwise.strategies import ViewStrategy

Maker = Callable[[], ViewStrategy[Any]]

both = pytest.mark.parametrize("make", [RoundRobin, WeightedRoundRobin])

weights = st.sampled_from([1, 2, 3, 10, 1000])
shares = st.sampled_from([1, 2, 7, 0.5, 2.5, 1000])
names = st.sampled_from("abcde")

ROUNDING = 1e-6
"""What floats may add to a bound in some thousand picks."""


class Ledger:
    """What each node is due of all picks, less what it got."""

    def __init__(self, strategy: ViewStrategy[Any], *, by_weight: bool) -> None:
        self.strategy = strategy
        self.by_weight = by_weight
        self.behind: dict[object, float] = {}

    def pick(self, nodes: Sequence[Endpoint], exclude: frozenset[int] = frozenset()) -> object:
        """Have one of the nodes chosen, and charge it; return its id."""
        index = self.strategy.select(nodes, SelectionContext(exclude=exclude))
        assert index is not None
        dues = [node.weight if self.by_weight else 1 for node in nodes]
        total = sum(dues)
        for node, due in zip(nodes, dues, strict=True):
            self.behind[node.id] = self.behind.get(node.id, 0.0) + due / total
        self.behind[nodes[index].id] -= 1
        return nodes[index].id


def harmonic(count: int) -> float:
    """Return 1 + 1/2 + ... + 1/count."""
    return sum(1 / number for number in range(1, count + 1))


changes = st.lists(
    st.tuples(
        st.permutations("abcd").map(tuple),
        st.frozensets(st.sampled_from("abcd"), max_size=2),
        st.lists(weights, min_size=5, max_size=5),
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=6,
)


@both
@settings(deadline=None, max_examples=20)
@given(steps=changes, renew=st.booleans())
def test_changes_before_every_pick(
    make: Maker, steps: list[tuple[tuple[str, ...], frozenset[str], list[int], int]], *, renew: bool
) -> None:
    """Members, weights and order may change before each pick: nobody starves or runs ahead.

    With n nodes at most at a time a node is at most H = 1 + 1/2 + ... + 1/n picks behind its share,
    and n - 1 ahead of it. Those that leave come back as others, and a guest makes each set a new
    one. The steps are gone through 40 times.
    """
    strategy = make()
    ledger = Ledger(strategy, by_weight=make is WeightedRoundRobin)
    reborn = dict.fromkeys("abcd", 0)
    for turn in range(40):
        for step, (order, leaving, values, count) in enumerate(steps):
            for name in leaving if renew else ():
                ledger.behind.pop(f"{name}{reborn[name]}", None)
                reborn[name] += 1
            names = [f"{name}{reborn[name]}" for name in order]
            guest = f"guest-{turn}-{step}"
            nodes = [Endpoint(n, weight=w) for n, w in zip([*names, guest], values, strict=True)]
            for _ in range(count):
                ledger.pick(nodes)
                assert max(ledger.behind.values()) <= harmonic(5) + ROUNDING
                assert min(ledger.behind.values()) >= 1 - 5 - ROUNDING
            del ledger.behind[guest]


sets = st.lists(
    st.dictionaries(names, shares, min_size=1).map(
        lambda given: [Endpoint(name, weight=weight) for name, weight in given.items()]
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda nodes: tuple(node.id for node in nodes),
)


@both
@settings(deadline=None, max_examples=20)
@given(
    values=st.lists(shares, min_size=5, max_size=5),
    kept=st.lists(st.frozensets(st.integers(0, 4), min_size=1), min_size=1, unique=True),
    order=st.lists(st.integers(0, 4), min_size=1, max_size=8),
)
def test_each_set_is_served_fairly_whatever_comes_between(
    make: Maker, values: list[float], kept: list[frozenset[int]], order: list[int]
) -> None:
    """Of the requests to one set each node has its share, to within the number of nodes.

    However requests to several views of some nodes alternate; the order is gone through 60 times.
    """
    strategy = make()
    nodes = NodeSet([Endpoint(i, weight=weight) for i, weight in enumerate(values)])
    dues = values if make is WeightedRoundRobin else [1.0] * 5
    behind = [[0.0] * 5 for _ in kept]
    for _ in range(60):
        for number in order:
            chosen = number % len(kept)
            index = strategy.select(nodes.restrict(kept[chosen]))
            assert index is not None
            total = sum(dues[i] for i in kept[chosen])
            for i in kept[chosen]:
                behind[chosen][i] += dues[i] / total - (i == index)
    assert all(abs(each) <= 5 for of_set in behind for each in of_set)


@both
@settings(deadline=None, max_examples=20)
@given(
    candidates=sets,
    order=st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=5),
)
def test_remembered_and_new_sets_in_any_order(
    make: Maker, candidates: list[list[Endpoint]], order: list[tuple[int, bool]]
) -> None:
    """Sets that are asked about again and sets that never are, by turns: nobody falls behind.

    Claims are handed on from set to set, so what a node is behind does not grow with the number of
    picks: each of the 64 sets that are remembered has at most its own to add. Ahead of its share a
    node may well be, by what guests forgo who come once and are not chosen. The order is gone
    through 150 times.
    """
    ledger = Ledger(make(), by_weight=make is WeightedRoundRobin)
    for turn in range(150):
        for step, (number, visited) in enumerate(order):
            nodes = candidates[number % len(candidates)]
            guest = [Endpoint(f"guest-{turn}-{step}")] if visited else []
            ledger.pick([*nodes, *guest])
    assert all(behind <= 64 for behind in ledger.behind.values())


@both
@settings(deadline=None, max_examples=20)
@given(
    size=st.integers(2, 5),
    exclusions=st.lists(st.frozensets(st.integers(0, 4)), min_size=1, max_size=6),
)
def test_exclusions_starve_nobody(make: Maker, size: int, exclusions: list[frozenset[int]]) -> None:
    """Who may be chosen by one request in a round has a pick in as many rounds as there are nodes.

    Exclusions of a request come round and round; a turn that one passes over is kept for the next.
    """
    strategy, nodes = make(), NodeSet([Endpoint(i) for i in range(size)])
    allowed = [frozenset(range(size)) - exclude for exclude in exclusions]
    since = dict.fromkeys(frozenset().union(*allowed), 0)
    for _ in range(40):
        for rest in allowed:
            context = SelectionContext(exclude=frozenset(range(size)) - rest)
            index = strategy.select(nodes, context)
            assert (index in rest) if rest else (index is None)
            if index is not None:
                since[index] = -1
        since = {index: rounds + 1 for index, rounds in since.items()}
        assert max(since.values(), default=0) <= 2 * size


@both
@settings(deadline=None, max_examples=30)
@given(
    values=st.lists(st.sampled_from([0, 1, 1, 2, 2.5]), min_size=2, max_size=6),
    steps=st.lists(
        st.tuples(st.sampled_from(["join", "leave", "stay"]), st.integers(0, 9), st.integers(1, 9)),
        max_size=40,
    ),
)
def test_turns_taken_over_in_short_are_those_taken_over_at_length(
    make: Maker, values: list[float], steps: list[tuple[str, int, int]]
) -> None:
    """Views of which the few left out are known, of members that came and left, choose as others.

    The others are made anew each time, so that nothing is known of where they come from.
    """
    short, length = make(), make()
    membership = NodeSet(
        Endpoint(str(number), weight=value) for number, value in enumerate(values)
    ).membership
    for number, (change, draw, picks) in enumerate(steps, len(values)):
        size = len(membership.nodes)
        if change == "join":
            membership = membership.joined(Endpoint(str(number), weight=draw % 3))
        elif change == "leave" and size > 1:
            membership = membership.parted(draw % size)
        view = NodeSet.of_membership(membership).without([draw % len(membership.nodes)])
        anew = NodeSet(membership.nodes).restrict(view.eligible)
        for _ in range(picks):
            assert short.select(view) == length.select(anew)
