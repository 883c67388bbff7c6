"""The report of the demo when it is over: figures, tables and what they mean."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadwise._text import visible
from loadwise.cli.demo.figures import Figures, ServerFigures
from loadwise.cli.demo.plan import DemoPlan
from loadwise.health import HealthStatus

__all__ = ["compare", "summarise", "verdict"]


def summarise(console: Console, figures: Figures, plan: DemoPlan) -> None:
    """Print the figures of one run."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), header_style="bold")
    table.add_column("server", style="bold")
    for header in ("answers", "by its\nown log", "share", "median\nms", "p99\nms", "failed\ntries"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("out of\ntraffic", no_wrap=True)
    for server in figures.servers:
        table.add_row(
            server.name,
            f"{server.answered:,}",
            f"{server.own_count:,}",
            f"{server.share:.1%}",
            _thousandths(server.latency.p50),
            _thousandths(server.latency.p99),
            f"{server.failed_attempts:,}",
            _outage(server),
        )
    console.print(table)
    story = Table.grid(padding=(0, 1))
    for sentence in _story(figures, plan):
        story.add_row("-", sentence)
    console.print(story)


def _story(figures: Figures, plan: DemoPlan) -> list[str]:
    by_name = {server.name: server for server in figures.servers}
    slow, flaky, doomed = by_name["slow"], by_name["flaky"], by_name["doomed"]
    slow_got = (
        f"slow got {slow.share:.1%} of the traffic; an equal share would have been "
        f"{1 / len(by_name):.0%}. Half of all requests were answered within "
        f"{_ms(figures.latency.p50)}, 99% within {_ms(figures.latency.p99)}."
    )
    retries = (
        f"flaky failed {_count(flaky.failed_attempts, 'time')}, doomed "
        f"{_count(doomed.failed_attempts, 'time')}: it was killed with "
        f"{_count(figures.caught, 'request')} in flight. Each failed attempt was followed by one "
        f"on another server."
    )
    story = [slow_got, retries]
    for server in (flaky, doomed):
        if server.back_at is not None:
            story.append(
                f"{server.name} got one probe every {plan.probe_interval:g} s while it was out. "
                f"{_count(server.probes_answered, 'answered probe')} brought it back, for "
                f"{_count(server.answered_since_back, 'more answer')}."
            )
        elif server.health != HealthStatus.HEALTHY.name:
            story.append(
                f"{server.name} was still {server.health} when the run ended: too few requests "
                f"came its way to tell that it is well again."
            )
    if figures.died_on_the_way:
        story.append(
            f"{_count(figures.died_on_the_way, 'answer')} never arrived, because the server "
            f"was killed or late; another server answered in its place."
        )
    return story


def verdict(figures: Figures) -> Text:
    """Return the line that says whether a request was lost."""
    counts = (
        f"{figures.sent:,} requests sent, {figures.answered:,} answered, {figures.retried:,} "
        f"retried, {figures.lost:,} lost."
    )
    if figures.lost:
        return Text(f"{counts} The first to be lost: {visible(str(figures.why_lost))}", "bold red")
    if figures.unaccounted:
        return Text(
            f"{counts} But the servers know nothing of {figures.unaccounted} answers.", "bold red"
        )
    return Text(f"{counts} No request was lost, and the servers' own logs agree.", "bold green")


def compare(console: Console, runs: Sequence[Figures]) -> None:
    """Print several runs side by side, and which strategy did best."""
    ranked = sorted(runs, key=lambda figures: (figures.lost, figures.latency.mean or math.inf))
    console.print()
    console.print(_outcomes(ranked))
    console.print(_shares(ranked))
    best, worst = ranked[0], ranked[-1]
    verdict = (
        f"{best.strategy} did best: {_ms(best.latency.mean)} per request on average, against "
        f"{_ms(worst.latency.mean)} with {worst.strategy}."
    )
    if _slow_share(best) < _slow_share(worst):
        verdict += (
            f" The slow server makes the difference: it got {_slow_share(best):.1%} of the "
            f"traffic from the one, {_slow_share(worst):.1%} from the other."
        )
    console.print(Text(verdict, "bold"))


def _outcomes(runs: Sequence[Figures]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, header_style="bold")
    table.add_column("strategy", style="bold", no_wrap=True)
    headers = ("requests", "answered", "retries", "errors", "p50\nms", "p90\nms", "p99\nms")
    for header in (*headers, "health\nchanges"):
        table.add_column(header, justify="right", no_wrap=True)
    for figures in runs:
        latency = figures.latency
        table.add_row(
            figures.strategy,
            *(f"{n:,}" for n in (figures.sent, figures.answered, figures.retries, figures.lost)),
            *map(_thousandths, (latency.p50, latency.p90, latency.p99)),
            str(len(figures.health_changes)),
        )
    return table


def _shares(runs: Sequence[Figures]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), header_style="bold", title="Who answered")
    table.add_column("strategy", style="bold", no_wrap=True)
    for server in runs[0].servers:
        table.add_column(server.name, justify="right", no_wrap=True)
    for figures in runs:
        table.add_row(figures.strategy, *(f"{server.share:.1%}" for server in figures.servers))
    return table


def _slow_share(figures: Figures) -> float:
    return next(server.share for server in figures.servers if server.name == "slow")


def _outage(server: ServerFigures) -> str:
    if server.out_at is None:
        return "never"
    until = "end" if server.back_at is None else f"{server.back_at:.1f} s"
    return f"{server.out_at:.1f} s - {until}"


def _count(number: int, thing: str) -> str:
    """Return a number of things in words."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _ms(seconds: float | None) -> str:
    """Return a time in milliseconds, with the unit."""
    return f"{_thousandths(seconds)} ms"


def _thousandths(seconds: float | None) -> str:
    """Return a time in milliseconds."""
    return "-" if seconds is None else f"{1000 * seconds:.1f}"
