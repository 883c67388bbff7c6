"""What came of one strategy over all seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadwise.simulation.analysis.statistics import Estimate, estimate
from loadwise.simulation.runs.result import Result

__all__ = ["LATENCIES", "Summary", "error_share", "summarise", "unhealthy_share"]

LATENCIES = ("mean", "p50", "p90", "p99", "p999")
"""Names of the figures that describe the latencies of a run."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of one strategy over all seeds.

    Attributes:
        strategy: Name of the contender.
        runs: Its results, by seed.
        latency: Estimates of mean, p50, p90, p99 and p999 in seconds, by these names.
        throughput: Requests completed per second.
        errors: Share of the requests that failed, were dropped or had no end.
        retries: Retries per request.
        imbalance: The largest share over the mean one.
        jain: Jain's fairness index.
        keys_moved: Share of the requests with a key that changed servers; ``None`` without keys.
        unhealthy_picks: Share of the attempts sent to a server that was down, hanging or failing.
        cache_hits: Share of the served requests that found their key at hand; ``None`` without
            caches.
        panic: Share of the time in which clients were in panic.
    """

    strategy: str
    runs: tuple[Result, ...]
    latency: dict[str, Estimate]
    throughput: Estimate
    errors: Estimate
    retries: Estimate
    imbalance: Estimate
    jain: Estimate
    keys_moved: Estimate | None
    unhealthy_picks: Estimate
    cache_hits: Estimate | None
    panic: Estimate


def error_share(run: Result) -> float:
    """Return the share of a run's requests that failed, were dropped or had no end.

    A run ends when nothing can happen any more: what is in flight then will never be answered.
    """
    lost = run.failed + run.dropped + run.in_flight
    return lost / run.arrived if run.arrived else math.nan


def unhealthy_share(run: Result) -> float:
    """Return the share of a run's attempts that went to servers down, hanging or failing."""
    return run.unhealthy_picks / run.attempts if run.attempts else math.nan


def summarise(strategy: str, runs: Sequence[Result]) -> Summary:
    """Return what came of a strategy's runs, one per seed.

    Raises:
        ValueError: There is no run.
    """

    def over_seeds(figure: Callable[[Result], float]) -> Estimate:
        return estimate(map(figure, runs))

    return Summary(
        strategy=strategy,
        runs=tuple(runs),
        latency={name: estimate(getattr(run.latency, name) for run in runs) for name in LATENCIES},
        throughput=over_seeds(lambda run: run.throughput),
        errors=over_seeds(error_share),
        retries=over_seeds(lambda run: run.retries / run.arrived if run.arrived else math.nan),
        imbalance=over_seeds(lambda run: run.imbalance),
        jain=over_seeds(lambda run: run.jain),
        keys_moved=_where_known([run.keys_moved for run in runs]),
        unhealthy_picks=over_seeds(unhealthy_share),
        cache_hits=_where_known([run.cache_hits for run in runs]),
        panic=over_seeds(lambda run: run.panic),
    )


def _where_known(values: Sequence[float | None]) -> Estimate | None:
    known = [value for value in values if value is not None]
    return estimate(known) if known else None
