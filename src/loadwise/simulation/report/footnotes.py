"""The notes at the end: what the numbers mean, and what they do not."""

from __future__ import annotations

from loadwise.simulation.analysis.comparison import Comparison
from loadwise.simulation.report.text import rank

__all__ = ["notes"]


def notes(comparison: Comparison) -> list[str]:
    """Return the notes that this comparison needs."""
    scenario = comparison.scenario
    runs = comparison.summaries[0].runs
    said = [
        (
            "Latency runs from a request's arrival to its good answer, retries and hedges "
            "included. Only completed requests have one: a strategy that loses its slow requests "
            "looks fast. So those that lose more than the best get no star for latency."
        )
    ]
    if scenario.servers.kind == "llm":
        said.append(
            "The time to first token runs from the same moment to the first token of the answer. "
            "Cached are the tokens of prompts that a server need not compute, because it had them."
        )
    if scenario.warmup:
        said.append(
            f"The first {rank(scenario.warmup)} of the requests warm the fleet up. The table and "
            "the quantiles leave them out; the charts over time show them."
        )
    if len(runs) > 1:
        seeds = ", ".join(str(run.seed) for run in runs)
        said.append(
            f"Seeds: {seeds}. All strategies were given the same requests, seed by seed. The line "
            "of the quantile plot is the median over the seeds, its band goes from the least to "
            "the greatest."
        )
    said += [
        (
            "Everything over time is of one run of each strategy, in even steps. The charts of the "
            "servers have a scale of their own for each strategy."
        ),
        (
            "On unhealthy: attempts sent to a server that was down, hanging or failing. Max/mean: "
            "the largest load of a server over the mean one. Jain's index is 1 when all loads are "
            "the same; unequal servers should have unequal loads."
        ),
    ]
    if any(each.panic.mean for each in comparison.summaries):
        said.append(
            "In panic: the share of the time in which so few servers were available that clients "
            "sent to ailing ones, too. It is neither good nor bad: the requests lost tell that."
        )
    if scenario.clients.count > 1:
        said.append(
            f"Each of the {scenario.clients.count:,} clients keeps its own view of health; the "
            "timeline shows what most of them hold, and of two the worse."
        )
    return said
