"""How many bytes each part keeps per node, and that those of nodes long gone are given back."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Generator
from contextlib import contextmanager

from benchmarks.fleets import Server, servers
from benchmarks.model import Figure, Result, Scale, Table, Target

from loadwise import (
    Balancer,
    ConsistentHash,
    HealthTracker,
    InFlight,
    NodeSet,
    Outcome,
    PeakEwma,
    PowerOfTwoChoices,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    WeightedRandom,
    WeightedRoundRobin,
)

__all__ = ["memory"]

_NODES = 1000
_GENERATIONS = 1000
_SETTLED = 200
_MOST_GROWTH = 64 * 1024


def memory(scale: Scale) -> Result:
    """Count the bytes."""
    size = scale.portion(_NODES, least=10)
    nodes = servers(size)
    members = NodeSet(nodes)
    parts: dict[str, Callable[[], object]] = {
        "`NodeSet`": lambda: NodeSet(nodes),
        "`HealthTracker`, nodes that failed": lambda: _failed(nodes),
        "`HealthTracker`, nodes that never did": lambda: _healthy(nodes),
        "`QuotaTracker`, one dimension": lambda: _charged(nodes, ("rpm",)),
        "`QuotaTracker`, two dimensions": lambda: _charged(nodes, ("rpm", "tpm")),
        "`InFlight`": lambda: _cells(InFlight(), nodes),
        "`PeakEwma`, measured": lambda: _cells(PeakEwma(), nodes),
        "`ConsistentHash`, 160 points a node": lambda: _prepared(
            ConsistentHash(), NodeSet([node.id for node in nodes])
        ),
        "`WeightedRoundRobin`, weights 1 to 3": lambda: _prepared(WeightedRoundRobin(), members),
        "`WeightedRandom`": lambda: _prepared(WeightedRandom(), members),
        "`Balancer`, the default": lambda: Balancer(nodes),
        "`Balancer`, P2C by peak EWMA": lambda: Balancer(nodes, PowerOfTwoChoices(load=PeakEwma())),
    }
    rows: list[tuple[str, ...]] = []
    figures: list[Figure] = []
    for name, make in parts.items():
        taken = _bytes_of(make) / size
        rows.append((name, f"{taken:,.0f}"))
        figures.append(Figure(f"memory: {name}", (taken,), "byte"))
    note = f"Measured with {size:,} nodes, which themselves are not counted."
    table = Table("memory", "Bytes per node", ("what", "bytes"), tuple(rows), note)
    generations = scale.portion(_GENERATIONS, least=2 * _SETTLED if scale.share else 2)
    grown = _come_and_go(size, generations, min(_SETTLED, generations // 2))
    return Result((table,), tuple(figures), (grown,))


@contextmanager
def _traced() -> Generator[Callable[[], int]]:
    """Trace allocations; give what counts the bytes that are still held."""

    def held() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        yield held
    finally:
        tracemalloc.stop()


def _bytes_of(make: Callable[[], object]) -> int:
    make()  # what is imported or cached at the first time is no node's
    with _traced() as held:
        before = held()
        made = make()
        after = held()
        del made
    return after - before


def _come_and_go(size: int, generations: int, settled: int) -> Target:
    """Replace all nodes again and again, requests and failures in between."""
    health = HealthTracker()
    balancer: Balancer[str] = Balancer((), PowerOfTwoChoices(load=PeakEwma()), health=health)
    before = 0
    with _traced() as held:
        for generation in range(generations):
            if generation == settled:  # by then, tables that are kept for a while are full
                before = held()
            balancer.replace(f"{generation}-{number}" for number in range(size))
            for _ in range(20):
                with balancer.acquire() as lease:
                    pass
                health.report_failure(lease.node)
        growth = held() - before
    return Target(
        f"bytes more after {size * generations:,} nodes have come and gone, {size:,} at a time, "
        f"than after {size * settled:,}",
        f"at most {_MOST_GROWTH:,}",
        f"{growth:,}",
        growth <= _MOST_GROWTH,
    )


def _failed(nodes: list[Server]) -> HealthTracker:
    health = HealthTracker()
    for node in nodes:
        health.report_failure(node.id, "connection refused")
    return health


def _healthy(nodes: list[Server]) -> HealthTracker:
    health = HealthTracker()
    for node in nodes:
        health.report_success(node.id)
    return health


def _charged(nodes: list[Server], dimensions: tuple[str, ...]) -> QuotaTracker:
    config = QuotaConfig([QuotaDimension(name, limit=1000, window=60.0) for name in dimensions])
    quota = QuotaTracker()
    for node in nodes:
        quota.register(node.id, config)
        quota.try_acquire(node.id)
    return quota


def _cells(measure: InFlight | PeakEwma, nodes: list[Server]) -> object:
    cells = [measure.cell(node.id) for node in nodes]
    for cell in cells:
        measure.observe(cell, 0.1, Outcome.SUCCESS, 1.0)
    return measure, cells


def _prepared(
    strategy: ConsistentHash[object] | WeightedRoundRobin[object] | WeightedRandom[object],
    nodes: NodeSet[object],
) -> object:
    strategy.prepare(nodes)
    return strategy, nodes
