"""Verdict of a comparison, in words: no more than its intervals support."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import comb
from types import MappingProxyType

from loadwise.simulation.analysis.ranking import Ranking, confidence_for, differ, rank
from loadwise.simulation.analysis.summary import Summary
from loadwise.simulation.figures import (
    ERRORS,
    FIGURES,
    FIRST_TOKENS,
    LATENCIES,
    PANIC,
    UNHEALTHY_PICKS,
    Figure,
)
from loadwise.simulation.scenario import Crash, Fail, Flap, Hang, PromptTrace, Scenario, Trace
from loadwise.simulation.units import percentage

__all__ = ["lossy_of", "verdict"]

_NO_HEALTH = "/no-health"
_TROUBLES: Mapping[type, str] = MappingProxyType(
    {Crash: "down", Flap: "down", Hang: "hanging", Fail: "failing"}
)
_NOTABLE = 1.1
"""From this ratio on a difference is more than a matter of percent."""
_MANY_TIMES = 9.95
"""From this ratio on a decimal is too much."""
_NOTABLE_SHARE = 0.01
"""So many more of the requests lost count as much as that ratio."""


def verdict(scenario: Scenario, summaries: Sequence[Summary]) -> tuple[str, ...]:
    """Return what the runs support saying, point by point.

    Strategies are compared seed by seed, with Student's t intervals of the ratios that hold for all
    pairs of strategies together with 95 % confidence, for each measure (Bonferroni). Those that
    lose more requests than the best are not ranked by latency, because quick answers to some do not
    make up for none to others: more by a tenth, or by 1 % of all requests.

    Args:
        scenario: What was simulated.
        summaries: What came of it, all with the same seeds.
    """
    seeds = len(summaries[0].runs)
    if len(summaries) == 1:
        return (f"Only {summaries[0].strategy} was run: there is nothing to compare it with.",)
    if seeds == 1:
        return (
            "One seed supports no verdict: what differs may be chance. Run several: --seeds 5.",
        )
    return tuple(_points(scenario, summaries, seeds))


def _points(scenario: Scenario, summaries: Sequence[Summary], seeds: int) -> Iterator[str]:
    confidence = confidence_for(len(summaries))
    by_errors = rank(summaries, ERRORS.less, confidence)
    reliable = summaries
    if by_errors is not None:
        lossy = lossy_of(by_errors)
        reliable = [each for each in summaries if each not in lossy]
        yield _on_errors(by_errors, lossy, seeds)
    if len(reliable) > 1:
        for figure in (*FIRST_TOKENS, *LATENCIES):
            if figure.spoken and summaries[0].of(figure) is not None:
                yield _on(figure, rank(reliable, figure.less, confidence), seeds)
    yield from _on_troubles(scenario, summaries, confidence)
    yield from _on_panic(summaries)
    for figure in FIGURES:
        applies = summaries[0].figures[figure.name] is not None
        if figure.spoken and applies and figure is not ERRORS:
            them = reliable if figure.is_time else summaries
            if len(them) > 1:
                yield _on(figure, rank(them, figure.less, confidence), seeds)
    pairs = comb(len(summaries), 2)
    together = f", for all {pairs} pairs of strategies together (Bonferroni)" if pairs > 1 else ""
    yield f"Compared seed by seed; each point holds with 95 % confidence{together}."
    if isinstance(scenario.arrivals, Trace | PromptTrace):
        yield "Every seed plays the same recording, so all this is about that recording only."


def lossy_of(ranking: Ranking) -> list[Summary]:
    """Return those that lose more requests than the best, and not just a few more."""
    least = ranking.means[ranking.first.strategy]
    return [
        each
        for each in ranking.behind
        if ranking.means[each.strategy] >= min(least * _NOTABLE, least + _NOTABLE_SHARE)
    ]


def _on_errors(ranking: Ranking, lossy: Sequence[Summary], seeds: int) -> str:
    if not any(ranking.means.values()):
        return f"{ERRORS.spoken}: none."
    if not lossy:
        return _on(ERRORS, ranking, seeds)
    lose, they = ("loses", "it is") if len(lossy) == 1 else ("lose", "they are")
    return (
        f"{ERRORS.spoken}: {_with_values(ranking, lossy, ERRORS.shown)} {lose} more than the best, "
        f"{_with_values(ranking, [ranking.first], ERRORS.shown)}; {they} not ranked by latency."
    )


def _on(figure: Figure, ranking: Ranking | None, seeds: int) -> str:
    """Say who is best by a figure, or who may be."""
    if ranking is None:
        return f"{figure.spoken}: unknown, because in some run of each no request was completed."
    first, shown = ranking.first.strategy, figure.shown
    best = "highest" if figure.better == "higher" else "lowest"
    least = ranking.means[first]
    if ranking.tied:
        alike = all(ranking.means[each.strategy] == least for each in ranking.tied)
        text = (
            f"{figure.spoken}: {_with_values(ranking, ranking.tied, shown)} cannot be told apart "
            f"from {first} ({shown(least)}, the {best}) with {seeds} seeds"
            f"{'' if alike else ': raise --seeds'}."
        )
    elif ranking.behind:
        text = f"{figure.spoken}: {first} has the {best}, {shown(least)}."
    else:
        text = f"{figure.spoken}: {shown(least)} with {first}."
    if ranking.behind:
        text += f" {_distances(figure, ranking)}"
    if ranking.unknown:
        unknown = _listed([each.strategy for each in ranking.unknown])
        text += f" Unknown for {unknown}: in some run no request was completed."
    return text


def _distances(figure: Figure, ranking: Ranking) -> str:
    """Say how far those behind are from the best, and nothing of their own order."""
    least = ranking.means[ranking.first.strategy]

    def distance(each: Summary) -> str:
        if not figure.is_time or not least:
            return ""
        ratio = ranking.means[each.strategy] / least
        if ratio < _NOTABLE:
            return f", {percentage(ratio - 1)} more"
        return f", {ratio:,.{1 if ratio < _MANY_TIMES else 0}f} times as much"

    def value(each: Summary) -> str:
        return figure.shown(ranking.means[each.strategy])

    nearest, farthest = ranking.behind[0], ranking.behind[-1]
    if nearest is farthest:
        return f"{farthest.strategy} follows with {value(farthest)}{distance(farthest)}."
    return (
        f"Those behind range from {value(nearest)} ({nearest.strategy}{distance(nearest)}) to "
        f"{value(farthest)} ({farthest.strategy}{distance(farthest)})."
    )


def _on_troubles(
    scenario: Scenario, summaries: Sequence[Summary], confidence: float
) -> Iterator[str]:
    """Say how much was sent to servers in trouble, and what health tracking does about it."""
    states = {_TROUBLES[type(fault)]: None for fault in scenario.faults if type(fault) in _TROUBLES}
    if not states:
        return
    where = f"servers that were {' or '.join(states)}"
    ranking = rank(summaries, UNHEALTHY_PICKS.less, confidence)
    if ranking is None or not any(ranking.means.values()):
        return
    seeds = len(summaries[0].runs)
    yield _on(replace(UNHEALTHY_PICKS, spoken=f"Attempts sent to {where}"), ranking, seeds)
    by_name = {each.strategy: each for each in summaries}
    for name, tracked in by_name.items():
        blind = by_name.get(name + _NO_HEALTH)
        if blind is None:
            continue
        with_it, without = (percentage(ranking.means[each.strategy]) for each in (tracked, blind))
        if differ(tracked, blind, UNHEALTHY_PICKS.less, confidence):
            yield (
                f"With health tracking {name} sends {with_it} of its attempts to {where} instead "
                f"of {without}."
            )
        else:
            yield (
                f"Whether health tracking keeps {name} from {where} cannot be told with {seeds} "
                f"seeds ({with_it} with it, {without} without)."
            )


def _on_panic(summaries: Sequence[Summary]) -> Iterator[str]:
    """Say who was in panic: health tracking avoids fewer servers then."""
    shares = [
        f"{each.strategy} for {PANIC.shown(each.panic.mean)}"
        for each in summaries
        if each.panic.mean > 0
    ]
    if shares:
        yield (
            f"In panic, where clients send to ailing servers, too, as too few are available: "
            f"{_listed(shares)} of the time."
        )


def _with_values(
    ranking: Ranking, summaries: Sequence[Summary], shown: Callable[[float], str]
) -> str:
    return _listed(
        [f"{each.strategy} ({shown(ranking.means[each.strategy])})" for each in summaries]
    )


def _listed(words: Sequence[str]) -> str:
    """Return words as a list that can be read aloud."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
