"""What a balancer adds to a choice: leases, health, quotas, metrics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import Any

from benchmarks.fleets import Server, servers
from benchmarks.grid import by_size, times
from benchmarks.model import Result, Scale, Target
from benchmarks.strategies import time_acquire, time_acquire_by_key
from benchmarks.timing import Case, Timings, calls, measure

from loadwise import (
    Balancer,
    BoundedLoads,
    ConsistentHash,
    Endpoint,
    HealthTracker,
    NoNodeAvailable,
    NoopCollector,
    OutlierDetection,
    PeakEwma,
    PowerOfTwoChoices,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    RendezvousSubset,
    RoundRobin,
    SlowStart,
    Sticky,
)

__all__ = ["operations"]

_PEAK_EWMA = "`acquire` and release, P2C by peak EWMA, health, no-op metrics"
_DEFAULT = "`acquire` and release, the default"
_LOOP = "... by `attempts(3)`, of which the first succeeds"
_CALL = "... by `call`, of which the first try succeeds"
_MOST_TIMES_RANDOM = 90.0
_MOST_TIMES_ACQUIRE = 2.0
_COST = {"tpm": 10.0}
_HOUR = 3600.0


class Listening(NoopCollector):
    """Metrics of one's own that do nothing, but are told."""


def operations(scale: Scale) -> Result:
    """Time what balancers are asked to do, by what they keep track of."""
    cases = (case for size in scale.sizes for case in _cases(size))
    found = measure("balancer", cases, scale)
    title = "What a balancer does"

    def limit(row: str) -> float | None:
        if any(word in row for word in ("refused", "out of quota", "both fail", "excluded")):
            return 2.0
        return 2.5 if "hash_key" in row else 1.4

    result = by_size(found, scale, title, first="operation", limit=limit)
    ratio = found.seconds(_PEAK_EWMA, str(scale.sizes[0])) / found.baseline.best
    target = Target(
        f"{_PEAK_EWMA}: times a bare `random.random()`",
        f"at most {_MOST_TIMES_RANDOM:g}",
        times(ratio),
        ratio <= _MOST_TIMES_RANDOM,
    )
    lean = (_times_acquire(found, row, str(scale.sizes[0])) for row in (_LOOP, _CALL))
    return Result(result.tables, result.figures, (target, *lean, *result.targets))


def _times_acquire(found: Timings, row: str, size: str) -> Target:
    """Return the target for a way to send a request that goes well at once."""
    ratio = found.seconds(row, size) / found.seconds(_DEFAULT, size)
    return Target(
        f"{row.removeprefix('... ')}: times {_DEFAULT}",
        f"at most {_MOST_TIMES_ACQUIRE:g}",
        times(ratio),
        ratio <= _MOST_TIMES_ACQUIRE,
    )


def _cases(size: int) -> Iterator[Case]:
    nodes = servers(size, alike=True)

    def case(row: str, batch: Any) -> Case:  # noqa: ANN401 - a Batch, or a partial of one
        return Case(row, str(size), batch, 2 * size)

    def acquires(row: str, balancer: Balancer[Server]) -> Case:
        return case(row, partial(time_acquire, balancer))

    plain = Balancer(nodes)
    yield case("`pick`", calls(plain.pick))
    yield case("`pick` and `report_success`", calls(partial(_pick_and_report, Balancer(nodes))))
    yield acquires(_DEFAULT, Balancer(nodes))
    yield acquires("... to nodes of weights 1 to 3", Balancer(servers(size)))
    yield acquires("... without health", Balancer(nodes, health=None))
    yield case("... in a `with` block", partial(_time_with, Balancer(nodes)))
    yield acquires("... with a collector of one's own", Balancer(nodes, metrics=Listening()))
    yield acquires("... with outlier detection", Balancer(nodes, outliers=OutlierDetection()))
    yield acquires("... with one node in slow start", _warming(nodes))
    subset = RendezvousSubset("this client", size=8)
    yield acquires("... with a subset of 8 nodes", Balancer(nodes, subset=subset))
    yield acquires("... with a quota", Balancer(nodes, quota=_quota(nodes)))
    yield case("... with one node excluded", calls(partial(_exclude, Balancer(nodes), nodes[0].id)))
    yield case("... refused, all drained", calls(partial(_refused, _drained(nodes), None)))
    poor = Balancer(nodes, quota=_poor(nodes, 1))
    yield case("... refused, none affords it", calls(partial(_refused, poor, _COST)))
    half = Balancer(nodes, quota=_poor(nodes, 2))
    yield case("... with half the nodes out of quota", calls(partial(_afford, half)))
    failing = Balancer(nodes, health=None)
    yield case("... by `attempts(2)` that both fail", calls(partial(_fail, failing)))
    yield case(_LOOP, calls(partial(_attempt, plain)))
    yield case(_CALL, calls(partial(plain.call, _answer)))
    yield acquires(
        _PEAK_EWMA,
        Balancer(nodes, PowerOfTwoChoices(load=PeakEwma()), metrics=NoopCollector()),
    )
    for name, strategy in (
        ("ConsistentHash", ConsistentHash[Server]()),
        ("BoundedLoads, ConsistentHash", BoundedLoads(ConsistentHash[Server]())),
        ("Sticky, RoundRobin", Sticky(RoundRobin[Server]())),
    ):
        yield case(
            f"`acquire(hash_key=...)` and release, {name}",
            partial(time_acquire_by_key, Balancer(nodes, strategy)),
        )


def _pick_and_report(balancer: Balancer[Server]) -> None:
    node = balancer.pick()
    if balancer.health is not None:
        balancer.health.report_success(node.id)


def _warming(nodes: list[Server]) -> Balancer[Server]:
    """Return a balancer with a node that has just come back."""
    health = HealthTracker()
    balancer = Balancer(nodes, health=health, slow_start=SlowStart(window=_HOUR))
    health.eject(nodes[0].id, "to have it come back", 0.0)
    health.readmit(nodes[0].id, probe=False)
    return balancer


def _exclude(balancer: Balancer[Server], identity: str) -> None:
    balancer.acquire(exclude=(identity,)).success()


def _answer(_node: Server) -> None:
    """Do nothing, at once and well."""


def _attempt(balancer: Balancer[Server]) -> None:
    for attempt in balancer.attempts(3):
        with attempt:
            pass


def _fail(balancer: Balancer[Server]) -> None:
    for attempt in balancer.attempts(2):
        with attempt as lease:
            lease.failure()


def _afford(balancer: Balancer[Server]) -> None:
    lease = balancer.acquire(cost=_COST)
    lease.refund()
    lease.success()


def _refused(balancer: Balancer[Any], cost: dict[str, float] | None) -> None:
    with suppress(NoNodeAvailable):
        balancer.acquire(cost=cost)


def _drained(nodes: list[Server]) -> Balancer[Endpoint]:
    return Balancer([Endpoint(node.id, weight=0) for node in nodes])


def _time_with(balancer: Balancer[Server], loops: int) -> float:
    start = perf_counter()
    for _ in range(loops):
        with balancer.acquire():
            pass
    return perf_counter() - start


def _quota(nodes: list[Server]) -> QuotaTracker:
    quota = QuotaTracker()
    for node in nodes:
        quota.register(node.id, QuotaConfig([QuotaDimension("rpm", limit=10**12, window=60.0)]))
    return quota


def _poor(nodes: list[Server], each: int) -> QuotaTracker:
    """Return quotas of which every so many have not enough left for `_COST`."""
    quota = QuotaTracker()
    limits = QuotaConfig([QuotaDimension("tpm", limit=10**9, window=10**6, default_cost=0)])
    for number, node in enumerate(nodes):
        quota.register(node.id, limits)
        if not number % each:
            quota.record_usage(node.id, {"tpm": 10**9 - 5})
    return quota
