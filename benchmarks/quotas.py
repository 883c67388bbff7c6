"""What a reservation costs, by the number of nodes with a quota."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import cycle, islice
from time import perf_counter

from benchmarks.grid import by_size
from benchmarks.model import Result, Scale
from benchmarks.timing import Case, measure

from loadwise import QuotaConfig, QuotaDimension, QuotaTracker

__all__ = ["quotas"]

_PLENTY = 10**12


def quotas(scale: Scale) -> Result:
    """Time ``try_acquire`` in its variants, the nodes in turn."""
    cases = (case for size in scale.sizes for case in _cases(size))
    return by_size(
        measure("quota", cases, scale), scale, "Quotas, by nodes registered", first="operation"
    )


def _cases(size: int) -> Iterator[Case]:
    names = [f"key-{number}" for number in range(size)]

    def case(row: str, time: partial[float]) -> Case:
        return Case(row, str(size), time, 2 * size)

    yield case("`try_acquire`, one dimension", partial(_time, _tracker(names, 1), names))
    yield case("`try_acquire`, two dimensions", partial(_time, _tracker(names, 2), names))
    yield case(
        "`try_acquire` and `settle`, two dimensions",
        partial(_time_settled, _tracker(names, 2), names),
    )
    exhausted = _tracker(names, 1, limit=1)
    for name in names:
        exhausted.try_acquire(name)
    yield case("`try_acquire`, refused", partial(_time, exhausted, names))
    yield case("`is_available`", partial(_time_available, _tracker(names, 1), names))


def _tracker(names: list[str], dimensions: int, limit: int = _PLENTY) -> QuotaTracker:
    # A window of a day, so that none turns over during the run.
    config = QuotaConfig(
        [QuotaDimension(name, limit=limit, window=86_400.0) for name in ("rpm", "tpm")[:dimensions]]
    )
    tracker = QuotaTracker()
    for name in names:
        tracker.register(name, config)
    return tracker


def _time(tracker: QuotaTracker, names: list[str], loops: int) -> float:
    try_acquire = tracker.try_acquire
    start = perf_counter()
    for name in islice(cycle(names), loops):
        try_acquire(name)
    return perf_counter() - start


def _time_settled(tracker: QuotaTracker, names: list[str], loops: int) -> float:
    try_acquire = tracker.try_acquire
    estimate, truth = {"tpm": 1000.0}, {"tpm": 800.0}
    start = perf_counter()
    for name in islice(cycle(names), loops):
        reservation = try_acquire(name, estimate)
        if reservation is not None:
            reservation.settle(truth)
    return perf_counter() - start


def _time_available(tracker: QuotaTracker, names: list[str], loops: int) -> float:
    is_available = tracker.is_available
    start = perf_counter()
    for name in islice(cycle(names), loops):
        is_available(name)
    return perf_counter() - start
