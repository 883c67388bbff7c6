"""Result of a run, as frozen records, and how it is made of what the run counted."""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from loadwise.simulation.errors import ConservationError
from loadwise.simulation.scenario import Scenario
from loadwise.simulation.world.recorder import Recorder
from loadwise.simulation.world.server import Server
from loadwise.simulation.world.timeline import Timeline

__all__ = ["COUNTS", "QUANTILES", "RANKS", "Counts", "Ended", "Latency", "Result", "result_of"]

Values = npt.NDArray[np.float64]

QUANTILES = (
    *(n / 20 for n in range(19)),
    *(1 - 10.0 ** (-n / 20) for n in range(21, 81)),
)
"""The ranks at which a run's latencies are kept: even up to 0.9, then ever closer to 0.9999."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from a request's arrival to its good answer; NaN where there were none.

    A percentile is declared here only. Its name has its rank: p999 is the quantile at 0.999.
    """

    mean: float
    p50: float
    p90: float
    p99: float
    p999: float


RANKS = {name: float(f"0.{name[1:]}") for name in (field.name for field in fields(Latency)[1:])}
"""The rank of each percentile of `Latency`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Counts of one run.

    Those of requests are of the whole run and add up: arrived = completed + failed + dropped +
    in_flight; so are retries, hedges, timeouts and 429s. Attempts leave out the warm-up.

    Attributes:
        arrived: Requests that came.
        completed: Requests with a good answer.
        failed: Requests that ended in an error, a timeout or a 429.
        dropped: Requests that no server took: there was none to send them to, or it rejected them.
        in_flight: Requests without an end when the run ended.
        attempts: Attempts sent to servers; ``unhealthy_picks`` are part of them.
        retries: Attempts that followed a failed one.
        hedges: Second copies sent.
        timeouts: Attempts given up.
        rate_limited: Attempts answered 429.
        unhealthy_picks: Attempts on a server that was down, hanging or failing at that time.
    """

    arrived: int
    completed: int
    failed: int
    dropped: int
    in_flight: int
    attempts: int
    retries: int
    hedges: int
    timeouts: int
    rate_limited: int
    unhealthy_picks: int


COUNTS = tuple(field.name for field in fields(Counts))
"""Names of the counts, in the order of exports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result(Counts):
    """Result of one run of one strategy: its counts, and what follows from them.

    Latencies, shares and what else is a statistic leave out the warm-up. The counts are attributes,
    too: see `Counts`.

    Attributes:
        scenario: Name of the scenario.
        strategy: Name of the contender.
        seed: Seed of the run.
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
        ttft: Seconds from a request's arrival to the first token of its answer, of the requests
            that `latency` is of; ``None`` where answers do not come token by token.
        tpot: Seconds from one token of an answer to the next, as the mean over requests of the
            mean of each; ``None`` as before, NaN where no answer had two tokens.
        ttft_quantiles: The times to first token at the ranks `QUANTILES`; none as before.
        cache_hit: Share of the prompts' tokens that servers had cached; ``None`` without prompts.
        wall_seconds: How long the simulation took, in real time; not part of the outcome.
        panic: Share of the time in which clients were in panic, as the mean over the clients.
        ejections: Ejections of outliers by all clients together, those of the warm-up included.
    """

    scenario: str
    strategy: str
    seed: int
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
    panic: float = 0.0
    ejections: int = 0
    ttft: Latency | None = None
    tpot: float | None = None
    cache_hit: float | None = None
    ttft_quantiles: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that is over.

    Attributes:
        scenario: What was simulated.
        strategy: Name of the contender.
        seed: Seed of the run.
        recorder: What was counted.
        servers: All servers that there were.
        arrived: Requests that came.
        in_flight: Requests without an end.
        last_arrival: When the last request came, in virtual time.
    """

    scenario: Scenario
    strategy: str
    seed: int
    recorder: Recorder
    servers: Collection[Server]
    arrived: int
    in_flight: int
    last_arrival: float


def result_of(run: Ended, wall_seconds: float) -> Result:
    """Return the result of a run.

    Args:
        run: The run.
        wall_seconds: How long it took, in real time.

    Raises:
        ConservationError: The requests that ended are not those that arrived.
    """
    scenario, recorder, servers = run.scenario, run.recorder, run.servers
    _check_conservation(run)
    seconds = max(recorder.last_end, run.last_arrival)
    recorder.calm(seconds)
    picks = {server.id: server.picks for server in servers}
    attempts = sum(picks.values())
    latencies = _values(recorder.latencies)
    prompts = scenario.servers.kind == "llm"
    first_tokens = _values(recorder.first_tokens) if prompts else None
    return Result(
        scenario=scenario.name,
        strategy=run.strategy,
        seed=run.seed,
        arrived=run.arrived,
        completed=recorder.answered,
        failed=recorder.failed,
        dropped=recorder.dropped,
        in_flight=run.in_flight,
        attempts=attempts,
        retries=recorder.retries,
        hedges=recorder.hedges,
        timeouts=recorder.timeouts,
        rate_limited=recorder.rate_limited,
        unhealthy_picks=sum(server.troubled_picks for server in servers),
        seconds=seconds,
        throughput=recorder.answered / seconds if seconds else 0.0,
        latency=_latency(latencies),
        quantiles=_quantiles(latencies),
        share={identity: count / max(1, attempts) for identity, count in picks.items()},
        imbalance=max(picks.values()) * len(picks) / attempts if attempts else math.nan,
        jain=_jain(picks.values()),
        keys_moved=(
            recorder.keys_moved / max(1, recorder.keyed_requests) if scenario.clients.keys else None
        ),
        cache_hits=_cache_hits(servers) if scenario.servers.cache else None,
        timeline=recorder.timeline(),
        wall_seconds=wall_seconds,
        panic=recorder.panic_share(scenario.clients.count, seconds),
        ejections=recorder.ejections,
        ttft=None if first_tokens is None else _latency(first_tokens),
        tpot=_tpot(recorder) if prompts else None,
        cache_hit=_cache_hit(servers) if prompts else None,
        ttft_quantiles=() if first_tokens is None else _quantiles(first_tokens),
    )


def _values(recorded: array[float]) -> Values:
    return np.frombuffer(recorded) if recorded else np.array([np.nan])


def _quantiles(values: Values) -> tuple[float, ...]:
    return tuple(float(value) for value in np.quantile(values, QUANTILES))


def _latency(values: Values) -> Latency:
    percentiles = (float(value) for value in np.quantile(values, tuple(RANKS.values())))
    return Latency(float(values.mean()), *percentiles)


def _tpot(recorder: Recorder) -> float:
    return recorder.token_seconds / recorder.answers if recorder.answers else math.nan


def _check_conservation(run: Ended) -> None:
    recorder = run.recorder
    ended = recorder.answered + recorder.failed + recorder.dropped + run.in_flight
    if run.arrived != ended:
        raise ConservationError(
            f"scenario {run.scenario.name!r}, {run.strategy}, seed {run.seed}: {run.arrived} "
            f"requests arrived, but {recorder.answered} completed + {recorder.failed} failed + "
            f"{recorder.dropped} dropped + {run.in_flight} in flight are {ended}"
        )


def _cache_hits(servers: Collection[Server]) -> float:
    served = sum(server.served for server in servers)
    return sum(server.hits for server in servers) / max(1, served)


def _cache_hit(servers: Collection[Server]) -> float:
    engines = [server.engine for server in servers if server.engine is not None]
    tokens = sum(engine.prompt_tokens for engine in engines)
    return sum(engine.cached_tokens for engine in engines) / max(1, tokens)


def _jain(amounts: Collection[int]) -> float:
    """Return Jain's fairness index; NaN of nothing."""
    squares = sum(amount * amount for amount in amounts)
    return sum(amounts) ** 2 / (len(amounts) * squares) if squares else math.nan
