"""Views for the charts over time: the first run of each strategy, while something happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from loadwise.simulation.analysis.comparison import Comparison
from loadwise.simulation.report.faults import ChartedFault, faults_of
from loadwise.simulation.world.timeline import Timeline

__all__ = ["FirstRun", "views_of"]


@dataclass(frozen=True, slots=True)
class FirstRun:
    """One strategy's first run.

    Attributes:
        strategy: Its name.
        seed: Seed of the run.
        timeline: How it went, up to the end.
        step: Length of a step in seconds.
        end: Where the time axis ends, the same for all strategies.
        faults: What went wrong.
        clients: How many clients there were.
        late: Requests that failed or were dropped after the timeline's end.
    """

    strategy: str
    seed: int
    timeline: Timeline
    step: float
    end: float
    faults: tuple[ChartedFault, ...]
    clients: int
    late: int = 0


def views_of(comparison: Comparison) -> tuple[FirstRun, ...]:
    """Return what to show of each strategy.

    Timelines go on after the last request came, so that the queues run dry. The idle time at their
    end, common to all strategies, is left out.
    """
    runs = [(summary.strategy, summary.runs[0]) for summary in comparison.summaries]
    steps = max(1, *(_busy_steps(run.timeline) for _, run in runs))
    views: list[FirstRun] = []
    for strategy, run in runs:
        timeline = _first(run.timeline, steps)
        times = timeline.times
        end = times[-1] if times else 1.0
        views.append(
            FirstRun(
                strategy=strategy,
                seed=run.seed,
                timeline=timeline,
                step=end / max(1, len(times)),
                end=end,
                faults=faults_of(timeline.marks, end),
                clients=comparison.scenario.clients.count,
                late=run.failed + run.dropped - sum(timeline.failures),
            )
        )
    return tuple(views)


def _busy_steps(timeline: Timeline) -> int:
    """Return the number of steps up to the last one in which something happened."""
    series: list[Sequence[float]] = [
        *timeline.queues.values(),
        *timeline.loads.values(),
        timeline.failures,
    ]
    busy = (
        next((at for at in range(len(values), 0, -1) if values[at - 1]), 0) for values in series
    )
    return max(busy, default=0)


def _first(timeline: Timeline, steps: int) -> Timeline:
    return replace(
        timeline,
        times=timeline.times[:steps],
        queues={server: queue[:steps] for server, queue in timeline.queues.items()},
        loads={server: load[:steps] for server, load in timeline.loads.items()},
        latency=timeline.latency[:steps],
        failures=timeline.failures[:steps],
    )
