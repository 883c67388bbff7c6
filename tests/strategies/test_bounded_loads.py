"""Bounded loads: no node beyond its bound, keys at home wherever there is room, O(1) counting."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.compiled import wrong_type

from loadwise import (
    Balancer,
    BoundedLoads,
    ConsistentHash,
    Endpoint,
    InFlight,
    JumpHash,
    Lease,
    Maglev,
    NodeSet,
    Random,
    Rendezvous,
    SelectionContext,
)

FAMILY: dict[str, Callable[[], Any]] = {
    "ring": lambda: ConsistentHash(virtual_nodes=8),
    "maglev": lambda: Maglev(table_size=251),
    "rendezvous": Rendezvous,
    "jump": JumpHash,
}
every_one = pytest.mark.parametrize("make", FAMILY.values(), ids=FAMILY)

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "ask", "end", "fail", "recover", "drain"]),
        st.integers(0, 10**6),
    ),
    min_size=30,
    max_size=90,
)


def bound(factor: float, in_flight: int, weight: float, total: float) -> int:
    """Return how much a node may hold: ceil(factor * m * share), exact to nine decimals."""
    return math.ceil(round(factor * in_flight * weight / total, 9))


@every_one
@settings(max_examples=20, deadline=None)
@given(
    steps=STEPS,
    factor=st.sampled_from([1.01, 1.25, 2.0, 5.0]),
    weights=st.lists(st.sampled_from([1, 1, 2, 0.5, 4]), min_size=1, max_size=7),
)
def test_no_node_is_given_more_than_its_bound(
    make: Callable[[], Any], steps: list[tuple[str, int]], factor: float, weights: list[float]
) -> None:
    """Whatever ends, fails and is drained: each request goes to the first in order with room.

    And there is always one, for the bounds add up to more than what is in flight.
    """
    nodes = [Endpoint(f"n-{i}", weight=weight) for i, weight in enumerate(weights)]
    inner, members = make(), NodeSet(nodes)
    balancer = Balancer(nodes, BoundedLoads(make(), factor), panic_threshold=None)
    assert balancer.health is not None
    up, leases = set(range(len(nodes))), list[Lease[Endpoint]]()
    held: Counter[object] = Counter()
    for step, number in steps:
        node = number % len(nodes)
        if step == "ask" and up:
            key = f"key-{number % 5}"
            leases.append(balancer.acquire(hash_key=key))
            total = sum(weights[i] for i in up)
            order = inner.owners(members.restrict(up), key, len(nodes))
            expected = next(
                i for i in order if held[f"n-{i}"] < bound(factor, len(leases), weights[i], total)
            )
            assert leases[-1].node.id == f"n-{expected}"
            held[leases[-1].node.id] += 1
        elif step == "end" and leases:
            lease = leases.pop(number % len(leases))
            held[lease.node.id] -= 1
            lease.cancel()
        elif step == "fail" and len(up) > 1:
            up.discard(node)
            for _ in range(3):
                balancer.health.report_failure(f"n-{node}")
        elif step == "recover":
            up.add(node)
            balancer.health.remove(f"n-{node}")
            balancer.resume(f"n-{node}")
        elif step == "drain" and len(up) > 1:
            up.discard(node)
            balancer.drain(f"n-{node}")
    for lease in leases:
        lease.cancel()


def test_a_hot_key_spills_over_and_others_stay_at_home() -> None:
    """1,000 requests of one key beside 1,000 of many: no node above 1.25 times the mean."""
    nodes = NodeSet(f"n-{i}" for i in range(10))
    strategy = BoundedLoads[str](Maglev(table_size=1009))
    balancer, draw = Balancer(nodes, strategy), random.Random(1)
    leases = [
        balancer.acquire(hash_key="hot" if number % 2 else f"key-{draw.randrange(10_000)}")
        for number in range(2000)
    ]
    held = Counter(lease.node for lease in leases)
    assert max(held.values()) <= 250
    hot = strategy.owners(nodes, "hot", 10)
    for earlier, later in zip(hot[:4], hot[4:8], strict=True):
        assert held[nodes[earlier]] >= held[nodes[later]]
    others = [balancer.acquire(hash_key=f"key-{number}") for number in range(50)]
    home = sum(
        lease.node == nodes[strategy.owner(nodes, f"key-{number}") or 0]
        for number, lease in enumerate(others)
    )
    assert home > 20
    for lease in leases + others:
        lease.cancel()


def test_exclusions_that_leave_nobody_within_its_bound_widen_it() -> None:
    """A retry is not refused because the nodes it may still use have their share already."""
    balancer = Balancer(["a", "b", "c"], BoundedLoads(ConsistentHash(), factor=1.1))
    leases = [balancer.acquire(hash_key=str(number)) for number in range(30)]
    retries = [balancer.acquire(hash_key="x", exclude={"a"}) for _ in range(10)]
    assert {lease.node for lease in retries} == {"b", "c"}
    held = [status.in_flight for status in balancer.status()]
    assert abs(held[1] - held[2]) <= 4
    for lease in leases + retries:
        lease.cancel()


def test_what_explain_tells() -> None:
    """Loads and bounds are its facts, and the choice is that of the next request."""
    balancer = Balancer([Endpoint("a", weight=3), Endpoint("b")], BoundedLoads(Rendezvous()))
    leases = [balancer.acquire(hash_key="hot") for _ in range(7)]
    explanation = balancer.explain(hash_key="hot")
    held = Counter(lease.node.id for lease in leases)
    assert explanation.seen == {
        "a": {"load": held["a"], "bound": math.ceil(1.25 * 8 * 0.75)},
        "b": {"load": held["b"], "bound": math.ceil(1.25 * 8 * 0.25)},
    }
    leases.append(balancer.acquire(hash_key="hot"))
    assert leases[-1].node.id == explanation.choice
    for lease in leases:
        lease.cancel()


def test_homes_do_not_depend_on_loads() -> None:
    """`owner` and `owners` are those of the strategy inside, however loaded nodes are."""
    nodes, inner = NodeSet(range(5)), JumpHash[int]()
    strategy = BoundedLoads[int](JumpHash(), factor=1.01)
    balancer = Balancer(nodes, strategy)
    leases = [balancer.acquire(hash_key="hot") for _ in range(20)]
    for number in range(50):
        assert strategy.owner(nodes, number) == inner.owner(nodes, number)
        assert strategy.owners(nodes, number, 3) == inner.owners(nodes, number, 3)
    for lease in leases:
        lease.cancel()


def test_without_a_balancer_nobody_is_loaded() -> None:
    """Loads read zero, and the choice is that of the strategy inside, on lists too."""
    nodes = [f"n-{i}" for i in range(6)]
    strategy, inner = BoundedLoads[str](Maglev(251)), Maglev[str](251)
    for number in range(50):
        context = SelectionContext(f"key-{number}", exclude={number % 6})
        assert strategy.select(nodes, context) == inner.select(nodes, context)
        assert strategy.peek(NodeSet(nodes), context) == inner.select(nodes, context)


@pytest.mark.parametrize(
    ("factor", "error", "message"),
    [
        (1.0, ValueError, r"factor is 1\.0; it must be finite and above 1, such as 1\.25"),
        (0.5, ValueError, "factor is 0.5"),
        (math.inf, ValueError, "factor is inf"),
        (math.nan, ValueError, "factor is nan"),
        ("2", TypeError, wrong_type("factor is '2'; it must be a number")),
    ],
)
def test_factors_that_leave_no_room_are_refused(
    factor: Any, error: type[Exception], message: str
) -> None:
    """With a factor of 1 or less, all nodes may be full."""
    with pytest.raises(error, match=message):
        BoundedLoads(ConsistentHash(), factor)


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        (
            Random(),
            "inner is Random; BoundedLoads needs a strategy with an order of nodes for a key",
        ),
        (Maglev, "inner is the class Maglev"),
        (BoundedLoads(Maglev()), "inner is BoundedLoads"),
        (None, "inner is NoneType"),
    ],
)
def test_what_has_no_order_is_refused(inner: Any, message: str) -> None:
    """Only a strategy of the hash family can say who is next."""
    with pytest.raises(TypeError, match=message):
        BoundedLoads(inner)


def test_requests_in_flight_are_counted_by_node_and_together() -> None:
    """The balancer counts once for each node and once for all, and both end at zero."""
    strategy = BoundedLoads[str](ConsistentHash())
    balancer = Balancer(["a", "b"], strategy)
    loads, everybody = strategy.measures
    assert isinstance(loads, InFlight)
    leases = [balancer.acquire(hash_key=str(number)) for number in range(5)]
    assert sum(status.in_flight for status in balancer.status()) == 5
    assert everybody.load(everybody.cell("a")) == everybody.load(everybody.cell("b")) == 5
    leases[0].success()
    leases[1].failure()
    leases.pop().rate_limited(1.0)
    for lease in leases:
        lease.cancel()
    assert everybody.load(everybody.cell("a")) == 0
    assert [status.in_flight for status in balancer.status()] == [0, 0]
