"""Summary of one strategy over all seeds: an estimate of every figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from loadwise.simulation.analysis.statistics import Estimate, estimate
from loadwise.simulation.figures import FIGURES, FIRST_TOKENS, LATENCIES, Figure
from loadwise.simulation.runs.result import Result

__all__ = ["Summary", "summarise"]

E = TypeVar("E", bound=Estimate | None)


class _Named(Generic[E]):
    """A figure of a summary that can be read as an attribute of the same name."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, summary: Summary, owner: type) -> E:
        # Whether it can be None is said where it stands.
        return cast("E", summary.figures[self._name])


@dataclass(frozen=True, slots=True)
class Summary:
    """Summary of one strategy over all seeds.

    Attributes:
        strategy: Name of the contender.
        runs: Its results, by seed.
        latency: Estimates of mean, p50, p90, p99 and p999 in seconds, by these names.
        ttft: Estimates of the same of the time to first token; ``None`` where there is none.
        figures: Estimates of all other figures, by the names that follow. ``None`` for one that
            does not apply.
        throughput: Requests completed per second.
        errors: Share of the requests that failed, were dropped or had no end.
        retries: Retries per request.
        imbalance: The largest share over the mean one.
        jain: Jain's fairness index.
        keys_moved: Share of the requests with a key that changed servers; ``None`` without keys.
        unhealthy_picks: Share of the attempts sent to a server that was down, hanging or failing.
        cache_hits: Share of the served requests that found their key at hand; ``None`` without
            caches.
        tpot: Seconds per output token; ``None`` where answers do not come token by token.
        cache_hit: Share of the prompts' tokens that were cached; ``None`` without prompts.
        panic: Share of the time in which clients were in panic.
    """

    strategy: str
    runs: tuple[Result, ...]
    latency: Mapping[str, Estimate]
    ttft: Mapping[str, Estimate] | None
    figures: Mapping[str, Estimate | None]

    throughput = _Named[Estimate]()
    errors = _Named[Estimate]()
    retries = _Named[Estimate]()
    imbalance = _Named[Estimate]()
    jain = _Named[Estimate]()
    keys_moved = _Named[Estimate | None]()
    unhealthy_picks = _Named[Estimate]()
    cache_hits = _Named[Estimate | None]()
    tpot = _Named[Estimate | None]()
    cache_hit = _Named[Estimate | None]()
    panic = _Named[Estimate]()

    def of(self, figure: Figure) -> Estimate | None:
        """Return the estimate of a figure; ``None`` where it does not apply."""
        if figure in LATENCIES:
            return self.latency[figure.name]
        if figure in FIRST_TOKENS:
            return None if self.ttft is None else self.ttft[figure.name]
        return self.figures[figure.name]


def summarise(strategy: str, runs: Sequence[Result]) -> Summary:
    """Return the summary of a strategy's runs, one per seed.

    Raises:
        ValueError: There is no run.
    """
    first_tokens = {figure.name: _over_seeds(figure, runs) for figure in FIRST_TOKENS}
    return Summary(
        strategy=strategy,
        runs=tuple(runs),
        latency={figure.name: estimate(figure.less(run) for run in runs) for figure in LATENCIES},
        ttft={name: each for name, each in first_tokens.items() if each is not None} or None,
        figures={figure.name: _over_seeds(figure, runs) for figure in FIGURES},
    )


def _over_seeds(figure: Figure, runs: Sequence[Result]) -> Estimate | None:
    values = [figure.of(run) for run in runs]
    known = [value for value in values if value is not None]
    return estimate(known) if known else None
