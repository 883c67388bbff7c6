"""Rows about the hash ring: how even its shares are, and which keys move."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from statistics import pstdev

import numpy as np
from tests.proof import theory
from tests.proof.row import Measured, Row, of_runs
from tests.strategies.support import ring_entries

from loadwise import ConsistentHash, NodeSet, SelectionContext
from loadwise.simulation.runs.engine import simulate
from loadwise.simulation.scenario import Add, Clients, Fault, Group, Scenario, Servers

__all__ = ["ROWS"]

BALANCE = "How even a hash ring is, by points per node"
MOVES = "Which keys move when the members change"


@cache
def _shares(points: int, family: int) -> list[float]:
    """Return the shares of 100 nodes over their mean: the lengths of the arcs that they own."""
    nodes = NodeSet(f"ring-{family}-node-{number}" for number in range(100))
    entries = ring_entries(ConsistentHash[str](virtual_nodes=points)._resolve(nodes).state)
    ends = np.array([point for point, _ in entries], dtype=np.uint64)
    # The first arc begins at the last point; unsigned numbers wrap as the ring does.
    arcs = (ends - np.roll(ends, 1)).astype(np.float64)
    owners = np.array([owner for _, owner in entries])
    return [float(share) for share in np.bincount(owners, arcs, 100) * 100.0 / 2.0**64]


def _over_rings(figure: Callable[[list[float]], float], points: int, rings: int) -> Measured:
    return of_runs([figure(_shares(points, family)) for family in range(rings)])


def _balance(
    what: str,
    expected: Callable[[], float],
    figure: Callable[[list[float]], float],
    points: int,
    tolerance: float,
    reason: str,
    source: str,
) -> Row:
    rings = 24 if points < 1000 else 6
    measure = partial(_over_rings, figure, points, rings)
    name = f"{what}, 100 nodes of {points} points, {rings} rings"
    return Row(BALANCE, name, expected, measure, tolerance, reason, (source,))


ONE_RING = "the source says about; one ring deviates by 0.03 from the next"

BALANCE_ROWS = (
    _balance("Largest share over the mean", lambda: 1.24, max, 160, 0.04, ONE_RING, "Other code"),
    _balance("Largest share over the mean", lambda: 1.08, max, 1000, 0.02, "", "Other code"),
    _balance(
        "Largest share over the mean",
        partial(theory.ring_peak, 100, 160),
        max,
        160,
        0.02,
        "",
        "Devroye 1986",
    ),
    _balance(
        "Standard deviation of the shares over the mean",
        partial(theory.ring_spread, 100, 160),
        pstdev,
        160,
        0.05,
        "",
        "Devroye 1986",
    ),
    _balance(
        "Standard deviation of the shares over the mean",
        partial(theory.ring_spread, 100, 1000),
        pstdev,
        1000,
        0.1,
        "",
        "Devroye 1986",
    ),
)

KEYS = [SelectionContext(f"key-{number}") for number in range(2000)]
RINGS = 40


def _owners(nodes: list[str]) -> list[str]:
    """Return the node of each key."""
    strategy, members = ConsistentHash[str](), NodeSet(nodes)
    chosen = [strategy.select(members, key) for key in KEYS]
    return [nodes[index] for index in chosen if index is not None]


@cache
def _changes() -> list[tuple[float, float, int]]:
    """Let a node join ten, and leave again; for each of many rings tell what moved.

    Returns:
        The share of keys that the newcomer took, the share of keys that left with a node of the
        ten, and how many keys moved though neither their old nor their new node was concerned.
    """
    found: list[tuple[float, float, int]] = []
    for ring in range(RINGS):
        nodes = [f"ring-{ring}-node-{number}" for number in range(11)]
        ten, eleven, nine = (_owners(part) for part in (nodes[:10], nodes, nodes[1:10]))
        joined = [(old, new) for old, new in zip(ten, eleven, strict=True) if old != new]
        left = [(old, new) for old, new in zip(ten, nine, strict=True) if old != new]
        astray = sum(new != nodes[10] for _, new in joined)
        astray += sum(old != nodes[0] for old, _ in left)
        found.append((len(joined) / len(KEYS), len(left) / len(KEYS), astray))
    return found


def _moved(column: int) -> Measured:
    return of_runs([change[column] for change in _changes()])


def _moves(
    what: str, expected: float, measure: Callable[[], Measured], tolerance: float, reason: str = ""
) -> Row:
    return Row(MOVES, what, lambda: expected, measure, tolerance, reason, ("Karger 1997",))


def _moves_of_run(strategy: str, *faults: Fault) -> Measured:
    """Return the share of the requests that found their key on another server than before."""
    return of_runs([_run(strategy, f"rack{seed}", seed, faults) for seed in range(1, 11)])


REQUESTS, DIFFERENT = 10_000, 500


def _run(strategy: str, group: str, seed: int, faults: tuple[Fault, ...]) -> float:
    scenario = Scenario(
        name="proof",
        about="A row of the proof.",
        servers=Servers(groups=(Group(name=group, count=10),)),
        requests=REQUESTS,
        warmup=0.0,
        clients=Clients(keys=DIFFERENT),
        faults=faults,
    )
    moved = simulate(scenario, strategy, seed).keys_moved
    assert moved is not None
    return moved


MOVES_ROWS = (
    _moves("Share of the keys that an eleventh node takes", 1 / 11, partial(_moved, 0), 0.06),
    _moves("Share of the keys that leave with one of ten nodes", 1 / 10, partial(_moved, 1), 0.06),
    _moves(
        "Keys that moved between two nodes neither of which joined or left",
        0.0,
        partial(_moved, 2),
        0.0,
        "none may",
    ),
    _moves(
        "`keys_moved` of the simulator: `ConsistentHash`, 10 servers",
        0.0,
        partial(_moves_of_run, "consistent-hash"),
        0.0,
        "none may",
    ),
    _moves(
        f"`keys_moved` of the simulator: `ConsistentHash`, an eleventh server after half of "
        f"{REQUESTS} requests with {DIFFERENT} keys; each of 1/11 of the keys moves once",
        DIFFERENT / 11 / (REQUESTS - DIFFERENT),
        partial(_moves_of_run, "consistent-hash", Add(at="50%", group=Group(name="new"))),
        0.12,
    ),
    _moves(
        "`keys_moved` of the simulator: `Random` over 10 servers, which is elsewhere 9 times of 10",
        0.9,
        partial(_moves_of_run, "random"),
        0.01,
    ),
)

ROWS = (*BALANCE_ROWS, *MOVES_ROWS)
