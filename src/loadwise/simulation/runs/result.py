"""What came of a simulated run, as frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from loadwise.simulation.world.timeline import Timeline

__all__ = ["QUANTILES", "Latency", "Result"]

QUANTILES = (
    *(n / 20 for n in range(19)),
    *(1 - 10.0 ** (-n / 20) for n in range(21, 81)),
)
"""The ranks at which a run's latencies are kept: even up to 0.9, then ever closer to 0.9999."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from a request's arrival to its good answer; NaN where there were none."""

    mean: float
    p50: float
    p90: float
    p99: float
    p999: float


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one run of one strategy.

    The counts of requests are of the whole run and add up: arrived = completed + failed +
    dropped + in_flight; so are retries, hedges, timeouts and 429s. Latencies, shares, attempts and
    what else is a statistic leave out the warm-up.

    Attributes:
        scenario: Name of the scenario.
        strategy: Name of the contender.
        seed: Seed of the run.
        arrived: Requests that came.
        completed: Requests with a good answer.
        failed: Requests that ended in an error, a timeout or a 429.
        dropped: Requests that no server took: there was none to send them to, or it rejected them.
        in_flight: Requests without an end when the run ended.
        retries: Attempts that followed a failed one.
        hedges: Second copies sent.
        timeouts: Attempts given up.
        rate_limited: Attempts answered 429.
        unhealthy_picks: Attempts on a server that was down, hanging or failing at that time.
        seconds: Length of the run in virtual time: to the last arrival, or good answer if later.
        throughput: Requests completed per second of virtual time.
        latency: Of the completed requests.
        quantiles: Their latencies at the ranks `QUANTILES`.
        share: Each server's share of the attempts.
        imbalance: The largest share over the mean one; NaN without attempts, as is the next.
        jain: Jain's fairness index of the shares: 1 when all are the same, 1/n when one has all.
        keys_moved: Share of the requests with a key that went to another server than the one
            before with this key; ``None`` without keys.
        cache_hits: Share of the served requests that found their key at hand; ``None`` without
            caches.
        timeline: How the run went.
        wall_seconds: How long the simulation took, in real time; not part of the outcome.
        attempts: Attempts sent to servers; ``unhealthy_picks`` and ``share`` are parts of them.
        panic: Share of the time in which clients were in panic, as the mean over the clients.
    """

    scenario: str
    strategy: str
    seed: int
    arrived: int
    completed: int
    failed: int
    dropped: int
    in_flight: int
    retries: int
    hedges: int
    timeouts: int
    rate_limited: int
    unhealthy_picks: int
    seconds: float
    throughput: float
    latency: Latency
    quantiles: tuple[float, ...]
    share: Mapping[str, float]
    imbalance: float
    jain: float
    keys_moved: float | None
    cache_hits: float | None
    timeline: Timeline
    wall_seconds: float
    attempts: int
    panic: float = 0.0
