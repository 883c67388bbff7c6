"""Rows about the hash family: shares by weight and fleet size, and which keys move."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from tests.proof.row import Measured, Row, of_runs

from loadwise import (
    Balancer,
    BoundedLoads,
    ConsistentHash,
    Endpoint,
    JumpHash,
    Maglev,
    NodeSet,
    Rendezvous,
)

__all__ = ["ROWS"]

CHAPTER = "The hash family: shares and moves"
CELLS = 65_537
FAMILIES, KEYS = 40, 1000
KeyMap = Maglev[Any] | Rendezvous[Any] | JumpHash[Any]


def _nodes(family: int, count: int, heavy: float = 1) -> NodeSet[Endpoint]:
    """Return nodes of names of their own, the first of another weight."""
    return NodeSet(
        Endpoint(f"family{family}-{number}", weight=1 if number else heavy)
        for number in range(count)
    )


def _cells(nodes: NodeSet[Endpoint]) -> Counter[int]:
    return Counter(Maglev[Endpoint](CELLS)._resolve(nodes).table)


def _busiest(count: int) -> Measured:
    return Measured(max(_cells(_nodes(0, count)).values()) * count / CELLS)


def _heavy_in_table() -> Measured:
    return Measured(_cells(_nodes(0, 100, heavy=3))[0] / CELLS)


def _heavy_on_rings() -> Measured:
    """Measure by keys that are evenly spaced hashes, so that chance is but that of the points."""
    shares: list[float] = []
    for family in range(FAMILIES):
        ring, nodes = ConsistentHash[Endpoint](), _nodes(family, 20, heavy=3)
        owners = [ring.owner(nodes, number * (2**64 // 4000)) for number in range(4000)]
        shares.append(owners.count(0) / len(owners))
    return of_runs(shares)


def _heavy_by_score() -> Measured:
    strategy, nodes = Rendezvous[Endpoint](), _nodes(0, 10, heavy=3)
    return of_runs(
        [
            sum(strategy.owner(nodes, f"{run} {number}") == 0 for number in range(KEYS)) / KEYS
            for run in range(FAMILIES)
        ]
    )


@cache
def _joins(make: Callable[[], KeyMap]) -> list[tuple[float, int]]:
    """Let an eleventh node join ten; tell what share it takes, and how many keys move besides."""
    found: list[tuple[float, int]] = []
    for family in range(FAMILIES):
        strategy, ten, eleven = make(), _nodes(family, 10), _nodes(family, 11)
        keys = [f"{family} {number}" for number in range(KEYS)]
        moves = [(strategy.owner(ten, key), strategy.owner(eleven, key)) for key in keys]
        found.append(
            (
                sum(new == 10 for _, new in moves) / KEYS,
                sum(new not in (old, 10) for old, new in moves),
            )
        )
    return found


def _joined(make: Callable[[], KeyMap], column: int) -> Measured:
    return of_runs([join[column] for join in _joins(make)])


def _bounded() -> Measured:
    """Give 80 requests of one key to ten nodes."""
    balancer = Balancer(range(10), BoundedLoads(ConsistentHash()))
    leases = [balancer.acquire(hash_key="hot") for _ in range(80)]
    most = max(status.in_flight for status in balancer.status())
    for lease in leases:
        lease.cancel()
    return Measured(most / 8)


def _row(
    what: str,
    expected: float,
    measure: Callable[[], Measured],
    tolerance: float,
    reason: str,
    source: str,
) -> Row:
    return Row(CHAPTER, what, lambda: expected, measure, tolerance, reason, (source,))


def _moves(make: Callable[[], KeyMap], name: str, source: str) -> tuple[Row, Row]:
    taken, astray = partial(_joined, make, 0), partial(_joined, make, 1)
    return (
        _row(
            f"Share of the keys that an eleventh node takes, `{name}`",
            1 / 11,
            taken,
            0.06,
            "",
            source,
        ),
        _row(f"Keys that moved besides, `{name}`", 0.0, astray, 0.0, "none may", source),
    )


ROWS = (
    _row(
        "Most cells of a node over the mean, 100 nodes, `Maglev`",
        656 * 100 / CELLS,
        partial(_busiest, 100),
        0.0,
        "each has 655 or 656",
        "Eisenbud 2016",
    ),
    _row(
        "Most cells of a node over the mean, 1,000 nodes, `Maglev`",
        66 * 1000 / CELLS,
        partial(_busiest, 1000),
        0.0,
        "each has 65 or 66",
        "Eisenbud 2016",
    ),
    _row(
        "Share of a node of weight 3 beside 99 of weight 1, `Maglev`",
        3 / 102,
        _heavy_in_table,
        0.01,
        "the last round is not full: three cells of 1,928 at most",
        "Eisenbud 2016",
    ),
    _row(
        "Share of a node of weight 3 beside 19 of weight 1, `ConsistentHash`, 40 rings",
        3 / 22,
        _heavy_on_rings,
        0.03,
        "",
        "Karger 1997",
    ),
    _row(
        "Share of a node of weight 3 beside nine of weight 1, `Rendezvous`",
        3 / 12,
        _heavy_by_score,
        0.03,
        "",
        "Resch 2015",
    ),
    *_moves(Rendezvous, "Rendezvous", "Thaler 1996"),
    *_moves(JumpHash, "JumpHash", "Lamping 2014"),
    _row(
        "Most requests of a node over the mean, one key, factor 1.25, `BoundedLoads`",
        1.25,
        _bounded,
        0.0,
        "the bound is whole here",
        "Mirrokni 2016",
    ),
)
