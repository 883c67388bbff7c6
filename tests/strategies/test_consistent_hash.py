"""Consistent hashing: Envoy's ring point by point, its balance, what changes of members move."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from threading import Barrier, Event, Thread
from typing import Any

import pytest
import xxhash
from tests.compiled import wrong_type
from tests.strategies.support import ReferenceRing, picks, ring_entries, shares

from loadwise import (
    Balancer,
    ConsistentHash,
    Endpoint,
    Filtered,
    HealthFilter,
    HealthTracker,
    LoadwiseError,
    MissingHashKey,
    NodeSet,
    SelectionContext,
)
from loadwise.strategies import _points

LAST = 2**64 - 1

HOSTS = NodeSet(f"127.0.0.1:{port}" for port in range(90, 96))

ENVOY_RING = [
    (94, 833437586790550860),
    (92, 928266305478181108),
    (90, 1033482794131418490),
    (95, 3551244743356806947),
    (93, 3851675632748031481),
    (91, 5583722120771150861),
    (91, 6311230543546372928),
    (93, 7700377290971790572),
    (95, 13144177310400110813),
    (92, 13444792449719432967),
    (94, 15516499411664133160),
    (90, 16117243373044804889),
]
"""Port of the owner, and point, in ring order: Envoy's ring_hash unit tests, two points a host."""

NEXT = [*ENVOY_RING[1:], ENVOY_RING[0]]


def at(strategy: ConsistentHash[str], hashed: int, nodes: Sequence[str] = HOSTS) -> object:
    """Return the node that a hash belongs to."""
    index = strategy.select(nodes, SelectionContext(hashed))
    return None if index is None else nodes[index]


def evenly(count: int) -> list[SelectionContext]:
    """Return ``count`` hashes that divide the ring into equal parts."""
    return [SelectionContext(number * (2**64 // count)) for number in range(count)]


@pytest.mark.parametrize(
    ("text", "digest"),
    [("", 0xEF46DB3751D8E999), ("a", 0xD24EC4F1A98C6E5B), ("abc", 0x44BC2CF5AD770999)],
)
def test_keys_are_hashed_with_xxh64(text: str, digest: int) -> None:
    """A str, its UTF-8 bytes and its published xxHash64 digest (seed 0) are one key.

    With 2,000 points another hash would meet the same owner by chance once in 1,000.
    """
    assert xxhash.xxh64_intdigest(text.encode()) == digest
    nodes, strategy = NodeSet(range(1000)), ConsistentHash[int](virtual_nodes=2)
    owners = {strategy.select(nodes, SelectionContext(key)) for key in (text, text.encode())}
    assert owners == {strategy.select(nodes, SelectionContext(digest))}


def test_text_is_hashed_as_utf8() -> None:
    """A key beyond ASCII is the same as its UTF-8 bytes."""
    nodes, strategy = NodeSet(range(1000)), ConsistentHash[int](virtual_nodes=2)
    text = "clé-ключ-鍵"
    assert strategy.select(nodes, SelectionContext(text)) == strategy.select(
        nodes, SelectionContext(text.encode("utf-8"))
    )


def test_the_points_are_envoys() -> None:
    """The ring holds the points of Envoy's unit tests in order, each with its owner."""
    ring = ConsistentHash[str](virtual_nodes=2)._resolve(HOSTS).state
    assert [(90 + owner, point) for point, owner in ring_entries(ring)] == ENVOY_RING


@pytest.mark.parametrize(
    ("port", "point", "after"),
    [(port, point, after) for (port, point), (after, _) in zip(ENVOY_RING, NEXT, strict=True)],
)
def test_lookups_at_and_past_each_point(port: int, point: int, after: int) -> None:
    """A hash at a point is its owner's; one past it belongs to the next (Envoy's unit tests)."""
    strategy = ConsistentHash[str](virtual_nodes=2)
    assert at(strategy, point - 1) == at(strategy, point) == f"127.0.0.1:{port}"
    assert at(strategy, point + 1) == f"127.0.0.1:{after}"


def test_the_ring_wraps() -> None:
    """Hash 0 and hash 2^64 - 1 both belong to the lowest point's owner (Envoy's unit tests)."""
    strategy = ConsistentHash[str](virtual_nodes=2)
    assert at(strategy, 0) == at(strategy, LAST) == "127.0.0.1:94"


def test_ineligible_and_excluded_nodes_are_walked_past() -> None:
    """Without :94 its keys go to the next along the ring, wrapping included, as listed above."""
    strategy = ConsistentHash[str](virtual_nodes=2)
    view = HOSTS.without([4])
    assert at(strategy, 0, view) == at(strategy, LAST, view) == "127.0.0.1:92"
    assert at(strategy, 15516499411664133160, view) == "127.0.0.1:90"
    index = strategy.select(view, SelectionContext(LAST, exclude={2}))
    assert index == 0
    alone = SelectionContext(1033482794131418490, exclude=set(range(6)) - {1})
    assert strategy.select(HOSTS, alone) == 1
    assert strategy.select(view, SelectionContext(7, exclude=set(range(6)))) is None


@pytest.mark.parametrize("key", ["user-42", "ключ", b"bytes", "", 0, LAST, 1033482794131418490])
def test_the_owner_of_a_key_is_who_its_request_goes_to(key: str | bytes | int) -> None:
    """`owner` agrees with `select`: on a set, a view, a list, and where nobody is left."""
    strategy, other = ConsistentHash[str](virtual_nodes=2), ConsistentHash[str](virtual_nodes=2)
    for nodes in (HOSTS, HOSTS.without([4, 0]), list(HOSTS), HOSTS.without(range(6)), []):
        chosen = other.select(nodes, SelectionContext(key))
        assert [strategy.owner(nodes, key) for _ in range(2)] == [chosen, chosen]


def test_bad_keys_have_no_owner() -> None:
    """What is no key is refused as `select` and `SelectionContext` refuse it."""
    strategy = ConsistentHash[str]()
    absent: Any = None
    with pytest.raises(MissingHashKey, match="no hash_key"):
        strategy.owner(HOSTS, absent)
    wrong: Any = 4.2
    with pytest.raises(TypeError, match=wrong_type("hash_key is 4.2; it must be a str, bytes")):
        strategy.owner(HOSTS, wrong)
    with pytest.raises(ValueError, match=r"hash_key is -1; .* in 0\.\.2\^64-1"):
        strategy.owner(HOSTS, -1)


@pytest.mark.parametrize(("points", "expected"), [(160, 1.24), (1000, 1.08)])
def test_balance_of_the_ring(points: int, expected: float) -> None:
    """100 nodes of 160 points share with max/mean about 1.24, of 1000 points 1.08.

    Measured by 40,000 hashes evenly spaced; the mean of three families of names, to within 0.05.
    """
    hashes = evenly(40_000)
    worst = []
    for name in ("node-{}", "10.0.0.{}:8080", "h{}.example"):
        strategy = ConsistentHash[str](virtual_nodes=points)
        nodes = NodeSet(name.format(number) for number in range(100))
        counts = shares((strategy.select(nodes, hashed) for hashed in hashes), 100)
        worst.append(max(counts) / 400)
    assert fmean(worst) == pytest.approx(expected, abs=0.05)


def test_a_newcomer_takes_its_share_and_no_more() -> None:
    """One more node beside 10 takes 1/11 of the keys, and none moves between the others.

    A share of 160 points deviates by 1/sqrt(160), or 8%, of itself; four deviations are allowed.
    """
    strategy = ConsistentHash[str]()
    names = [f"node-{number}" for number in range(11)]
    before, after = NodeSet(names[:10]), NodeSet(names)
    moved = 0
    for hashed in evenly(20_000):
        old, new = strategy.select(before, hashed), strategy.select(after, hashed)
        if old != new:
            assert new == 10
            moved += 1
    assert moved / 20_000 == pytest.approx(1 / 11, rel=4 / math.sqrt(160))


def test_a_health_flap_moves_only_the_nodes_own_keys_and_rebuilds_nothing() -> None:
    """One of 1,000 nodes goes down: its keys alone move, and come back; the ring is the same."""
    strategy = ConsistentHash[str](virtual_nodes=40)
    health = HealthTracker()
    filtered = Filtered(strategy, HealthFilter.available(health))
    nodes = NodeSet(f"node-{number}" for number in range(1000))
    keys = [SelectionContext(f"user-{number}") for number in range(5000)]
    before = [filtered.select(nodes, key) for key in keys]
    ring = strategy._resolve(nodes).state
    for _ in range(3):
        health.report_failure("node-7")
    during = [filtered.select(nodes, key) for key in keys]
    assert 7 in before
    assert 7 not in during
    assert all(old == new for old, new in zip(before, during, strict=True) if old != 7)
    assert strategy._resolve(nodes.without([7])).state is ring
    health.remove("node-7")
    assert [filtered.select(nodes, key) for key in keys] == before
    assert strategy._resolve(nodes).state is ring


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return a list that all that a ring hashes is added to."""
    seen: list[bytes] = []

    def noted(digest: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        def hash_and_note(data: bytes) -> object:
            seen.append(data)
            return digest(data)

        return hash_and_note

    for name in ("xxh64_digest", "xxh64_intdigest"):
        monkeypatch.setattr(_points, name, noted(getattr(_points, name)))
    return seen


def test_a_change_hashes_the_points_of_the_nodes_that_differ(hashed: list[bytes]) -> None:
    """One of 1,000 nodes that comes, goes or gets another weight costs its own points' hashes."""
    strategy = ConsistentHash[Endpoint](virtual_nodes=160)
    nodes = [Endpoint(f"node-{number}") for number in range(1000)]

    def hashed_for(members: list[Endpoint]) -> list[str]:
        hashed.clear()
        strategy.prepare(NodeSet(members))
        return sorted(data.decode() for data in hashed)

    def points(node: str, first: int, stop: int) -> list[str]:
        return sorted(f"{node}_{point}" for point in range(first, stop))

    assert len(hashed_for(nodes)) == 160_000
    assert hashed_for([*nodes, Endpoint("new")]) == points("new", 0, 160)
    assert hashed_for(nodes[1:]) == sorted(points("new", 0, 160) + points("node-0", 0, 160))
    assert hashed_for(nodes[1:][::-1]) == []
    assert hashed_for([*nodes[1:-1], Endpoint("node-999", weight=1.25)]) == points(
        "node-999", 160, 200
    )
    assert hashed_for([*nodes[1:-1], Endpoint("node-999", weight=0.5)]) == points(
        "node-999", 80, 200
    )
    assert hashed_for(nodes) == [], "it is known"


def test_the_nearest_of_several_fleets_is_built_on(hashed: list[bytes]) -> None:
    """A strategy that several fleets share derives each one's next ring from its last."""
    strategy = ConsistentHash[str](virtual_nodes=10)
    fleets = [[f"{name}-{number}" for number in range(50)] for name in "abc"]
    for fleet in fleets:
        strategy.prepare(NodeSet(fleet))
    for fleet in fleets:
        hashed.clear()
        strategy.prepare(NodeSet(fleet[:-1]))
        assert len(hashed) == 10


def test_picks_go_on_while_a_ring_is_built() -> None:
    """Who has a plan, or another view of known nodes, does not wait for a writer's new ring."""
    building, finish = Event(), Event()

    class Slow:
        def __str__(self) -> str:
            building.set()
            assert finish.wait(60)
            return "slow"

    strategy = ConsistentHash[Any](virtual_nodes=4)
    balancer = Balancer[Any](["a", "b", "c"], strategy)
    others, context = NodeSet(["d", "e"]), SelectionContext("key")
    strategy.prepare(others)
    before = balancer.pick(hash_key="key")
    writer = Thread(target=balancer.add, args=(Slow(),), daemon=True)
    writer.start()
    try:
        assert building.wait(60)
        for _ in range(3):
            assert balancer.pick(hash_key="key") == before
            assert strategy.select(others, context) is not None
            assert strategy.select(list(others), context) == strategy.select(others, context)
            assert strategy.select(others.without([0]), context) == 1
            assert strategy.peek(others.without([1]), context) == 0
        assert balancer.health is not None
        for _ in range(3):
            balancer.health.report_failure(before)
        assert balancer.pick(hash_key="key") != before
        assert len(balancer.nodes) == 3
    finally:
        finish.set()
        writer.join(60)
    assert len(balancer.nodes) == 4


def test_one_ring_is_built_for_all_who_wait_for_it(hashed: list[bytes]) -> None:
    """Threads that ask about the same new nodes at once have one ring built between them."""
    strategy, start = ConsistentHash[str](), Barrier(4)
    nodes = [f"node-{number}" for number in range(50)]
    rings: list[object] = []

    def ask() -> None:
        start.wait(60)
        rings.append(strategy._resolve(NodeSet(nodes)).state)

    threads = [Thread(target=ask, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(rings) == 4
    assert all(ring is rings[0] for ring in rings)
    assert len(hashed) == 50 * 160


def test_what_is_gone_is_not_kept_by_the_rings_derived_from_it() -> None:
    """After many changes the owners' numbers and the names are those of the present nodes."""
    strategy = ConsistentHash[str](virtual_nodes=10)
    for first in range(200):
        nodes = NodeSet(f"node-{number}" for number in range(first, first + 20))
        ring = strategy._resolve(nodes).state
    assert sorted(ring.order) == list(range(1, 21))
    assert ring.hosts is not None
    assert list(ring.hosts) == [f"{identity}_" for identity in nodes.ids]
    assert len(ring.points) < 3 * 200


def test_ids_that_are_alike_as_text_share_points_the_first_has() -> None:
    """7 and "7" have the same points, which are those of the node that comes first."""
    strategy = ConsistentHash[Any](virtual_nodes=4)
    for nodes in ([7, "8", "7"], ["7", "8", 7], [7, "8"], ["8", "7"]):
        owners = {strategy.select(NodeSet(nodes), hashed) for hashed in evenly(200)}
        assert owners == {0, 1}
    node_set = NodeSet([7, "8", "7"])
    excluded = {
        strategy.select(node_set, SelectionContext(hashed.hash_key, exclude={0}))
        for hashed in evenly(200)
    }
    assert excluded == {1, 2}, "whoever is excluded passes them to the other"


def test_a_weight_multiplies_the_points() -> None:
    """A node has virtual_nodes * weight / median points, at least one, and none at weight 0.

    The median is the lower one, of the positive weights.
    """
    weights = [1, 3, 2, 0.5, 0.001, 0, 0.25, 1, 1]
    nodes = NodeSet(Endpoint(f"node-{i}", weight=weight) for i, weight in enumerate(weights))
    strategy = ConsistentHash[Endpoint](virtual_nodes=10)
    reference = ReferenceRing(nodes.ids, [10, 30, 20, 5, 1, 0, 2, 10, 10])
    ring = strategy._resolve(nodes).state
    assert ring_entries(ring) == reference.points
    for context in evenly(500):
        hashed = context.hash_key
        assert isinstance(hashed, int)
        assert strategy.select(nodes, context) == reference.owner(hashed, range(9))


@pytest.mark.parametrize("scale", [0.01, 0.3, 0.7, 3, 100, 1e300, 1e-300, 10**12])
def test_scaling_all_weights_moves_no_key(scale: float) -> None:
    """Weights are relative: a ring of the same proportions is the same ring."""
    weights = [1, 1, 2.5, 1, 0.35, 7, 0]

    def ring(unit: float) -> list[tuple[int, int]]:
        nodes = NodeSet(Endpoint(i, weight=weight * unit) for i, weight in enumerate(weights))
        strategy = ConsistentHash[Endpoint](virtual_nodes=7)
        return ring_entries(strategy._resolve(nodes).state)

    assert ring(scale) == ring(1)


def test_another_weight_moves_keys_to_and_from_its_node_alone() -> None:
    """One of ten equal nodes at a tenth, or ten times the weight, moves no key between the others.

    So a node that starts slowly disturbs nobody.
    """
    strategy = ConsistentHash[Endpoint]()
    nodes = [Endpoint(f"node-{i}") for i in range(10)]
    before = [strategy.select(NodeSet(nodes), hashed) for hashed in evenly(2000)]
    for weight in (0.1, 0.5, 10):
        nodes[3] = Endpoint("node-3", weight=weight)
        after = [strategy.select(NodeSet(nodes), hashed) for hashed in evenly(2000)]
        assert after != before
        assert all(
            old == new for old, new in zip(before, after, strict=True) if 3 not in (old, new)
        )


def test_nodes_without_a_weight_have_weight_one() -> None:
    """Plain ids and endpoints of weight 1 make the same ring."""
    ids = [f"node-{number}" for number in range(20)]
    endpoints = NodeSet(Endpoint(name) for name in ids)
    assert picks(ConsistentHash(), NodeSet(ids), 200) == picks(ConsistentHash(), endpoints, 200)


@pytest.mark.parametrize("key", [-1, 2**64, 2**70])
def test_an_int_key_is_a_64_bit_hash(key: int) -> None:
    """An int outside 0..2^64-1 is refused with a remedy."""
    with pytest.raises(ValueError, match=rf"hash_key is {key}; .*0\.\.2\^64-1 \(give a str"):
        ConsistentHash[str]().select(HOSTS, SelectionContext(key))


@pytest.mark.parametrize("context", [SelectionContext(), SelectionContext(exclude={0})])
def test_a_missing_key_is_an_error(context: SelectionContext) -> None:
    """Without a key the strategy says what is missing and how to give it."""
    for nodes in (HOSTS, list(HOSTS)):
        with pytest.raises(MissingHashKey, match="hash_key='user-42'") as caught:
            ConsistentHash[str]().select(nodes, context)
        assert isinstance(caught.value, LoadwiseError)
        assert isinstance(caught.value, ValueError)


def points_of(strategy: ConsistentHash[Endpoint], weights: Sequence[float]) -> list[int]:
    """Return how many points nodes of these weights have."""
    nodes = NodeSet(Endpoint(i, weight=weight) for i, weight in enumerate(weights))
    entries = ring_entries(strategy._resolve(nodes).state)
    return shares((owner for _, owner in entries), len(weights))


def test_no_membership_is_refused_for_its_weights() -> None:
    """1,100 nodes of weight 100 have 160 points each; one far below the others has one."""
    strategy = ConsistentHash[Endpoint]()
    assert points_of(strategy, [100] * 1100) == [160] * 1100
    assert points_of(strategy, [1] * 20 + [0.001, 5e-324]) == [160] * 20 + [1, 1]
    assert points_of(strategy, [0, 0]) == [0, 0]


def test_a_ring_has_a_limit() -> None:
    """Where there would be more points than the limit, all are halved, but each keeps one."""
    strategy = ConsistentHash[Endpoint](virtual_nodes=10, max_points=100)
    assert points_of(strategy, [1] * 10) == [10] * 10
    assert points_of(strategy, [1] * 11) == [5] * 11
    assert points_of(strategy, [1, 1, 8]) == [10, 10, 80]
    assert points_of(strategy, [1, 1, 9]) == [5, 5, 45]
    assert points_of(strategy, [1] * 150) == [1] * 150
    assert points_of(strategy, [1, 1, 10**300]) == [1, 1, 80]
    assert points_of(strategy, [1e-300, 1e-300, 1e300]) == [1, 1, 80]


def test_max_points_is_a_positive_int() -> None:
    """A limit below one, or a broken one, is refused at construction."""
    with pytest.raises(ValueError, match="max_points is 0; it must be at least 1"):
        ConsistentHash(max_points=0)
    with pytest.raises(TypeError, match=wrong_type(r"max_points is 2\.5; it must be an int")):
        ConsistentHash(max_points=2.5)  # type: ignore[arg-type]  # the point of the test


def test_virtual_nodes_is_a_positive_int() -> None:
    """Fewer than one point, or a broken number of them, is refused at construction."""
    with pytest.raises(ValueError, match="virtual_nodes is 0; it must be at least 1"):
        ConsistentHash(virtual_nodes=0)
    with pytest.raises(TypeError, match=wrong_type(r"virtual_nodes is 1\.5; it must be an int")):
        ConsistentHash(virtual_nodes=1.5)  # type: ignore[arg-type]  # the point of the test
