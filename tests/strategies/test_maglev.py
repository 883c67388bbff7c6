"""Maglev: Envoy's table cell by cell, its balance by weights, sizes that are refused, its cost."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from threading import Event, Thread
from types import FrameType
from typing import Any

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from loadwise import Balancer, ConsistentHash, Endpoint, Maglev, NodeSet
from loadwise.strategies import _maglev_table, _ring

HOSTS = [f"127.0.0.1:{port}" for port in range(90, 96)]


def reference(names: Sequence[str], weights: Sequence[float], size: int) -> list[int]:
    """Fill a table by the published rule, one step of an order after the other.

    The rule of weights is Envoy's: in round t whoever has t * w below its target sits out, and a
    turn adds the largest weight to the target. Weights are parts of their sum.
    """
    total = sum(weights)
    shares = [weight / total for weight in weights]
    order = sorted(range(len(names)), key=lambda i: names[i].encode())
    cells = [-1] * size
    targets, used, turn, left = [0.0] * len(names), [0] * len(names), 0, size
    while left:
        turn += 1
        for i in order:
            if turn * shares[i] < targets[i] or not left:
                continue
            targets[i] += max(shares)
            name = names[i].encode()
            offset = xxhash.xxh64_intdigest(name) % size
            skip = xxhash.xxh64_intdigest(name, 1) % (size - 1) + 1
            while cells[(offset + used[i] * skip) % size] >= 0:
                used[i] += 1
            cells[(offset + used[i] * skip) % size] = i
            left -= 1
    return cells


def cells_of(strategy: Maglev[Any], nodes: NodeSet[Any]) -> list[int | None]:
    """Return the owner of each cell, asked by hashes that lead to it."""
    return [strategy.owner(nodes, cell) for cell in range(strategy._table_size)]


@pytest.mark.parametrize(
    ("names", "ports"),
    [
        (HOSTS, [92, 94, 90, 91, 95, 90, 93]),
        ([str(port) for port in range(90, 96)], [92, 95, 90, 93, 94, 91, 90]),
    ],
)
def test_the_table_is_envoys(names: list[str], ports: list[int]) -> None:
    """Six hosts and seven cells, by address and by name: Envoy's maglev_lb_test.cc, Basic."""
    nodes = NodeSet(names)
    strategy = Maglev[str](table_size=7)
    assert cells_of(strategy, nodes) == [port - 90 for port in ports]
    assert strategy.owner(nodes, 7 * 10**18 + 4) == ports[4] - 90, "modulo the size"


@settings(max_examples=60)
@given(
    weights=st.lists(
        st.sampled_from([1, 1, 1, 2, 3, 7, 50, 0.3, 1e-9, 128]), min_size=1, max_size=9
    ),
    size=st.sampled_from([11, 13, 101, 251, 499]),
    equal=st.booleans(),
)
def test_any_table_is_that_of_the_rule(weights: list[float], size: int, *, equal: bool) -> None:
    """Whatever the weights, shortcuts lead to the cells that single steps do."""
    if equal:
        weights = [weights[0]] * len(weights)
    nodes = NodeSet(Endpoint(f"host-{i}", weight=weight) for i, weight in enumerate(weights))
    names = [f"host-{i}" for i in range(len(weights))]
    assert cells_of(Maglev(size), nodes) == reference(names, weights, size)


def test_shares_are_even_to_a_cell() -> None:
    """Equal nodes have as many cells each as others, but for one; the default size is Envoy's."""
    nodes = NodeSet(f"host-{number}" for number in range(100))
    counts = Counter(Maglev[str]()._resolve(nodes).table)
    assert sum(counts.values()) == 65_537
    assert set(counts.values()) == {655, 656}


def test_shares_are_by_weight_to_a_cell() -> None:
    """The cells of a node are its share of the weights, to within one and a half."""
    weights = [5, 1, 1, 3, 0.25, 0]
    nodes = NodeSet(Endpoint(f"host-{i}", weight=weight) for i, weight in enumerate(weights))
    counts = Counter(Maglev[Endpoint](table_size=4099)._resolve(nodes).table)
    for index, weight in enumerate(weights):
        exact = Fraction(weight) * 4099 / Fraction(sum(weights))
        assert abs(counts[index] - exact) <= 1.5


def test_extreme_weights_are_no_trouble() -> None:
    """Weights at the ends of what a float holds fill a table, and nobody goes without a cell."""
    for weights in ([1e308] * 20, [1e308, 1e-308, 5e-324], [10**300, 1], [5e-324] * 3):
        nodes = NodeSet(Endpoint(f"host-{i}", weight=weight) for i, weight in enumerate(weights))
        assert set(Maglev[Endpoint](table_size=101)._resolve(nodes).table) == {*range(len(weights))}


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (8, "table_size is 8, which is no prime; near it are 7 and 11"),
        (65_536, "near it are 65521 and 65537"),
        (5_000_009, "near it are 4999999 and 5000011"),
        (5_000_077, "table_size is 5000077; it must be at most 5000011"),
        (1, "table_size is 1, which is no prime; near it are 2"),
    ],
)
def test_a_size_that_is_no_prime_is_refused(size: int, message: str) -> None:
    """The error names the value and the nearest that will do (8: Envoy's test NoPrimeNumber)."""
    with pytest.raises(ValueError, match=message):
        Maglev(size)


def test_more_nodes_than_cells_are_refused() -> None:
    """Each node needs a cell; members without a weight need none."""
    nodes = [Endpoint(f"host-{i}", weight=int(i != 3)) for i in range(8)]
    assert {*cells_of(Maglev(7), NodeSet(nodes))} == {0, 1, 2, 4, 5, 6, 7}
    balancer = Balancer(nodes, Maglev(7))
    with pytest.raises(ValueError, match="table_size is 7, but there are 8 nodes, and each needs"):
        balancer.add(Endpoint("host-8"))
    assert len(balancer.nodes) == 8


def steps(work: Callable[[], object], modules: set[str]) -> int:
    """Return how many lines of some modules are executed."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if frame.f_code.co_filename not in modules:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def look_up(strategy: Maglev[str] | ConsistentHash[str], nodes: NodeSet[str]) -> None:
    """Ask for the owners of 200 keys."""
    for number in range(200):
        strategy.owner(nodes, f"key-{number}")


@pytest.mark.slow
def test_a_table_is_built_in_less_than_thirty_lines_a_cell() -> None:
    """1,000 nodes fill 65,537 cells in two thirds of the lines that looking for each would take.

    To find the last free one of m cells takes m steps, the last but one m/2, and so on: m ln m in
    all, 11 of four lines for each cell.
    """
    nodes = NodeSet(f"10.0.{number // 250}.{number % 250}:8080" for number in range(1000))
    assert _maglev_table.__file__ is not None
    built = steps(lambda: Maglev[str]().prepare(nodes), {_maglev_table.__file__})
    assert built < 30 * 65_537


def test_a_look_up_takes_no_more_steps_than_that_of_the_ring() -> None:
    """By lines of the strategies' modules, for requests that find their owner at once."""
    assert _ring.__file__ is not None
    nodes = NodeSet(f"host-{number}" for number in range(50))
    table, ring = Maglev[str](), ConsistentHash[str]()
    counts: list[int] = []
    strategy: Maglev[str] | ConsistentHash[str]
    for strategy in (table, ring):
        strategy.prepare(nodes)
        module = sys.modules[type(strategy).__module__].__file__
        assert module is not None
        counts.append(steps(partial(look_up, strategy, nodes), {module}))
    assert counts[0] <= counts[1]


def test_picks_go_on_while_a_table_is_built() -> None:
    """Who has a plan does not wait for a writer's new table, and a member joins with its own."""
    building, finish = Event(), Event()

    class Slow:
        def __str__(self) -> str:
            building.set()
            assert finish.wait(60)
            return "slow"

    balancer = Balancer[Any](["a", "b", "c"], Maglev(101))
    before = [balancer.pick(hash_key=str(key)) for key in range(50)]
    writer = Thread(target=balancer.add, args=(Slow(),), daemon=True)
    writer.start()
    try:
        assert building.wait(60)
        assert [balancer.pick(hash_key=str(key)) for key in range(50)] == before
        assert len(balancer.nodes) == 3
    finally:
        finish.set()
        writer.join(60)
    assert len(balancer.nodes) == 4
    assert {str(balancer.pick(hash_key=str(key))) for key in range(50)} == {"a", "b", "c", "slow"}
