"""The rules of other routers, each beside a plain form of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.compiled import wrong_type

from loadwise import Balancer, Endpoint, Lease, LeastLoad, PowerOfTwoChoices, Strategy, by_id
from loadwise.llm import (
    CacheAware,
    DualMap,
    LMetric,
    PendingTokens,
    PrefixIndex,
    ScoredPrefix,
)
from loadwise.testing import ManualClock

NODES = ["a", "b", "c", "d"]
CAPACITY = 64
ASKED = 12


def text(name: str, tokens: int) -> str:
    """Return a text of so many tokens that begins as all of its name do."""
    return f"{name:<4}" * tokens


class State(NamedTuple):
    """A node's: tokens of the prompt that it has, its requests before and after their first byte.

    Each of those is known by the tokens of its prompt.
    """

    cached: int
    waiting: tuple[int, ...]
    answering: tuple[int, ...]

    @property
    def in_flight(self) -> int:
        return len(self.waiting) + len(self.answering)


STATES = st.lists(
    st.builds(
        State,
        st.integers(0, ASKED),
        st.lists(st.integers(1, 9), max_size=3).map(tuple),
        st.lists(st.integers(1, 9), max_size=3).map(tuple),
    ),
    min_size=4,
    max_size=4,
)


def asked(strategy: Strategy[str], states: list[State]) -> int:
    """Return where a prompt of 12 tokens goes, with nodes in these states."""
    balancer: Balancer[str] = Balancer(NODES, strategy, clock=ManualClock())
    leases: list[Lease[str]] = []
    for node, state in zip(NODES, states, strict=True):
        where = by_id(node)
        if state.cached:
            with balancer.acquire(prompt=text("q", state.cached), where=where) as lease:
                lease.first_byte()
        for number, tokens in enumerate(state.answering):
            leases.append(balancer.acquire(prompt=text(f"{node}w{number}", tokens), where=where))
            leases[-1].first_byte()
        for number, tokens in enumerate(state.waiting):
            leases.append(balancer.acquire(prompt=text(f"{node}p{number}", tokens), where=where))
    with balancer.acquire(prompt=text("q", ASKED)) as lease:
        chosen = NODES.index(lease.node)
    for lease in leases:
        lease.success()
    return chosen


def index() -> PrefixIndex:
    """Return an index whose blocks are tokens."""
    return PrefixIndex(CAPACITY, 4)


def lowest(scores: list[float], then: list[int]) -> set[int]:
    """Return who has the lowest score; of those, who has the fewest in flight."""
    tied = [i for i, score in enumerate(scores) if abs(score - min(scores)) < 1e-9]
    fewest = min(then[i] for i in tied)
    return {i for i in tied if then[i] == fewest}


@given(STATES)
@settings(max_examples=60, deadline=None)
def test_lmetric_multiplies(states: list[State]) -> None:
    """New tokens times the batch, this request in it."""
    scores = [max(1.0, ASKED - s.cached) * (s.in_flight + 1) for s in states]
    want = lowest(scores, [s.in_flight for s in states])
    assert asked(LMetric(index(), rng=Random(1)), states) in want


@given(STATES, st.sampled_from([0, 1, 3]), st.sampled_from([1.0, 2.0]))
@settings(max_examples=60, deadline=None)
def test_cache_aware_balances_or_matches(states: list[State], most: int, factor: float) -> None:
    """The fewest in flight where loads are uneven, else the best match, else the least known."""
    loads = [s.in_flight for s in states]
    if max(loads) - min(loads) > most and max(loads) > factor * min(loads):
        scores = [float(load) for load in loads]
    elif max(s.cached for s in states) > 0.5 * ASKED:
        scores = [-float(s.cached) for s in states]
    else:
        scores = [float(s.cached + sum(s.waiting) + sum(s.answering)) for s in states]
    strategy: CacheAware[str] = CacheAware(
        index(), balance_abs_threshold=most, balance_rel_threshold=factor, rng=Random(1)
    )
    assert asked(strategy, states) in lowest(scores, loads)


@given(STATES)
@settings(max_examples=60, deadline=None)
def test_scored_prefix_adds_up(states: list[State]) -> None:
    """Three times the share that is cached, twice the queue, twice the cache that is free."""
    queues = [len(s.waiting) for s in states]
    span = max(queues) - min(queues)
    scores = [
        -3 * s.cached / ASKED
        - 2 * ((max(queues) - len(s.waiting)) / span if span else 1)
        - 2 * (1 - min(1, (sum(s.waiting) + sum(s.answering)) / CAPACITY))
        for s in states
    ]
    want = lowest(scores, [s.in_flight for s in states])
    assert asked(ScoredPrefix(index(), rng=Random(1)), states) in want


def test_dual_map_agrees_without_a_word() -> None:
    """Two clients send a conversation to the same node, and all of them to all nodes."""
    fleet = [f"gpu-{number}" for number in range(8)]
    one, other = (Balancer(fleet, DualMap(40), clock=ManualClock()) for _ in range(2))
    homes: Counter[str] = Counter()
    for number in range(400):
        home = one.pick(prompt=text(f"{number}", 10))
        assert other.pick(prompt=text(f"{number}", 30)) == home
        homes[home] += 1
    assert len(homes) == 8
    assert max(homes.values()) < 2 * 50


def test_dual_map_goes_to_the_second_when_that_is_quicker() -> None:
    """A prompt waits for its first node until computing it on the second takes less."""
    balancer: Balancer[str] = Balancer(NODES, DualMap(4), clock=ManualClock())
    prompt = text("q", 100)
    leases = [balancer.acquire(prompt=prompt) for _ in range(40)]
    nodes = [lease.node for lease in leases]
    first, second = nodes[0], next(node for node in nodes if node != nodes[0])
    # 100 and 200 tokens pending are no more than none and the 100 of this prompt; 200 are.
    assert nodes[:6] == [first, first, second, first, second, first]
    assert set(nodes) == {first, second}
    for lease in leases:
        lease.success()
    balancer.drain(first)
    assert balancer.pick(prompt=prompt) == second
    balancer.drain(second)
    assert balancer.pick(prompt=prompt) not in {first, second}


def test_dual_map_moves_only_prefixes_of_who_leaves() -> None:
    """What the node that left did not have stays where it was."""
    balancer: Balancer[str] = Balancer(NODES, DualMap(8), clock=ManualClock())
    prompts = [text(f"{number}", 4) for number in range(100)]
    before = [balancer.pick(prompt=prompt) for prompt in prompts]
    balancer.remove("b")
    after = [balancer.pick(prompt=prompt) for prompt in prompts]
    assert all(was in {now, "b"} for was, now in zip(before, after, strict=True))


@pytest.mark.parametrize("make", [LeastLoad, PowerOfTwoChoices])
def test_pending_tokens_are_a_load(make: Callable[..., Strategy[str]]) -> None:
    """Any strategy that takes a load is fed the prompts, until their first bytes."""
    measure = PendingTokens()
    balancer: Balancer[str] = Balancer(["a", "b"], make(measure, Random(1)), clock=ManualClock())
    with balancer.acquire(prompt=text("long", 100), where=by_id("a")) as one:
        others = [balancer.acquire(prompt=text("s", 10)) for _ in range(9)]
        assert [lease.node for lease in others] == ["b"] * 9
        one.first_byte()
        with balancer.acquire(prompt=text("s", 10)) as lease:
            assert lease.node == "a"
        for lease in others:
            lease.success()
    assert [measure.load(measure.cell(node)) for node in "ab"] == [0.0, 0.0]


@pytest.mark.parametrize("make", [LMetric, CacheAware, ScoredPrefix])
def test_weights_break_ties(make: Callable[..., Strategy[Endpoint]]) -> None:
    """Where rules see no difference, nodes have requests by their weights."""
    nodes = [Endpoint("big", weight=3), Endpoint("small", weight=1)]
    balancer: Balancer[Endpoint] = Balancer(nodes, make(rng=Random(1)), clock=ManualClock())
    leases = [balancer.acquire() for _ in range(80)]
    assert Counter(lease.node.id for lease in leases)["big"] == 60
    for lease in leases:
        lease.success()


@pytest.mark.parametrize(
    ("make", "options", "error", "says"),
    [
        (CacheAware[str], {"cache_threshold": 1.5}, ValueError, "cache_threshold is 1.5"),
        (CacheAware[str], {"balance_abs_threshold": -1}, ValueError, "balance_abs_threshold is -1"),
        (CacheAware[str], {"balance_rel_threshold": 0.5}, ValueError, "rel_threshold is 0.5"),
        (ScoredPrefix[str], {"queue_weight": -2}, ValueError, "queue_weight is -2"),
        (
            ScoredPrefix[str],
            {"prefix_weight": 0, "queue_weight": 0, "cache_weight": 0},
            ValueError,
            "all weights are 0",
        ),
        (DualMap[str], {"prefix_chars": 0}, ValueError, "prefix_chars is 0"),
        (DualMap[str], {"rng": 1}, TypeError, "rng is 1"),
        (LMetric[str], {"index": {}}, TypeError, "it must be a PrefixIndex"),
    ],
)
def test_bad_arguments_are_named(
    make: Callable[..., object], options: dict[str, Any], error: type[Exception], says: str
) -> None:
    """What is wrong is said where it is given."""
    with pytest.raises(error, match=wrong_type(says)):
        make(**options)
