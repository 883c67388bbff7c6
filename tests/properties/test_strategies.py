"""What must hold for strategies whatever the nodes, weights, views and exclusions."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.strategies.support import (
    MAKERS,
    ReferenceRing,
    Server,
    fair_sequence,
    furthest_from_proportional,
    picks,
    smooth_sequence,
)

from loadwise import (
    ConsistentHash,
    Endpoint,
    LeastLoad,
    MostAvailable,
    NodeSet,
    PowerOfTwoChoices,
    RoundRobin,
    SelectionContext,
    WeightedRoundRobin,
)
from loadwise.strategies import ViewStrategy
from loadwise.strategies._fair_schedule import FairSchedule
from loadwise.strategies.weighted_random import alias_table
from loadwise.strategies.weighted_round_robin import smooth_cycle

Maker = Callable[[], ViewStrategy[Any]]

# The first pick from some nodes builds tables, so examples differ much in how long they take.
relaxed = settings(deadline=None)

every_strategy = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)

int_weights = st.lists(st.integers(0, 9), min_size=1, max_size=9)
any_weights = int_weights | st.lists(
    st.sampled_from([0, 0.0, 1, 0.25, 1e-6, 3, 2.5, 200]), min_size=1, max_size=9
)
# Unlike enough; a ring has points for the lightest node and so many more for the heaviest.
unlike_weights = int_weights | st.lists(
    st.sampled_from([0, 0.0, 1, 0.25, 0.1, 3, 2.5, 20]), min_size=1, max_size=9
)
names = st.lists(st.text(max_size=4), min_size=2, max_size=8, unique=True)
hashes = st.integers(0, 2**64 - 1)


@dataclass(frozen=True)
class Request:
    """One pick: which view of the nodes, and what is excluded."""

    keep: frozenset[int]
    context: SelectionContext


@st.composite
def traffic(draw: st.DrawFn) -> tuple[list[Server], list[Request]]:
    """Draw some nodes, and requests to a few different views of them."""
    weights = draw(unlike_weights)
    some = st.frozensets(st.integers(0, len(weights) - 1))
    views = [*draw(st.lists(some, max_size=2)), frozenset(range(len(weights)))]
    loads = st.sampled_from([0.0, 1.0, 2.0, math.nan, math.inf])
    nodes = [
        Server(f"node-{i}", weight, load=draw(loads), left=draw(loads))
        for i, weight in enumerate(weights)
    ]
    request = st.builds(
        Request,
        st.sampled_from(views),
        st.builds(SelectionContext, st.text(max_size=3) | hashes, st.just(frozenset()) | some),
    )
    return nodes, draw(st.lists(request, min_size=1, max_size=12))


@every_strategy
@settings(deadline=None, max_examples=20)
@given(case=traffic())
def test_picks_are_allowed_and_told(make: Maker, case: tuple[list[Server], list[Request]]) -> None:
    """A pick is in the view, not drained, not excluded; there is none only if nothing is left.

    peek() tells what select() then returns, and leaves all that follows as it would be.
    """
    nodes, requests = case
    asked, unasked, members = make(), make(), NodeSet(nodes)
    for request in requests:
        view = members.restrict(request.keep)
        allowed: set[int | None] = {i for i in request.keep if nodes[i].weight}
        allowed -= request.context.exclude
        told = asked.peek(view, request.context)
        assert told in (allowed or {None})
        assert asked.peek(view, request.context) == told
        assert asked.select(view, request.context) == told
        assert unasked.select(view, request.context) == told


@every_strategy
@settings(deadline=None, max_examples=20)
@given(case=traffic())
def test_lists_and_sets_choose_alike(make: Maker, case: tuple[list[Server], list[Request]]) -> None:
    """The same requests to a list, or to new sets of the same nodes, lead to the same picks."""
    nodes, requests = case
    by_list, by_set, members = make(), make(), NodeSet(nodes)
    for number, request in enumerate(requests):
        candidates = NodeSet(nodes) if number % 2 else nodes
        assert by_list.select(candidates, request.context) == by_set.select(
            members, request.context
        )


@relaxed
@given(weights=int_weights | st.lists(st.integers(0, 300), min_size=1, max_size=30), data=st.data())
def test_the_table_is_the_smooth_sequence(weights: list[int], data: st.DataObject) -> None:
    """The grouped construction lays out exactly nginx's sequence, for any view."""
    indices = st.integers(0, len(weights) - 1)
    keep = data.draw(st.just(set(range(len(weights)))) | st.sets(indices))
    eligible = sorted(i for i in keep if weights[i])
    cycle = smooth_cycle(eligible, weights)
    assert cycle is not None
    length = sum(weights[i] for i in eligible) // (math.gcd(*(weights[i] for i in eligible)) or 1)
    assert len(cycle) == length
    assert list(cycle) == smooth_sequence(weights, length, eligible)
    nodes = NodeSet(Endpoint(i, weight=weight) for i, weight in enumerate(weights))
    chosen = picks(WeightedRoundRobin(), nodes.restrict(keep), 20)
    expected = [cycle[turn % length] for turn in range(20)] if length else [None] * 20
    assert chosen == expected


@relaxed
@given(
    weights=st.lists(
        st.floats(1e-3, 1e3)
        | st.integers(1, 10**6)
        | st.sampled_from([1.0, 0.5, 100.0])
        | st.integers(1, 30).map(lambda tenths: tenths * 0.1),  # whose periods are often rounded
        min_size=1,
        max_size=40,
    ),
    count=st.integers(1, 400),
)
def test_a_schedule_is_never_more_than_a_pick_from_proportional(
    weights: list[float], count: int
) -> None:
    """At any prefix each node is at most one pick behind its share or ahead of it.

    And it is the sequence of the definition.
    """
    schedule = FairSchedule(range(len(weights)), weights)
    chosen = [index for _ in range(0, count, 64) for index in schedule.chunk()][:count]
    assert chosen == fair_sequence(weights, count)
    behind, ahead = furthest_from_proportional(chosen, weights)
    assert behind < 1 + 1e-6
    assert ahead < 1 + 1e-6


@relaxed
@given(size=st.integers(1, 12), start=st.integers(0, 99), count=st.integers(0, 60), data=st.data())
def test_round_robin_is_fair_at_any_time(
    size: int, start: int, count: int, data: st.DataObject
) -> None:
    """Whatever is eligible, all that is has had the same number of turns, within 1."""
    keep = data.draw(st.sets(st.integers(0, size - 1), min_size=1))
    chosen = picks(RoundRobin(start=start), NodeSet(range(size)).restrict(keep), count)
    counts = [chosen.count(i) for i in keep]
    assert sum(counts) == count
    assert max(counts) - min(counts) <= 1


@relaxed
@given(weights=st.lists(st.floats(1e-6, 1e6) | st.integers(1, 1000), min_size=1, max_size=40))
def test_an_alias_table_holds_the_exact_chances(weights: list[float]) -> None:
    """Summed over its cells the table gives each node its weight's part of the whole."""
    keep, alias = alias_table(weights)
    chances = [0.0] * len(weights)
    for cell, (kept, other) in enumerate(zip(keep, alias, strict=True)):
        assert 0 <= kept <= 1
        chances[cell] += kept
        chances[other] += 1 - kept
    total = math.fsum(weights)
    assert chances == pytest.approx([len(weights) * w / total for w in weights], abs=1e-9)


@relaxed
@given(
    ids=names,
    virtual_nodes=st.integers(1, 6),
    exact=st.booleans(),
    data=st.data(),
)
def test_the_ring_is_the_reference(
    ids: list[str], virtual_nodes: int, data: st.DataObject, *, exact: bool
) -> None:
    """Every lookup gives the owner that sorting, searching and walking all points gives."""
    weights = data.draw(
        st.lists(st.sampled_from([0, 1, 2, 0.5]), min_size=len(ids), max_size=len(ids))
    )
    some = st.frozensets(st.integers(0, len(ids) - 1))
    keep, exclude = data.draw(some), data.draw(st.just(frozenset()) | some)
    positive = sorted(weight for weight in weights if weight) or [1]
    unit = positive[(len(positive) - 1) // 2]
    counts = [max(1, round(w * virtual_nodes / unit)) if w else 0 for w in weights]
    reference = ReferenceRing(ids, counts)
    if exact and reference.points:
        near = st.sampled_from(reference.points).map(lambda point: point[0])
        hashed = data.draw(near) + data.draw(st.integers(-1, 1))
    else:
        hashed = data.draw(hashes)
    nodes = NodeSet(Endpoint(name, weight=w) for name, w in zip(ids, weights, strict=True))
    strategy = ConsistentHash[Endpoint](virtual_nodes=virtual_nodes)
    index = strategy.select(nodes.restrict(keep), SelectionContext(hashed, exclude))
    assert index == reference.owner(hashed, keep - exclude)


@relaxed
@given(ids=names, keys=st.lists(hashes | st.text(), min_size=1, max_size=30), data=st.data())
def test_membership_moves_no_key_between_those_that_stay(
    ids: list[str], keys: list[int | str], data: st.DataObject
) -> None:
    """When a node leaves, its keys move, and as they would if it were down; no other does.

    Read backwards it is the same for a node that joins: it takes keys, and none moves elsewhere.
    """
    leaver = data.draw(st.integers(0, len(ids) - 1))
    strategy = ConsistentHash[str](virtual_nodes=20)
    before, after = NodeSet(ids), NodeSet(ids[:leaver] + ids[leaver + 1 :])
    for key in keys:
        old = strategy.select(before, SelectionContext(key))
        new = strategy.select(after, SelectionContext(key))
        walked = strategy.select(before.without([leaver]), SelectionContext(key))
        assert old is not None
        assert new is not None
        assert walked is not None
        assert after[new] == before[walked]
        assert old == leaver or before[old] == after[new]


@relaxed
@given(
    loads=st.lists(st.floats(), min_size=1, max_size=8),
    seed=st.integers(0, 2**32),
    epsilon=st.floats(0, 10),
    data=st.data(),
)
def test_scans_find_the_best(
    loads: list[float], seed: int, epsilon: float, data: st.DataObject
) -> None:
    """Least load chooses a least load, most available a budget within epsilon of the most.

    NaN counts as the worst there is.
    """
    nodes = NodeSet(Server(f"{i}", load=load, left=-load) for i, load in enumerate(loads))
    exclude = data.draw(st.frozensets(st.integers(0, len(loads) - 1), max_size=len(loads) - 1))
    context = SelectionContext(exclude=exclude)
    ranked = [math.inf if math.isnan(load) else load for load in loads]
    best = min(rank for i, rank in enumerate(ranked) if i not in exclude)
    least = LeastLoad[Server](rng=random.Random(seed)).select(nodes, context)
    assert least is not None
    assert ranked[least] == best
    most = MostAvailable[Server](epsilon, rng=random.Random(seed)).select(nodes, context)
    assert most is not None
    assert ranked[most] <= best + epsilon


@relaxed
@given(loads=st.lists(st.floats(), min_size=2, max_size=8, unique=True), seed=st.integers(0, 2**32))
def test_two_choices_never_take_the_worst(loads: list[float], seed: int) -> None:
    """Of two distinct nodes the better is taken, so the single worst of all never is."""
    ranked = sorted(
        range(len(loads)),
        key=lambda i: (math.isnan(loads[i]), 0 if loads[i] != loads[i] else loads[i]),
    )
    strategy = PowerOfTwoChoices[int](load=loads.__getitem__, rng=random.Random(seed))
    if math.isnan(loads[ranked[-2]]):
        return
    assert ranked[-1] not in picks(strategy, NodeSet(range(len(loads))), 10)
