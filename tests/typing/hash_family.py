"""Strategies that map keys to nodes, as users call them; checked by mypy and pyright, not run."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import assert_type

from loadwise import (
    Balancer,
    BoundedLoads,
    ConsistentHash,
    Endpoint,
    JumpHash,
    Maglev,
    NodeSet,
    Rendezvous,
    Sticky,
    Strategy,
)
from loadwise.strategies.sticky import SavedPin

nodes = NodeSet([Endpoint("cache-1", weight=2), Endpoint("cache-2")])

strategies: list[Strategy[Endpoint]] = [
    ConsistentHash(virtual_nodes=160, max_points=2**20),
    ConsistentHash(points="ketama"),
    Maglev(table_size=65_537),
    Rendezvous(),
    JumpHash(first=1),
    BoundedLoads(Maglev(), factor=1.5),
    Sticky(BoundedLoads(Rendezvous()), ttl=600.0, max_keys=1000),
]


def owners() -> None:
    """Where keys are kept, with replicas."""
    ring: ConsistentHash[Endpoint] = ConsistentHash()
    assert_type(ring.owner(nodes, "user-42"), int | None)
    assert_type(ring.owners(nodes, "user-42", 2), list[int])
    table: Maglev[Endpoint] = Maglev()
    assert_type(table.owner(nodes, b"user-42"), int | None)
    scores: Rendezvous[Endpoint] = Rendezvous()
    assert_type(scores.ranking(nodes, 42), Iterator[int])
    shards: JumpHash[int] = JumpHash()
    assert_type(shards.owners(range(100), 7, k=3), list[int])


def sessions() -> None:
    """Pins, and how they are saved."""
    sticky: Sticky[Endpoint] = Sticky(Rendezvous())
    sticky.pin("user-42", "cache-1")
    assert_type(sticky.pinned("user-42"), Hashable | None)
    saved = sticky.snapshot()
    assert_type(saved, list[SavedPin])
    sticky.restore(saved)
    assert_type(sticky.owners(nodes, "user-42", 2), list[int])


def balancers() -> None:
    """A balancer with each of them."""
    for strategy in strategies:
        balancer: Balancer[Endpoint] = Balancer(nodes, strategy)
        assert_type(balancer.pick(hash_key="user-42"), Endpoint)
