"""Points functions of the ring: the maps of Envoy, nginx and HAProxy, point by point."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies.support import ring_entries

from loadwise import Balancer, ConsistentHash, Endpoint, NodeSet, SelectionContext
from loadwise.strategies._points import KINDS

ENVOY_MURMUR = [
    (85, 1358027074129602068),
    (83, 4361834613929391114),
    (84, 7224494972555149682),
    (81, 7701421856454313576),
    (82, 8649315368077433379),
    (84, 8739448859063030639),
    (81, 9887544217113020895),
    (82, 10150910876324007731),
    (83, 15168472011420622455),
    (80, 15427156902705414897),
    (85, 16375050414328759093),
    (80, 17613279263364193813),
]
"""Port of the owner, and point: Envoy's ring_hash_lb_test.cc, BasicWithMurmur2, two points each."""

PAIR = NodeSet(["127.0.0.1:7777", "127.0.0.1:7778"])


def test_the_points_of_murmur2_are_envoys() -> None:
    """The ring holds the points of Envoy's unit tests in order, and owners change as there."""
    nodes = NodeSet(f"127.0.0.1:{port}" for port in range(80, 86))
    strategy = ConsistentHash[str](virtual_nodes=2, points="murmur2")
    ring = strategy._resolve(nodes).state
    assert [(80 + owner, point) for point, owner in ring_entries(ring)] == ENVOY_MURMUR
    for hashed, port in [(0, 85), (2**64 - 1, 85), (1358027074129602068, 85)]:
        assert strategy.owner(nodes, hashed) == port - 80
    assert strategy.owner(nodes, 1358027074129602069) == 83 - 80


def test_keys_of_murmur2_are_hashed_as_envoy_hashes_requests() -> None:
    """Envoy hashes what it balances by with xxHash64, whatever hash the ring has."""
    nodes = NodeSet(f"node-{number}" for number in range(20))
    ring = ConsistentHash[str](points="murmur2")
    for key in map("user-{}".format, range(200)):
        assert ring.owner(nodes, key) == ring.owner(nodes, xxhash.xxh64_intdigest(key.encode()))


def test_two_nodes_on_the_ring_of_nginx() -> None:
    """The published example: two servers, two paths."""
    strategy = ConsistentHash[str](points="ketama")
    assert strategy.owner(PAIR, "/some/path") == 1
    assert strategy.owner(PAIR, "/some/longer/path") == 0


def nginx_points(host: bytes, port: bytes, weight: int) -> list[int]:
    """Return the points of a server as ngx_http_upstream_hash_module works them out."""
    points: list[int] = []
    before = b"\0\0\0\0"
    for _ in range(160 * weight):
        point = zlib.crc32(host + b"\0" + port + before)
        before = point.to_bytes(4, "little")
        points.append(point)
    return points


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("10.0.0.1:8080", b"10.0.0.1", b"8080"),
        ("backend.example", b"backend.example", b""),
        ("backend.example:http", b"backend.example:http", b""),
        ("[::1]:80", b"[::1]", b"80"),
        ("[::1]", b"[::1]", b""),
        ("unix:/run/app.sock", b"/run/app.sock", b""),
        ("UNIX:/run/app:80", b"/run/app:80", b""),
    ],
)
def test_the_points_of_ketama_are_nginxs(address: str, host: bytes, port: bytes) -> None:
    """By host and port, in whatever way an address is written; 160 for each unit of weight."""
    nodes = NodeSet([Endpoint(address, weight=2), Endpoint("other:1")])
    ring = ConsistentHash[Endpoint](points="ketama")._resolve(nodes).state
    mine = [point for point, owner in ring_entries(ring) if owner == 0]
    assert mine == sorted(point << 32 for point in nginx_points(host, port, 2))


@given(
    key=st.integers(0, 2**32 - 1),
    weights=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    barred=st.sets(st.integers(0, 5)),
)
def test_a_key_on_the_ring_of_nginx_goes_to_the_next_point(
    key: int, weights: list[int], barred: set[int]
) -> None:
    """An int is the 32-bit hash: the first point at or after it that may be chosen has it."""
    nodes = NodeSet(Endpoint(f"10.0.0.{i}:80", weight=w) for i, w in enumerate(weights))
    view = nodes.without(i for i in barred if i < len(nodes))
    points = sorted(
        (point, index)
        for index in view.eligible
        for point in nginx_points(f"10.0.0.{index}".encode(), b"80", weights[index])
    )
    expected = next((i for point, i in points if point >= key), points[0][1] if points else None)
    assert ConsistentHash[Endpoint](points="ketama").owner(view, key) == expected


def haproxy_mix(number: int) -> int:
    """Return HAProxy's full avalanche of 32 bits (include/haproxy/tools.h, full_hash)."""
    mask = 2**32 - 1
    number = (number + 0x7ED55D16 + (number << 12)) & mask
    number = (number ^ 0xC761C23C) ^ (number >> 19)
    number = (number + 0x165667B1 + (number << 5)) & mask
    number = ((number + 0xD3A2646C) ^ (number << 9)) & mask
    number = (number + 0xFD7046C5 + (number << 3)) & mask
    number = (number ^ 0xB55A4F09) ^ (number >> 16)
    return (number * 3221225473) & mask


@given(
    key=st.integers(0, 2**32 - 1),
    weights=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    barred=st.sets(st.integers(0, 5)),
)
def test_a_key_on_the_ring_of_haproxy_goes_to_the_nearest_point(
    key: int, weights: list[int], barred: set[int]
) -> None:
    """Of the points of who may be chosen the nearest has it, of two the one before (lb_chash.c).

    All in order of distance are its owners.
    """
    nodes = NodeSet(Endpoint(f"s-{i + 1}", weight=w) for i, w in enumerate(weights))
    view = nodes.without(i for i in barred if i < len(nodes))
    ahead = [
        ((haproxy_mix((i + 1) * 256 * 16 + number) - key) % 2**32, i)
        for i in view.eligible
        for number in range(16 * weights[i])
    ]
    by_distance = sorted((min(2 * d + 1, 2 * (2**32 - d)), i) for d, i in ahead if d)
    order = list(dict.fromkeys([i for d, i in ahead if not d] + [i for _, i in by_distance]))
    strategy = ConsistentHash[Endpoint](points="haproxy")
    assert strategy.owners(view, key, len(nodes)) == order
    assert strategy.owner(view, key) == (order[0] if order else None)
    if len(order) > 1:
        context = SelectionContext(key, exclude={order[0]})
        assert strategy.select(view, context) == order[1]


@pytest.mark.parametrize("points", ["ketama", "haproxy"])
@pytest.mark.parametrize("key", [-1, 2**32])
def test_a_hash_of_more_than_32_bits_is_refused(points: str, key: int) -> None:
    """The error says how many bits a hash has there."""
    with pytest.raises(ValueError, match=r"taken as the 32-bit hash itself .* in 0\.\.2\^32-1"):
        ConsistentHash[str](points=points).owner(NodeSet(["s-1"]), key)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"points": "ketma"}, "points is 'ketma'; it must be one of 'xxh64', .*mean 'ketama'?"),
        (
            {"points": "ketama", "virtual_nodes": 100},
            "virtual_nodes is 100, but .* has 160 for each",
        ),
        (
            {"points": "haproxy", "virtual_nodes": 16},
            "has 16 for each unit of its weight, as in HAP",
        ),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    """At construction, by name and with what would do."""
    with pytest.raises(ValueError, match=message):
        ConsistentHash(**arguments)


@pytest.mark.parametrize(
    ("points", "weight", "message"),
    [
        ("ketama", 1.5, r"'s-1' has the weight 1.5; points='ketama' needs whole weights, as nginx"),
        (
            "ketama",
            10**9,
            "come to 160000000000 points, 160 for each unit .* max_points is 4194304",
        ),
        ("haproxy", 0.5, "points='haproxy' needs whole weights up to 256, as HAProxy has them"),
        ("haproxy", 257, "'s-1' has the weight 257; .* up to 256"),
    ],
)
def test_weights_that_the_proxy_cannot_have_are_refused(
    points: str, weight: float, message: str
) -> None:
    """At construction of the balancer, by the node."""
    with pytest.raises(ValueError, match=message):
        Balancer([Endpoint("s-1", weight=weight)], ConsistentHash(points=points))


def test_whole_weights_of_any_type_will_do() -> None:
    """2.0 is as good as 2."""
    for points in ("ketama", "haproxy"):
        rings = [
            ConsistentHash[Endpoint](points=points)
            ._resolve(NodeSet([Endpoint("s-1", weight=weight), Endpoint("s-2")]))
            .state.points
            for weight in (2, 2.0)
        ]
        assert rings[0] == rings[1]


def test_servers_of_haproxy_need_numbers() -> None:
    """Its points come from the servers' ids, so ids are numbered."""
    with pytest.raises(
        ValueError, match="points='haproxy' needs numbered nodes, but one has the id"
    ):
        Balancer(["10.0.0.1:80"], ConsistentHash(points="haproxy"))


@pytest.mark.parametrize("points", KINDS)
def test_a_history_of_changes_leads_to_the_ring_of_the_nodes(points: str) -> None:
    """However members came and went, and whatever was derived, the map is that of a new ring."""
    strategy, nodes = (
        ConsistentHash[Endpoint](points=points),
        [Endpoint(f"n-{i}") for i in range(30)],
    )
    for step in range(12):
        nodes = [*nodes[1:], Endpoint(f"n-{30 + step}", weight=1 + step % 3)]
        members, fresh = NodeSet(nodes), ConsistentHash[Endpoint](points=points)
        for number in range(300):
            assert strategy.owner(members, f"k{number}") == fresh.owner(members, f"k{number}")
