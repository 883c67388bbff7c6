"""Tiers: shares by priority as Envoy has them, who is counted, and who is asked in the end.

What all strategies that choose a group first have in common is tested in test_grouped.py.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.balancer.panicking import kill, picked, sicken, tracker_of
from tests.compiled import COMPILED, wrong_type
from tests.strategies.support import SIGNIFICANCE, chi_square_tail, picks, shares

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    Endpoint,
    HealthStatus,
    HealthTracker,
    InFlight,
    LeastLoad,
    NodeSet,
    RoundRobin,
    SelectionContext,
    Tiers,
    by_priority,
    by_tag,
)
from loadwise.testing import ManualClock, ScriptedRandom

Levels = tuple[tuple[int, int], ...]


def levels(*sizes: tuple[int, int]) -> NodeSet[Endpoint]:
    """Return tiers by the number of their nodes that are available, and that of all."""
    nodes: list[Endpoint] = []
    down: list[int] = []
    for priority, (available, size) in enumerate(sizes):
        for number in range(size):
            if number >= available:
                down.append(len(nodes))
            nodes.append(Endpoint(f"{priority}-{number}", priority=priority))
    return NodeSet(nodes).without(down)


def fleet(*sizes: int, **options: Any) -> tuple[Balancer[Endpoint], Tiers[Endpoint]]:
    """Return a balancer of tiers of these sizes, and its strategy; node 1 of tier 0 is "0-1"."""
    tiers: Tiers[Endpoint] = Tiers(rng=random.Random(5))
    nodes = [
        Endpoint(f"{priority}-{number}", priority=priority)
        for priority, size in enumerate(sizes)
        for number in range(size)
    ]
    return Balancer(nodes, tiers, clock=ManualClock(), **options), tiers


def now(balancer: Balancer[Endpoint], tiers: Tiers[Endpoint]) -> list[float]:
    """Return the shares of the tiers, as the balancer's next request finds them."""
    return list(tiers.shares(balancer._fleet.refreshed().nodes).values())


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [
        (((1, 1), (1, 1)), [100, 0]),
        (((1, 2), (1, 2)), [70, 30]),
        (((1, 4), (2, 2)), [35, 65]),
        (((2, 4), (2, 4)), [70, 30]),
        (((1, 4), (1, 4)), [50, 50]),
        (((1, 1), (1, 1), (1, 1)), [100, 0, 0]),
        (((1, 2), (1, 2), (1, 2)), [70, 30, 0]),
        (((1, 4), (2, 2), (1, 2)), [35, 65, 0]),
        (((1, 4), (1, 4), (1, 4)), [35, 35, 30]),
        (((1, 5), (1, 5), (1, 5)), [34, 33, 33]),
        (((0, 5), (0, 5), (5, 5)), [0, 0, 100]),
        (((0, 5), (0, 5), (4, 5)), [0, 0, 100]),
        # All down: by the number of nodes, and the first has what rounding leaves.
        (((0, 5), (0, 3), (0, 2)), [50, 30, 20]),
        (((0, 3), (0, 3), (0, 3)), [34, 33, 33]),
    ],
)
def test_shares_of_envoy(sizes: Levels, wanted: list[int]) -> None:
    """Shares are those of load_balancer_impl_base_test.cc, GentleFailover and with extra levels."""
    assert Tiers[Endpoint]().shares(levels(*sizes)) == dict(enumerate(wanted))


def test_shares_without_overprovisioning() -> None:
    """With a factor of 1 half a tier bears half, as in Envoy's OverProvisioningFactor."""
    assert Tiers[Endpoint](overprovisioning=1.0).shares(levels((2, 4), (2, 4))) == {0: 50, 1: 50}
    assert Tiers[Endpoint](overprovisioning=1).shares(levels((3, 4), (2, 2))) == {0: 75, 1: 25}
    assert Tiers[Endpoint](overprovisioning=1.1).shares(levels((1, 2), (1, 1))) == {0: 55, 1: 45}


def test_a_tier_with_a_node_left_bears_something() -> None:
    """One of 200 bears 0.7 %, which Envoy rounds to nothing; here it counts as 1."""
    assert Tiers[Endpoint]().shares(levels((1, 200), (1, 1))) == {0: 1, 1: 99}
    assert Tiers[Endpoint]().shares(levels((1, 200), (0, 1))) == {0: 100, 1: 0}


def test_drained_nodes_are_no_members() -> None:
    """Weight 0 means drained: half a tier drained and half of it up is a tier that is up."""
    nodes = [Endpoint(f"n{i}", weight=i % 2, priority=i // 4) for i in range(8)]
    assert Tiers[Endpoint]().shares(nodes) == {0: 100, 1: 0}
    assert Tiers[Endpoint]().shares([]) == {}
    all_drained = [Endpoint("a", weight=0), Endpoint("b", weight=0, priority=1)]
    assert Tiers[Endpoint]().shares(all_drained) == {0: 100, 1: 0}
    assert Tiers[Endpoint]().select(all_drained) is None


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=6),
    st.floats(1.0, 1e9),
)
def test_shares_are_whole_and_sum_to_100(pairs: list[tuple[int, int]], factor: float) -> None:
    """Whatever is down, the shares of the tiers that exist are ints, none below 0, 100 in all.

    A tier without an available node has none, unless that holds for all.
    """
    sizes = tuple((min(pair), max(pair)) for pair in pairs)
    found = Tiers[Endpoint](overprovisioning=factor).shares(levels(*sizes))
    existing = {priority for priority, (_, size) in enumerate(sizes) if size}
    assert found.keys() == existing
    assert all(type(share) is int and share >= 0 for share in found.values())
    assert sum(found.values()) == (100 if existing else 0)
    if any(available for available, _ in sizes):
        assert all(share == 0 for priority, share in found.items() if not sizes[priority][0])


def test_picks_follow_the_shares() -> None:
    """Of 100,000 picks each tier has its share, by Pearson's test at an error of 1e-4."""
    nodes = levels((1, 4), (1, 4), (1, 4))
    tiers: Tiers[Endpoint] = Tiers(rng=random.Random(1))
    counts = Counter(nodes[i].priority for i in picks(tiers, nodes, 100_000) if i is not None)
    assert chi_square_tail([counts[0], counts[1], counts[2]], [35, 35, 30]) > SIGNIFICANCE


def test_a_draw_decides_among_the_tiers() -> None:
    """A draw below the first tier's share means the first; where one has all, none is made."""
    nodes = levels((1, 2), (1, 2), (1, 2))
    tiers: Tiers[Endpoint] = Tiers(RoundRobin, rng=ScriptedRandom([0.0, 0.69, 0.71, 0.999, 0.5]))
    assert picks(tiers, nodes, 4) == [0, 0, 2, 2]
    assert picks(tiers, nodes, 1, exclude={0, 2}) == [4]
    assert picks(Tiers(RoundRobin, rng=ScriptedRandom([])), levels((2, 2), (1, 1)), 2) == [0, 1]


def test_health_moves_shares_and_nothing_else_does() -> None:
    """Only UNHEALTHY nodes are not available: not those on cooldown, excluded or filtered out."""
    balancer, tiers = fleet(4, 2, max_in_flight=1)
    assert now(balancer, tiers) == [100, 0]
    for name in ("0-0", "0-1", "0-2"):
        balancer._quota_source.mark_exhausted(name, 5.0)
    view = balancer._fleet.refreshed().nodes
    assert now(balancer, tiers) == [100, 0]
    assert list(tiers.shares(by_priority(1).view(view)).values()) == [100, 0]
    assert list(tiers.shares(view.restrict([4])).values()) == [100, 0]
    with balancer.acquire() as lease:
        assert lease.node.id == "0-3"
        assert now(balancer, tiers) == [100, 0]
    kill(balancer, "0-0")
    assert now(balancer, tiers) == [100, 0]
    kill(balancer, "0-1")
    assert now(balancer, tiers) == [70, 30]


def test_what_the_balancer_filters_out_or_drains_is_no_member() -> None:
    """One of two that are left after a drain and a filter is half of the tier."""
    tiers: Tiers[Endpoint] = Tiers()
    nodes = [Endpoint(f"n{i}", priority=i // 4, tags={"v": str(i % 4)}) for i in range(8)]
    balancer = Balancer(nodes, tiers, where=~by_tag(v="3"), clock=ManualClock())
    balancer.drain("n2")
    kill(balancer, "n0")
    assert now(balancer, tiers) == [70, 30]
    kill(balancer, "n2")
    assert now(balancer, tiers) == [70, 30], "drained, it is no member"
    balancer.resume("n2")
    assert now(balancer, tiers) == [46, 54]


def test_who_finds_nobody_in_its_tier_goes_on_to_the_next_in_order() -> None:
    """Full, on cooldown or excluded: a request is refused only when no node is left at all."""
    balancer, _ = fleet(2, 2, 1, max_in_flight=1)
    first = [balancer.acquire() for _ in range(2)]
    assert {lease.node.priority for lease in first} == {0}
    second = balancer.acquire()
    assert second.node.priority == 1
    assert picked(balancer, exclude=["1-0", "1-1"]) == {"2-0"}
    balancer._quota_source.mark_exhausted(f"1-{1 - int(str(second.node.id)[-1])}", 5.0)
    assert picked(balancer) == {"2-0"}
    for lease in first:
        lease.success()
    assert {name[0] for name in picked(balancer)} == {"0"}
    assert picked(balancer, where=by_priority(2)) == {"2-0"}
    second.success()


def test_ailing_nodes_are_asked_last_while_the_tiers_bear_all() -> None:
    """In panic a tier of which all are available bears all that the first one does not."""
    balancer, tiers = fleet(5, 2)
    sicken(balancer, "0-0", "0-1", "0-2")
    kill(balancer, "0-3")
    assert balancer.panic is not None
    assert balancer.panic.ailing == 3
    assert now(balancer, tiers) == [28, 72]
    assert picked(balancer) == {"0-4", "1-0", "1-1"}
    assert picked(balancer, exclude=["0-4", "1-0", "1-1"]) == {"0-0", "0-1", "0-2"}


def test_ailing_nodes_are_on_a_par_where_the_tiers_do_not_bear_all() -> None:
    """28 and 42 per cent are below 100: shares are scaled up, the ailing of each tier serve."""
    balancer, tiers = fleet(5, 10)
    sicken(balancer, "0-0", "0-1", *[f"1-{i}" for i in range(6)])
    kill(balancer, "0-2", "0-3", "1-6")
    assert balancer.panic is not None
    assert now(balancer, tiers) == [40, 60]
    ill = {"0-0", "0-1", *[f"1-{i}" for i in range(6)]}
    assert picked(balancer, 2000) == {"0-4", "1-7", "1-8", "1-9"} | ill


def test_all_tiers_ailing() -> None:
    """Where nobody is available the ailing are counted on, the lowest priority first."""
    balancer, tiers = fleet(2, 3)
    sicken(balancer, "0-0", "0-1", "1-0", "1-1", "1-2")
    assert balancer.panic is not None
    assert (balancer.panic.available, balancer.panic.ailing) == (0, 5)
    assert now(balancer, tiers) == [100, 0]
    assert picked(balancer) == {"0-0", "0-1"}
    assert picked(balancer, exclude=["0-0", "0-1"]) == {"1-0", "1-1", "1-2"}


def test_conditions_of_one_request_move_no_share_in_panic_either() -> None:
    """Whom a request filters out or excludes still counts as ailing."""
    balancer, tiers = fleet(2, 2)
    sicken(balancer, "0-0", "0-1", "1-0", "1-1")
    view = balancer._fleet.refreshed().nodes
    for seen in (view, view.restrict([2, 3]), view.without([0, 1]), view.well):
        assert tiers.shares(seen) == {0: 100, 1: 0}
    assert picked(balancer, where=by_priority(1)) == {"1-0", "1-1"}


def test_marks_of_ailing_nodes_without_a_balancer() -> None:
    """Who is marked is not available; it is asked last, or on a par below 100 per cent."""
    nodes = levels((4, 4), (2, 2))
    tiers: Tiers[Endpoint] = Tiers(rng=random.Random(3))
    assert tiers.shares(nodes.marked([0, 1])) == {0: 70, 1: 30}
    assert set(picks(tiers, nodes.marked([0, 1]), 200)) == {2, 3, 4, 5}
    assert set(picks(tiers, nodes.marked([0, 1, 2, 4, 5]), 200)) == {0, 1, 2, 3}
    assert tiers.shares(nodes.marked(range(6))) == {0: 100, 1: 0}


def test_one_tier_dead_and_one_ailing() -> None:
    """The dead are left alone while there are ailing ones, in whatever tier those are."""
    balancer, tiers = fleet(2, 3)
    sicken(balancer, "1-0", "1-1", "1-2")
    kill(balancer, "0-0", "0-1")
    assert now(balancer, tiers) == [0, 100]
    assert picked(balancer) == {"1-0", "1-1", "1-2"}


def test_all_dead_is_the_last_resort_for_all_alike() -> None:
    """By the number of members, as in Envoy's total panic."""
    balancer, tiers = fleet(3, 2)
    kill(balancer, "0-0", "0-1", "0-2", "1-0", "1-1")
    assert balancer.panic is not None
    assert balancer.panic.last_resort
    assert now(balancer, tiers) == [60, 40]
    assert picked(balancer) == {"0-0", "0-1", "0-2", "1-0", "1-1"}


def test_without_panic_nothing_is_left() -> None:
    """With ``panic_threshold=None`` a fleet that is down refuses, and is probed in order."""
    balancer, _ = fleet(1, 1, panic_threshold=None)
    kill(balancer, "0-0", "1-0")
    assert balancer.explain().choice is None
    clock = tracker_of(balancer).clock
    assert isinstance(clock, ManualClock)
    clock.advance(60.0)
    with balancer.acquire() as one, balancer.acquire() as other:
        assert {one.node.id, other.node.id} == {"0-0", "1-0"}


def test_a_tier_that_is_down_is_probed_by_requests() -> None:
    """Its share is 0, and yet the node due gets its one probe at once, and then all of its share.

    Else nobody would find out that it is back.
    """
    clock = ManualClock()
    policy = ConsecutiveFailurePolicy(recovery_successes=1, probe_interval=10.0)
    tiers: Tiers[Endpoint] = Tiers(rng=random.Random(2))
    nodes = [Endpoint("main"), Endpoint("spare", priority=1)]
    balancer = Balancer(nodes, tiers, health=HealthTracker(policy, clock=clock), clock=clock)
    kill(balancer, "main")
    assert picked(balancer) == {"spare"}
    clock.advance(10.0)
    probe = balancer.acquire()
    assert probe.node.id == "main"
    assert picked(balancer) == {"spare"}, "one probe at a time"
    probe.success()
    assert picked(balancer) == {"main"}


def test_a_spare_tier_is_not_probed_while_it_is_not_needed() -> None:
    """A dead node of the second tier costs no request while the first bears all."""
    balancer, _ = fleet(2, 1)
    kill(balancer, "1-0")
    clock = tracker_of(balancer).clock
    assert isinstance(clock, ManualClock)
    clock.advance(60.0)
    assert picked(balancer) == {"0-0", "0-1"}
    kill(balancer, "0-0")
    with balancer.acquire() as probe:
        assert probe.node.id == "1-0", "now the first bears 70 per cent"
        assert tracker_of(balancer).status("1-0") is HealthStatus.UNHEALTHY


def test_outside_of_a_balancer_who_may_not_be_chosen_is_down() -> None:
    """So shares can be looked at for any view of a NodeSet."""
    nodes = levels((4, 4), (2, 2))
    assert Tiers[Endpoint]().shares(nodes.without([0, 1])) == {0: 70, 1: 30}
    assert Tiers[Endpoint]().shares(nodes.restrict([0, 1, 4])) == {0: 70, 1: 30}
    assert Tiers[Endpoint]().shares(list(nodes)) == {0: 100, 1: 0}
    assert list(
        Tiers[Endpoint]().shares([Endpoint("a", priority=7), Endpoint("b", priority=-1)])
    ) == [-1, 7]


def test_explain_tells_the_share_of_each_nodes_tier() -> None:
    """Beside what the strategy of the tier goes by."""
    balancer, _ = fleet(2, 1)
    kill(balancer, "0-0")
    told = balancer.explain()
    assert told.seen == {"0-1": {"share": 70, "load": 0}, "1-0": {"share": 30, "load": 0}}
    assert told.foreseeable


def test_the_default_strategy_goes_by_the_nodes_own_load_where_they_have_one() -> None:
    """Without one it counts requests in flight, as a balancer's own default does."""

    class Loaded(Endpoint):
        def load_score(self) -> float:
            return float(str(self.id)[-1])

    loaded = [Loaded(f"n{i}") for i in range(2)]
    assert shares(picks(Tiers(), loaded, 50), 2) == [50, 0]
    balancer, _ = fleet(2, 1)
    with balancer.acquire() as one, balancer.acquire() as other:
        assert {one.node.id, other.node.id} == {"0-0", "0-1"}


def test_priorities_that_are_none() -> None:
    """A node without a priority, or with one that is no int, is an error that says whose."""
    with pytest.raises(TypeError, match=r"Tiers needs `priority` of every node, but node 'b' has"):
        Balancer(["b"], Tiers())
    with pytest.raises(TypeError, match=r"the priority of node 'b' is 'x'; it must be an int"):
        Balancer([Endpoint("b", priority="x")], Tiers())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Tiers needs `priority`"):
        Tiers[str]().select(["b"])


@pytest.mark.parametrize("factor", [0.99, 0, -1, math.nan, math.inf])
def test_overprovisioning_out_of_range(factor: float) -> None:
    """A node that bears less than its share makes no sense, nor do NaN and infinity."""
    with pytest.raises(ValueError, match=r"overprovisioning is .*; it must be a finite number, at"):
        Tiers(overprovisioning=factor)


def test_overprovisioning_that_is_no_number() -> None:
    """Nor is a bool one, which compiled code takes for the number that it stands for."""
    message = wrong_type("overprovisioning is .*; it must be a number")
    for wrong in ("1.4", None) if COMPILED else (True, "1.4", None):
        with pytest.raises(TypeError, match=message):
            Tiers(overprovisioning=wrong)  # type: ignore[arg-type]  # the point of the test


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    out=st.sets(st.integers(0, 15)),
    exclude=st.frozensets(st.integers(0, 15)),
    seed=st.integers(0, 99),
)
def test_never_refuses_while_a_candidate_exists(
    sizes: list[int], out: set[int], exclude: frozenset[int], seed: int
) -> None:
    """Whoever is ruled out or excluded is not chosen, anyone else is, and `peek` foretells whom."""
    nodes = levels(*[(size, size) for size in sizes])
    view = nodes.without(i for i in out if i < len(nodes))
    exclude = frozenset(i for i in exclude if i < len(nodes))
    tiers: Tiers[Endpoint] = Tiers(
        lambda: LeastLoad(InFlight(), random.Random(seed)), rng=random.Random(seed)
    )
    context = SelectionContext(exclude=exclude)
    left = set(view.eligible) - exclude
    for _ in range(5):
        told = tiers.peek(view, context)
        index = tiers.select(view, context)
        assert index == told
        assert index in left if left else index is None
