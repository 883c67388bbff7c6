"""Zones: the local one as far as it is up, the others in proportion, or all by weight."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.balancer.panicking import kill, picked, sicken, tracker_of
from tests.strategies.support import SIGNIFICANCE, chi_square_tail, picks

from loadwise import (
    Balancer,
    Endpoint,
    Filtered,
    NodeSet,
    RoundRobin,
    Strategy,
    Tiers,
    WeightedRandom,
    Zones,
    by_zone,
)
from loadwise.testing import ManualClock


def zoned(**sizes: tuple[int, int]) -> NodeSet[Endpoint]:
    """Return zones by the number of their nodes that are available, and that of all."""
    nodes: list[Endpoint] = []
    down: list[int] = []
    for zone, (available, size) in sizes.items():
        for number in range(size):
            if number >= available:
                down.append(len(nodes))
            nodes.append(Endpoint(f"{zone}-{number}", zone=zone))
    return NodeSet(nodes).without(down)


def fleet(zones: Zones[Endpoint], **sizes: int) -> Balancer[Endpoint]:
    """Return a balancer of zones of these sizes; the first node of zone a is "a-0"."""
    return Balancer(zoned(**{k: (n, n) for k, n in sizes.items()}), zones, clock=ManualClock())


@pytest.mark.parametrize(
    ("available", "wanted"),
    [(5, (33, 67)), (4, (33, 67)), (3, (29, 71)), (2, (22, 78)), (1, (12, 88)), (0, (0, 100))],
)
def test_locality_weights_of_envoy(available: int, wanted: tuple[int, int]) -> None:
    """Of 100 picks each zone has as many as in locality_wrr_test.cc, UnhealthyFailover.

    There they are laid out in turn; here they are the shares, to within one.
    """
    zones: Zones[Endpoint] = Zones(weights={"a": 1, "b": 2}, rng=random.Random(3))
    found = zones.shares(zoned(a=(available, 5), b=(1, 1)))
    assert [found["a"], found["b"]] == pytest.approx(wanted, abs=1)


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 0, 1), (1, 6, 3)])
def test_weights_of_zones_that_are_up(weights: tuple[int, int, int]) -> None:
    """As in locality_wrr_test.cc: unweighted, a missing weight (there 0), and 10, 60 and 30 %."""
    zones: Zones[Endpoint] = Zones(weights=dict(zip("abc", weights, strict=True)))
    found = zones.shares(zoned(a=(1, 1), b=(1, 1), c=(1, 1)))
    assert list(found.values()) == pytest.approx([100 * each / sum(weights) for each in weights])


def test_a_zone_without_a_weight_has_one() -> None:
    """``weights={"a": 2}`` gives zone a twice what any other zone has."""
    found = Zones[Endpoint](weights={"a": 2}).shares(zoned(a=(1, 1), b=(5, 5), c=(9, 9)))
    assert found == {"a": 50.0, "b": 25.0, "c": 25.0}


@pytest.mark.parametrize(
    ("sizes", "factor", "wanted"),
    [
        ({"a": (4, 4), "b": (2, 2), "c": (6, 6)}, 1.4, [100, 0, 0]),
        ({"a": (3, 4), "b": (2, 2), "c": (6, 6)}, 1.4, [100, 0, 0]),
        ({"a": (2, 4), "b": (2, 2), "c": (6, 6)}, 1.4, [70, 7.5, 22.5]),
        ({"a": (2, 4), "b": (2, 2), "c": (1, 6)}, 1.4, [70, 20, 10]),
        ({"a": (2, 4), "b": (2, 2), "c": (6, 6)}, 1.0, [50, 12.5, 37.5]),
        ({"a": (0, 4), "b": (2, 2), "c": (6, 6)}, 1.4, [0, 25, 75]),
        ({"a": (1, 4), "b": (0, 2), "c": (0, 6)}, 1.4, [100, 0, 0]),
        ({"a": (0, 4), "b": (0, 2), "c": (0, 6)}, 1.4, [100, 0, 0]),
        ({"b": (2, 2), "c": (6, 6)}, 1.4, [25, 75]),
    ],
)
def test_the_local_zone_comes_first(
    sizes: dict[str, tuple[int, int]], factor: float, wanted: list[float]
) -> None:
    """It is given 1.4 * available / members, the others the rest by what is available in each."""
    found = Zones[Endpoint](local="a", overprovisioning=factor).shares(zoned(**sizes))
    assert list(found.values()) == pytest.approx(wanted)


def test_other_zones_share_by_the_weights_of_their_nodes() -> None:
    """A large node stands for several small ones, and without a preference all zones do so."""
    nodes = [Endpoint("a", zone="a"), Endpoint("b", 9, "b"), Endpoint("c", 1.0, "c")]
    assert Zones[Endpoint]().shares(nodes) == pytest.approx(
        {"a": 100 / 11, "b": 900 / 11, "c": 100 / 11}
    )
    vast = NodeSet([Endpoint("a", 1e17, "a"), Endpoint("b1", 1e17, "b"), Endpoint("b2", 1, "b")])
    assert 0 < Zones[Endpoint]().shares(vast.without([1]))["b"] < 1e-12
    down = NodeSet([*nodes, Endpoint("a2", 0, "a")]).without([0])
    assert Zones[Endpoint](local="a").shares(down) == {"a": 0.0, "b": 90.0, "c": 10.0}


def test_picks_follow_the_shares() -> None:
    """Of 100,000 picks each zone has its share, by Pearson's test at an error of 1e-4."""
    nodes = zoned(a=(2, 4), b=(2, 2), c=(1, 6))
    zones: Zones[Endpoint] = Zones(local="a", rng=random.Random(1))
    counts = Counter(nodes[i].zone for i in picks(zones, nodes, 100_000) if i is not None)
    assert chi_square_tail([counts["a"], counts["b"], counts["c"]], [70, 20, 10]) > SIGNIFICANCE


def test_what_no_zone_with_a_share_can_take_is_spread() -> None:
    """Where the local zone is on cooldown the others share by what they weigh, none is first."""
    zones: Zones[Endpoint] = Zones(RoundRobin, local="a", rng=random.Random(2))
    balancer = fleet(zones, a=1, b=1, c=3)
    balancer._quota_source.mark_exhausted("a-0", 60.0)
    counts = Counter(balancer.pick().zone for _ in range(4000))
    # Within 5 standard deviations of the binomial distribution: an error of 6e-7.
    assert abs(counts["b"] - 1000) < 5 * math.sqrt(4000 * 0.25 * 0.75)
    assert counts["b"] + counts["c"] == 4000
    assert {name[0] for name in picked(balancer, exclude=["b-0"])} == {"c"}


def test_a_local_zone_that_is_down_is_probed() -> None:
    """Its share is 0, and yet the node due for a probe is asked first; remote ones are not."""
    balancer = fleet(Zones(local="a", rng=random.Random(2)), a=1, b=2)
    kill(balancer, "a-0")
    clock = tracker_of(balancer).clock
    assert isinstance(clock, ManualClock)
    assert picked(balancer) == {"b-0", "b-1"}
    clock.advance(60.0)
    with balancer.acquire() as probe:
        assert probe.node.id == "a-0"
    other = fleet(Zones(local="b", rng=random.Random(2)), a=1, b=2)
    kill(other, "a-0")
    clock = tracker_of(other).clock
    assert isinstance(clock, ManualClock)
    clock.advance(60.0)
    assert picked(other) == {"b-0", "b-1"}


def test_ailing_nodes_are_on_a_par_in_their_zone() -> None:
    """In panic a zone with a node available sends to its ailing ones, too; the dead get nothing."""
    balancer = fleet(Zones(local="a", rng=random.Random(2)), a=3, b=2)
    sicken(balancer, "a-1", "b-0")
    kill(balancer, "a-2", "b-1")
    assert balancer.panic is not None
    assert picked(balancer) == {"a-0", "a-1"}, "nothing is available elsewhere"
    sicken(balancer, "a-0")
    assert picked(balancer, 500) == {"a-0", "a-1", "b-0"}, "now the ailing are counted on"


def test_weight_zero_is_for_emergencies() -> None:
    """Such a zone gets a request only where no other has a candidate."""
    zones: Zones[Endpoint] = Zones(weights={"a": 1, "b": 0}, rng=random.Random(2))
    balancer = fleet(zones, a=1, b=1)
    assert picked(balancer) == {"a-0"}
    assert picked(balancer, exclude=["a-0"]) == {"b-0"}
    assert zones.shares(zoned(b=(2, 2))) == {"b": 100.0}


def test_a_local_zone_that_no_node_has() -> None:
    """It is an error at construction, with what there is and the remedy."""
    with pytest.raises(
        ValueError, match=r"local is 'eu-1', but no node is in such a zone; .* are 'a', 'b': name"
    ):
        fleet(Zones(local="eu-1"), a=1, b=1)
    with pytest.raises(ValueError, match=r"weights are for 'x', but no node .* are 'a', 'b'"):
        fleet(Zones(weights={"x": 2}), a=1, b=1)
    with pytest.raises(ValueError, match=r"'q1', 'q2', 'q3', 'q4', 'q5', \.\.\.: name"):
        fleet(Zones(local="x"), **{f"q{number}": 1 for number in range(1, 9)})


def test_a_local_zone_may_come_and_go() -> None:
    """Once nodes were there, or where they come one by one, the others stand in."""
    balancer = fleet(Zones(local="a"), a=1, b=1)
    balancer.remove("a-0")
    assert picked(balancer) == {"b-0"}
    balancer.replace([Endpoint("c-0", zone="c")])
    assert picked(balancer) == {"c-0"}
    empty: Balancer[Endpoint] = Balancer([], Zones(local="a"), clock=ManualClock())
    empty.replace([Endpoint("b-0", zone="b")])
    empty.add(Endpoint("a-0", zone="a"))
    assert picked(empty) == {"a-0"}


def test_a_tier_without_nodes_in_the_local_zone() -> None:
    """Within tiers a zone need not be in each of them."""
    nodes = [Endpoint("a", zone="a"), Endpoint("b", zone="b"), Endpoint("far", 1, "z", 1)]
    makers: tuple[Callable[[], Strategy[Endpoint]], ...] = (
        lambda: Zones(local="a"),
        lambda: Filtered(Zones(local="a"), by_zone("a", "b", "z")),
    )
    for inner in makers:
        balancer = Balancer(nodes, Tiers(inner), clock=ManualClock())
        assert picked(balancer) == {"a"}
        kill(balancer, "a")
        assert picked(balancer) == {"b", "far"}


def test_nodes_without_zones() -> None:
    """A node without the attribute is an error; None is a zone as any other."""
    with pytest.raises(TypeError, match=r"Zones needs `zone` of every node, but node 'x' has none"):
        Balancer(["x"], Zones())
    with pytest.raises(TypeError, match=r"the zone of node 'x' is \[\]; it must be hashable"):
        Balancer([Endpoint("x", zone=[])], Zones())  # type: ignore[arg-type]
    assert Zones[Endpoint]().shares([Endpoint("x"), Endpoint("y", zone="b")]) == {
        None: 50.0,
        "b": 50.0,
    }


def test_bad_arguments() -> None:
    """Each is refused at construction, with the value and the remedy."""
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"local": "a", "weights": {"a": 2}}, ValueError, r"local='a' and weights=.*; give one"),
        ({"local": ["a"]}, TypeError, r"local is \['a'\]; it must be hashable"),
        ({"weights": {}}, ValueError, r"weights is \{\}, of which nobody is given anything"),
        ({"weights": {"a": 0}}, ValueError, r"weights is \{'a': 0\}, of which nobody"),
        ({"weights": {"a": -1}}, ValueError, r"weights\['a'\] is -1; it must be a finite number"),
        ({"weights": {"a": math.nan}}, ValueError, r"weights\['a'\] is nan; it must be"),
        ({"weights": {"a": math.inf}}, ValueError, r"weights\['a'\] is inf; it must be"),
        ({"weights": {"a": "2"}}, TypeError, r"weights\['a'\] is '2'; it must be a number"),
        ({"weights": ["a"]}, TypeError, r"weights is \['a'\]; give a mapping, such as"),
        ({"overprovisioning": 0.5}, ValueError, r"overprovisioning is 0.5; it must be"),
    ]
    for options, kind, match in wrong:
        with pytest.raises(kind, match=match):
            Zones(**options)


@given(
    sizes=st.dictionaries(
        st.sampled_from("abcd"), st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1
    ),
    local=st.none() | st.sampled_from("abcde"),
    weights=st.none() | st.dictionaries(st.sampled_from("abcd"), st.floats(0.0, 1e308), min_size=1),
    factor=st.floats(1.0, 10.0),
)
def test_shares_sum_to_100(
    sizes: dict[str, tuple[int, int]],
    local: str | None,
    weights: dict[str, float] | None,
    factor: float,
) -> None:
    """Whatever is down, shares are not negative and 100 in all; a zone that is down has none."""
    if weights is not None and not any(weights.values()):
        return
    nodes = zoned(**{zone: (min(pair), max(pair)) for zone, pair in sizes.items()})
    zones: Zones[Any] = Zones(
        local=None if weights else local, weights=weights, overprovisioning=factor
    )
    found = zones.shares(nodes)
    assert sum(found.values()) == pytest.approx(100.0 if nodes else 0.0)
    assert all(share >= 0 for share in found.values())
    up = {nodes[i].zone for i in nodes.eligible}
    assert not up or all(not share for zone, share in found.items() if zone not in up)


def test_unlike_weights_within_a_zone_are_heeded() -> None:
    """The strategy of a zone sees the weights of its nodes."""
    nodes = [Endpoint("a", 9, "a"), Endpoint("b", 1, "a"), Endpoint("c", 5, "c")]
    zones: Zones[Endpoint] = Zones(
        lambda: WeightedRandom(random.Random(1)), local="a", rng=random.Random(1)
    )
    counts = Counter(picks(zones, NodeSet(nodes), 10_000))
    # Within 5 standard deviations of the binomial distribution: an error of 6e-7.
    assert abs(counts[0] - 9000) < 5 * math.sqrt(10_000 * 0.9 * 0.1)
    assert counts[0] + counts[1] == 10_000
