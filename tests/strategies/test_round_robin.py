"""Round robin: turns, starts, fairness over views and under threads."""

from __future__ import annotations

import random
from collections.abc import Iterator
from threading import Barrier, Thread

import pytest
from tests.compiled import wrong_type
from tests.strategies.support import SIGNIFICANCE, chi_square_tail, picks, shares

from loadwise import NodeSet, RoundRobin, SelectionContext


@pytest.fixture
def seeded() -> Iterator[None]:
    """Seed the shared generator, which random starts are drawn from, for one test."""
    state = random.getstate()
    random.seed(20_240_607)
    yield
    random.setstate(state)


@pytest.mark.parametrize(
    ("start", "expected"), [(0, [0, 1, 2, 0, 1]), (2, [2, 0, 1, 2, 0]), (10, [1, 2, 0, 1, 2])]
)
def test_every_node_in_turn_from_the_start(start: int, expected: list[int]) -> None:
    """Turns go in index order from ``start``, modulo the number of nodes."""
    assert picks(RoundRobin(start=start), NodeSet(list("abc")), 5) == expected


@pytest.mark.usefixtures("seeded")
def test_random_starts_are_uniform() -> None:
    """With start=None each node is first alike: chi-square, error probability 1e-4."""
    nodes = NodeSet(range(11))
    firsts = [RoundRobin[int](start=None).select(nodes) for _ in range(1100)]
    assert chi_square_tail(shares(firsts, 11), [1] * 11) > SIGNIFICANCE


@pytest.mark.usefixtures("seeded")
def test_a_random_start_is_the_only_random_thing() -> None:
    """From a random start on, turns are taken in order, changes of members included."""
    strategy = RoundRobin[int](start=None)
    first = strategy.select(NodeSet(range(1000)))
    assert first is not None
    # Of 3 more starts, none is this one: 1 in 300, had the seed been drawn at random.
    assert first not in [RoundRobin[int](start=None).select(NodeSet(range(1000))) for _ in "abc"]
    assert picks(strategy, NodeSet(range(1000)), 2) == [(first + 1) % 1000, (first + 2) % 1000]
    after = strategy.select(NodeSet(range(500)))
    assert after == (first + 3 if first + 3 < 500 else 0)


@pytest.mark.parametrize("start", ["0", 1.0])
def test_a_start_must_be_an_int(start: object) -> None:
    """A start of another type is refused at construction."""
    with pytest.raises(TypeError, match=wrong_type(f"start is {start!r}; it must be an int")):
        RoundRobin(start=start)  # type: ignore[arg-type]  # the point of the test


def test_a_start_is_not_negative() -> None:
    """A negative start is refused at construction."""
    with pytest.raises(ValueError, match="start is -1; it must be at least 0"):
        RoundRobin(start=-1)


@pytest.mark.parametrize("down", [{3, 4, 5}, {0, 1, 2}, {8, 9, 0}])
def test_neighbours_that_are_down_burden_no_one(down: set[int]) -> None:
    """With 3 neighbours of 10 ineligible the other 7 are within 1 of each other at any time."""
    strategy, view = RoundRobin[int](), NodeSet(range(10)).without(down)
    counts = dict.fromkeys(set(range(10)) - down, 0)
    for index in picks(strategy, view, 1000):
        assert index is not None
        counts[index] += 1
        assert max(counts.values()) - min(counts.values()) <= 1


def test_a_change_of_members_goes_on_in_the_turns() -> None:
    """Nodes that come or go do not send everybody back to the first node."""
    strategy = RoundRobin[str]()
    assert picks(strategy, NodeSet(list("abcdefghij")), 4) == [0, 1, 2, 3]
    assert picks(strategy, NodeSet(list("abcdefghi")), 2) == [4, 5]
    assert picks(strategy, list("abcdefghijk"), 2) == [6, 7]


def test_a_remembered_set_goes_on_where_it_was() -> None:
    """Without a node the turns go on past it; with it again, where they were with it."""
    strategy, nodes = RoundRobin[str](), NodeSet(list("abcd"))
    assert picks(strategy, nodes, 2) == [0, 1]
    assert picks(strategy, nodes.without([2]), 2) == [3, 0]
    assert picks(strategy, nodes, 3) == [2, 3, 0]
    assert picks(strategy, nodes.without([2]), 3) == [1, 3, 0]


def test_two_sets_served_by_turns_are_both_served_fairly() -> None:
    """One strategy asked alternately about 2 and 4 nodes does not show 2 of the 4 all the time."""
    strategy, two, four = RoundRobin[str](), NodeSet(list("ab")), NodeSet(list("wxyz"))
    chosen = [(strategy.select(two), strategy.select(four)) for _ in range(40)]
    assert shares((one for one, _ in chosen), 2) == [20, 20]
    assert shares((other for _, other in chosen), 4) == [10, 10, 10, 10]


def test_an_excluded_turn_passes_to_the_next_and_is_kept() -> None:
    """The turn of an excluded node goes to the node after it, and waits for who may use it."""
    strategy, nodes = RoundRobin[str](), NodeSet(list("abcd"))
    assert picks(strategy, nodes, 6, exclude={1, 2}) == [0, 3, 0, 3, 0, 3]
    assert picks(strategy, nodes, 1, exclude={2}) == [1]
    assert picks(strategy, nodes, 5) == [2, 0, 1, 2, 3]


@pytest.mark.parametrize("size", range(2, 9))
@pytest.mark.parametrize("period", range(2, 7))
def test_who_is_excluded_now_and_then_gets_a_full_share(size: int, period: int) -> None:
    """A node that every second request excludes, or any period, has its n-th of all picks."""
    strategy, nodes = RoundRobin[int](), NodeSet(range(size))
    counts = [0] * size
    for request in range(60 * size):
        exclude = frozenset([1]) if request % period else frozenset[int]()
        index = strategy.select(nodes, SelectionContext(exclude=exclude))
        assert index is not None
        counts[index] += 1
    # Once in so many requests it may be chosen at all.
    assert counts[1] >= min(60, 60 * size // period) - 1
    others = counts[:1] + counts[2:]
    assert max(others) - min(others) <= 1


def test_turns_taken_by_others_do_not_hide_a_free_node() -> None:
    """A request for which every turn falls on an excluded node, others taking those between."""
    strategy, nodes = RoundRobin[int](), NodeSet(range(3))
    turns = strategy._resolve(nodes).turns
    for exclude, expected in (({0}, {1, 2}), ({0, 1}, {2}), ({1}, {0, 2})):
        turns.ahead[:] = [min(exclude)] * 1000
        assert strategy.peek(nodes, SelectionContext(exclude=exclude)) in expected
        assert strategy.select(nodes, SelectionContext(exclude=exclude)) in expected
    assert strategy.select(nodes, SelectionContext(exclude={0, 1, 2})) is None


@pytest.mark.usefixtures("restless")
@pytest.mark.parametrize(("threads", "each", "size"), [(8, 1001, 7), (3, 2000, 10)])
def test_threads_leave_counts_within_one(threads: int, each: int, size: int) -> None:
    """Any k threads that take m picks each over n nodes leave counts within 1 of each other."""
    strategy, nodes = RoundRobin[int](), NodeSet(range(size))
    begin = Barrier(threads)
    chosen: list[list[int | None]] = []

    def work() -> None:
        begin.wait(timeout=30)
        chosen.append([strategy.select(nodes) for _ in range(each)])

    workers = [Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=30)
    counts = shares((index for part in chosen for index in part), size)
    assert sum(counts) == threads * each
    assert max(counts) - min(counts) <= 1


def test_turns_are_counted_beyond_any_machine_word() -> None:
    """A start above 2^64 works, and being asked about the next turn reads it exactly."""
    strategy, nodes = RoundRobin[str](start=2**70), NodeSet(list("abcde"))
    expected = [(2**70 + turn) % 5 for turn in range(4)]
    assert [(strategy.peek(nodes), strategy.select(nodes)) for _ in range(4)] == [
        (index, index) for index in expected
    ]


def test_turns_beyond_any_machine_word_may_be_read_by_threads() -> None:
    """Who asks about the next turn while others take theirs is given a turn that was to come."""
    start, each = 2**70, 2000
    strategy, nodes = RoundRobin[int](start=start), NodeSet(range(1_000_003))
    strategy.prepare(nodes)
    workers = [Thread(target=picks, args=(strategy, nodes, each)) for _ in range(2)]
    for worker in workers:
        worker.start()
    seen: set[int | None] = set()
    while any(worker.is_alive() for worker in workers):
        seen.add(strategy.peek(nodes))
    for worker in workers:
        worker.join(timeout=30)
    first = start % len(nodes)
    assert seen <= set(range(first, first + 2 * each + 1))
    assert strategy.peek(nodes) == first + 2 * each
