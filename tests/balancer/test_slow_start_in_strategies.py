"""Slow start in the strategies: published shares, turns and keys that stay, what it costs."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from types import CodeType, FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.balancer.test_slow_start import down, factors, make, slow
from tests.compiled import COMPILED

from loadwise import (
    Balancer,
    ConsistentHash,
    Endpoint,
    InFlight,
    LeastLoad,
    MostAvailable,
    NodeSet,
    PeakEwma,
    PowerOfTwoChoices,
    Random,
    RoundRobin,
    SlowStart,
    Strategy,
    Tiers,
    WeightedRandom,
    WeightedRoundRobin,
    Zones,
)
from loadwise._membership import Membership, WarmUp
from loadwise.strategies._ring import Ring
from loadwise.strategies._turns import Turns
from loadwise.strategies._weight_table import WeightTable
from loadwise.strategies.weighted_random import alias_table
from loadwise.testing import ManualClock

BY_WEIGHT: dict[str, Callable[[], Strategy[Any]]] = {
    "WeightedRoundRobin": WeightedRoundRobin,
    "WeightedRandom": lambda: WeightedRandom(rng=random.Random(1)),
    "PowerOfTwoChoices": lambda: PowerOfTwoChoices(load=InFlight(), rng=random.Random(2)),
    "LeastLoad": lambda: LeastLoad(load=InFlight(), rng=random.Random(3)),
    "ConsistentHash": lambda: ConsistentHash(virtual_nodes=20_000),
    "Tiers": lambda: Tiers(lambda: PowerOfTwoChoices[Any](load=InFlight(), rng=random.Random(4))),
}


class Budgeted(Endpoint):
    """A node with a budget."""

    __slots__ = ()

    def remaining(self) -> float:
        return 1.0


def share(balancer: Balancer[Any], node: str, picks: int = 6_000) -> float:
    """Return the share of picks that a node is given."""
    found = Counter(balancer.pick(hash_key=f"key-{number}").id for number in range(picks))
    return found[node] / picks


@pytest.mark.parametrize(
    ("aggression", "seconds", "weight", "one_in"),
    [(1.0, 0.0, 0.1, 11), (1.0, 12.0, 0.2, 6), (1.0, 20.0, 1 / 3, 4), (2.0, 6.0, 0.316, 4.16)],
)
@pytest.mark.parametrize("name", BY_WEIGHT)
def test_published_shares(
    name: str, aggression: float, seconds: float, weight: float, one_in: float
) -> None:
    """Weights and shares are those of Envoy's slow start, in each strategy that honours weights.

    Source: round_robin and least_request tests of slow start in Envoy's load_balancer_impl_test.cc.
    Of 6,000 draws a share of 1 in 4 lies within 0.025 but once in 100,000 runs; seeds are fixed.
    """
    balancer, clock = make(BY_WEIGHT[name](), rule=SlowStart(aggression=aggression))
    balancer.add(Endpoint("b"))
    balancer.pick(hash_key="any")
    clock.advance(seconds)
    factor = factors(balancer)["b"]
    assert factor is not None
    assert abs(factor - weight) < 0.001
    allowed = 1 / 6_000 if name == "WeightedRoundRobin" else 0.025
    assert abs(share(balancer, "b") - weight / (1 + weight)) <= allowed + 0.0005
    assert abs(weight / (1 + weight) - 1 / one_in) < 0.001
    clock.advance(60.0)
    assert abs(share(balancer, "b") - 0.5) < 0.03
    assert factors(balancer) == {"a": None, "b": None}


@pytest.mark.parametrize("name", BY_WEIGHT)
def test_shares_are_those_of_weight_times_factor(name: str) -> None:
    """Own weights count, too: of weights 3, 2 at a half and 4 at a quarter the shares are 3:1:1.

    The bound is five standard deviations of 6,000 draws, and 1 % for how unevenly a ring shares.
    """
    balancer, clock = make(BY_WEIGHT[name](), nodes="")
    balancer.replace([Endpoint("old", 3)])
    clock.advance(60.0)
    balancer.add(Endpoint("b", 2))
    clock.advance(15.0)
    balancer.add(Endpoint("c", 4))
    clock.advance(15.0)
    found = [share(balancer, node) for node in ("old", "b", "c")]
    assert all(abs(part - due) < 0.04 for part, due in zip(found, (0.6, 0.2, 0.2), strict=True)), (
        found
    )


@pytest.mark.parametrize("kind", [PowerOfTwoChoices, LeastLoad])
def test_nodes_in_slow_start_are_asked_by_latency_too(kind: Any) -> None:
    """A node that answers as quickly as the others is given some requests from the first moment on.

    One request at a time, of 0.5 to 1.5 s, and costs that do not fade: by two choices a node at a
    tenth of its weight is drawn in 0.2 of 10.1 requests and wins every other, so it gets 40 of
    4,000, 20 to 80 within 3.2 standard deviations or more (p < 0.002; the seeds are fixed).
    `LeastLoad` draws nobody: there an idle node is one among equals. By either, it is asked no more
    while it has a request in flight and the others have none.
    """
    rng, clock = random.Random(5), ManualClock()
    measure = PeakEwma(tau=1e9)
    balancer = Balancer(
        [Endpoint(str(number)) for number in range(10)],
        kind(measure, rng=random.Random(6)),
        slow_start=SlowStart(window=1e9),
        clock=clock,
    )
    clock.advance(2.0)
    balancer.add(Endpoint("new"))
    for node in balancer.nodes:
        lease = balancer.acquire(exclude=[each.id for each in balancer.nodes if each is not node])
        clock.advance(1.0)
        lease.success()
    picked: Counter[Any] = Counter()
    for _ in range(4000):
        with balancer.acquire() as lease:
            picked[lease.node.id] += 1
            clock.advance(0.5 + rng.random())
    assert picked["new"] >= 20, picked
    assert picked["new"] <= 80 or kind is LeastLoad, picked
    others = [str(number) for number in range(10)]
    busy = balancer.acquire(exclude=others)
    assert {balancer.pick().id for _ in range(500)}.issubset(others)
    busy.cancel()


@pytest.mark.parametrize("make_strategy", [RoundRobin, MostAvailable, Random])
def test_strategies_without_weights_have_no_slow_start(
    make_strategy: Callable[[], Strategy[Any]],
) -> None:
    """Who goes by no weight shares as ever, within five standard deviations of a draw."""
    balancer, _ = make(make_strategy(), nodes="")
    for node in (Budgeted("a"), Budgeted("b")):
        balancer.add(node)
    assert abs(share(balancer, "b") - 0.5) < 0.035


def test_a_zone_that_is_new_begins_small() -> None:
    """Zones share by the weights that their nodes have by now: a third of a node is 1 in 4.

    Five standard deviations of 6,000 draws are 0.028.
    """
    balancer, clock = make(Zones(WeightedRoundRobin[Any], rng=random.Random(5)), nodes="")
    balancer.replace([Endpoint("a", zone="old")])
    clock.advance(60.0)
    balancer.add(Endpoint("b", zone="new"))
    clock.advance(20.0)
    assert abs(share(balancer, "b") - 0.25) < 0.028


def test_turns_of_the_others_stay_as_they_were() -> None:
    """A weighted round robin leaves out turns of the new node alone, and it catches up none."""
    nodes = [Endpoint("a", 5), Endpoint("b", 1), Endpoint("c", 2)]
    balancer, clock = make(WeightedRoundRobin(), nodes="")
    balancer.replace(nodes)
    clock.advance(60.0)
    plain: Balancer[Any] = Balancer(nodes, WeightedRoundRobin())
    for each in (balancer, plain):
        each.add(Endpoint("d", 4))
    others: list[str] = []
    taken = Counter[str]()
    for _ in range(600):
        clock.advance(0.1)
        name = balancer.pick().id
        taken[name] += 1
        if name != "d":
            others.append(name)
    expected = (name for name in iter(lambda: plain.pick().id, None) if name != "d")
    assert others == [next(expected) for _ in others]
    # Its share grows from 1/21 to 1/3 as the window passes: the mean of 4f / (8 + 4f).
    parts = [max(0.1, step / 50) for step in range(50)]
    due = 600 * sum(4 * part / (8 + 4 * part) for part in parts) / 50
    assert abs(taken["d"] - due) < 6
    clock.advance(60.0)
    cycle = Counter(balancer.pick().id for _ in range(12))
    assert cycle == {"a": 5, "b": 1, "c": 2, "d": 4}


def test_nodes_that_join_together_do_not_go_in_step() -> None:
    """Half a fleet joins at a tenth of its weight: of any 22 picks it has no more than six."""
    balancer, _ = make(WeightedRoundRobin(), nodes="abcdefghij")
    balancer.replace([Endpoint(each) for each in "abcdefghijklmnopqrst"])
    picks = [balancer.pick().id in "klmnopqrst" for _ in range(1_100)]
    assert sum(picks) == pytest.approx(100, abs=5)
    assert max(sum(picks[at : at + 22]) for at in range(1_078)) <= 6


def test_a_heavy_node_in_slow_start_does_not_cost_long_ways() -> None:
    """Where nearly all turns are to pass, others are drawn by weight: 1000 * 0.01 to 1."""
    balancer, clock = make(WeightedRoundRobin(), nodes="a", rule=SlowStart(min_weight=0.01))
    clock.advance(60.0)
    balancer.add(Endpoint("b", 1_000))
    assert abs(share(balancer, "b", 2_200) - 10 / 11) < 0.02


KEYS = [f"user-{number}" for number in range(3_000)]


def homes(balancer: Balancer[Any]) -> list[str]:
    """Return the node of each key."""
    return [balancer.pick(hash_key=key).id for key in KEYS]


def test_keys_move_to_the_new_node_and_once() -> None:
    """Over a window each key of the new node leaves its old one, once, and no other key moves."""
    balancer, clock = make(ConsistentHash(), nodes="abcdefgh")
    before = homes(balancer)
    balancer.add(Endpoint("new"))
    last = before
    for _ in range(20):
        now = homes(balancer)
        assert all(new in (old, "new") for old, new in zip(last, now, strict=True))
        last = now
        clock.advance(3.1)
    plain: Balancer[Any] = Balancer(balancer.nodes, ConsistentHash())
    assert homes(balancer) == homes(plain)
    assert last.count("new") > 200


def test_a_ring_in_slow_start_goes_with_nodes_that_are_down() -> None:
    """Falls and returns beside, while it lasts and when it ends, leave no node out of the ring."""
    balancer, clock = make(ConsistentHash(), nodes="abcdefgh", rule=SlowStart(window=5.0))
    balancer.add(Endpoint("new"))
    homes(balancer)
    down(balancer, "a")
    slowly = homes(balancer)
    assert "a" not in slowly
    assert 0 < slowly.count("new") < 100
    clock.advance(5.0)
    plain: Balancer[Any] = Balancer(balancer.nodes, ConsistentHash())
    down(plain, "a")
    assert homes(balancer) == homes(plain)


def test_a_ring_is_that_of_full_weights_whoever_asks_first() -> None:
    """A ring that is made for nodes in slow start, as after a fork, serves them later, too."""
    nodes = NodeSet([Endpoint(each, 1 + number) for number, each in enumerate("abcd")])
    ring, plain = ConsistentHash[Endpoint](40), ConsistentHash[Endpoint](40)
    ring.owner(nodes.warming(WarmUp(nodes.membership, {0: 0.1, 2: 0.1})), "any")
    assert [ring.owner(nodes, key) for key in KEYS] == [plain.owner(nodes, key) for key in KEYS]


def test_keys_stay_where_all_are_in_slow_start() -> None:
    """Weights are relative: where all nodes begin at once, no key moves because of it."""
    balancer, _ = make(ConsistentHash(), nodes="")
    nodes = [Endpoint(each) for each in "abcde"]
    balancer.replace(nodes)
    plain: Balancer[Any] = Balancer(nodes, ConsistentHash())
    assert slow(balancer) == set("abcde")
    assert homes(balancer) == homes(plain)


@pytest.mark.parametrize("virtual_nodes", [1, 160])
def test_a_key_whose_node_is_excluded_finds_another(virtual_nodes: int) -> None:
    """Where all but nodes in slow start are excluded they are chosen, few points or many."""
    balancer, _ = make(ConsistentHash(virtual_nodes), rule=SlowStart(min_weight=1e-9))
    balancer.replace([Endpoint("a"), Endpoint("b"), Endpoint("c")])
    found = {balancer.pick(hash_key=key, exclude={"a"}).id for key in KEYS}
    assert found == {"b", "c"}
    assert {balancer.pick(hash_key=key).id for key in KEYS[:200]} == {"a"}


@given(
    seed=st.integers(0, 2**32),
    name=st.sampled_from(sorted(BY_WEIGHT)),
    exclude=st.sets(st.sampled_from("abcde"), max_size=3),
    waits=st.lists(st.floats(0.0, 30.0), min_size=1, max_size=6),
)
def test_explain_foretells_the_pick(
    seed: int, name: str, exclude: set[str], waits: list[float]
) -> None:
    """What ``explain`` says comes true, and is said without a trace."""
    strategies: dict[str, Strategy[Any]] = {
        "WeightedRoundRobin": WeightedRoundRobin(),
        "WeightedRandom": WeightedRandom(rng=random.Random(seed)),
        "PowerOfTwoChoices": PowerOfTwoChoices(load=InFlight(), rng=random.Random(seed)),
        "LeastLoad": LeastLoad(load=InFlight(), rng=random.Random(seed)),
        "ConsistentHash": ConsistentHash(4),
        "Tiers": Tiers(WeightedRoundRobin[Any]),
    }
    balancer, clock = make(strategies[name], nodes="abc")
    balancer.add(Endpoint("d", 3))
    for number, seconds in enumerate(waits):
        clock.advance(seconds)
        if number == 1:
            balancer.add(Endpoint("e"))
        for _ in range(3):
            told = balancer.explain(hash_key=f"{seed}", exclude=exclude).choice
            assert balancer.pick(hash_key=f"{seed}", exclude=exclude).id == told


def counted(work: Callable[[], object]) -> Counter[CodeType]:
    """Return how often each Python function is called by ``work``."""
    found = Counter[CodeType]()

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            found[frame.f_code] += 1

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(before)
    return found


def traffic(balancer: Balancer[Any], clock: ManualClock, requests: int) -> None:
    """Send requests, of which every twelfth finds the weights due to be refreshed."""
    for number in range(requests):
        balancer.acquire(hash_key=f"{number}").success()
        if number % 12 == 0:
            clock.advance(1.21)


@pytest.mark.skipif(COMPILED, reason="compiled code calls without a trace")
@pytest.mark.parametrize("name", BY_WEIGHT)
def test_picks_grow_with_no_fleet_and_rebuild_nothing(name: str) -> None:
    """With one node in slow start, 600 picks over a window call as much for 2,000 nodes as for 10.

    They are within 1.5, refreshes included. No ring, turns, table or membership is built anew.
    (`LeastLoad` reads the load of each node, by one call in C.)
    """
    calls: list[int] = []
    makers: list[Any] = [Ring.__init__, Turns.__init__, Membership[Any].__init__, alias_table]
    for size in (10, 2_000):
        strategy: Strategy[Any] = BY_WEIGHT[name]()
        if name == "ConsistentHash":
            strategy = ConsistentHash(8)
        balancer, clock = make(strategy, nodes="")
        balancer.replace([Endpoint(number, 1 + number % 2) for number in range(size)])
        clock.advance(60.0)
        balancer.add(Endpoint("new"))
        clock.advance(1.0)
        balancer.pick(hash_key="any")

        found = counted(partial(traffic, balancer, clock, 60 if name == "LeastLoad" else 600))
        assert [found[each.__code__] for each in makers] == [0, 0, 0, 0]
        if size > 10:
            assert found[WeightTable.__init__.__code__] == 0
        calls.append(sum(found.values()))
    if name != "LeastLoad":
        assert calls[1] <= 1.5 * calls[0]


WEIGHTS = st.one_of(
    st.integers(0, 9), st.integers(10**300, 10**308), st.floats(0.0, 10.0), st.just(5e-324)
)


@given(
    weights=st.lists(WEIGHTS, min_size=1, max_size=8),
    steps=st.lists(st.dictionaries(st.integers(0, 7), st.floats(1e-300, 1.0)), max_size=5),
)
def test_tables_that_are_made_from_others_say_the_same(
    weights: list[float], steps: list[dict[int, float]]
) -> None:
    """A table for other weights, made from the one before, has the shares of one made anew."""
    nodes = NodeSet([Endpoint(number, weight) for number, weight in enumerate(weights)])
    membership = nodes.membership
    if not membership.eligible:
        return
    table = WeightTable(nodes.weights, membership.eligible)
    for step in [*steps, {}]:
        mine = {index: factor for index, factor in step.items() if index < len(weights)}
        view = nodes.warming(WarmUp(membership, mine)) if mine else nodes
        assert [bool(weight) for weight in view.weights] == [bool(weight) for weight in weights]
        assert view.tally == Counter(view.weights[i] for i in membership.eligible)
        table = table.reweighted(view)
        fresh = WeightTable(view.weights, membership.eligible, view.warm_up)
        scale = fresh.sums[-1] / table.sums[-1]
        assert table.parts == pytest.approx([part / scale for part in fresh.parts], abs=1e-12)
        assert table.sums == pytest.approx([each / scale for each in fresh.sums])
    assert table.warm_up is None
