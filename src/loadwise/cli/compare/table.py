"""The figures of a comparison, in tables that fit a terminal of 80 columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, Group
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from loadwise.simulation.analysis.comparison import Comparison, Estimate, Summary
from loadwise.simulation.units import duration, duration_unit, percentage, rounded

__all__ = ["show_tables", "show_verdict"]

_WIDEST_NAME = 26
_UNBOUNDED = 1000
_SPREAD_LOOK = "dim"


@dataclass(frozen=True, slots=True)
class _Column:
    """A column: its heading, what it shows of a summary, and how values and spreads look."""

    heading: str
    of: Callable[[Summary], Estimate | None]
    value: Callable[[float], str]
    spread: Callable[[float, float], str]


def _in_its_unit(half: float, mean: float) -> str:
    length, unit = duration_unit(mean)
    return f"{rounded(half / length, like=mean / length)} {unit}"


def _latency(heading: str, name: str) -> _Column:
    return _Column(heading, lambda each: each.latency[name], duration, _in_its_unit)


def _share(heading: str, of: Callable[[Summary], Estimate | None]) -> _Column:
    return _Column(heading, of, percentage, percentage)


_LATENCY = (
    _latency("mean", "mean"),
    _latency("p50", "p50"),
    _latency("p90", "p90"),
    _latency("p99", "p99"),
    _latency("p99.9", "p999"),
)
_SERVICE = (
    _Column(
        "completed\nper second",
        lambda each: each.throughput,
        rounded,
        lambda half, mean: rounded(half, like=mean),
    ),
    _share("requests\nlost", lambda each: each.errors),
    _share("retries per\nrequest", lambda each: each.retries),
    _Column(
        "max/mean\nload",
        lambda each: each.imbalance,
        rounded,
        lambda half, mean: rounded(half, like=mean),
    ),
    _Column(
        "Jain's\nindex",
        lambda each: each.jain,
        lambda index: rounded(index) if math.isnan(index) else f"{index:.3f}",
        lambda half, _: f"{half:.3f}",
    ),
)
_SPECIAL = (
    _share("keys\nmoved", lambda each: each.keys_moved),
    _share("cache\nhits", lambda each: each.cache_hits),
    _share("attempts on\nunhealthy", lambda each: each.unhealthy_picks),
    _share("time in\npanic", lambda each: each.panic),
)


def show_tables(console: Console, comparison: Comparison) -> None:
    """Print what came of each strategy: latency, then service, then what only some runs have."""
    summaries = comparison.summaries
    _show(console, _table(console, "Latency of the completed requests", _LATENCY, summaries))
    _show(console, _table(console, "Service", _SERVICE, summaries))
    special = [column for column in _SPECIAL if _matters(column, summaries)]
    if special:
        _show(console, _table(console, "Affinity and health", special, summaries))
    seeds = len(summaries[0].runs)
    if seeds > 1:
        sign = _plus_minus(console)
        note = f"{sign} is half of the 95 % confidence interval over {seeds} seeds (Student's t)."
        console.print(Text(note, _SPREAD_LOOK))


def show_verdict(console: Console, sentences: Iterable[str]) -> None:
    """Print what the figures support saying."""
    points = Table.grid(padding=(0, 1))
    for sentence in sentences:
        points.add_row("-", Text(sentence))
    console.print(Group(Text("\nVerdict", "bold"), points))


def _matters(column: _Column, summaries: Sequence[Summary]) -> bool:
    """Return whether some strategy has a figure that is not 0."""
    estimates = [column.of(each) for each in summaries]
    return any(each is not None and (each.mean != 0) for each in estimates)


def _show(console: Console, table: Table) -> None:
    """Print a table as wide as it is: a narrow terminal breaks lines, and hides nothing."""
    needed = Measurement.get(console, console.options.update(width=_UNBOUNDED), table).maximum
    if needed > console.width:
        table.width = needed
    console.print(table, crop=False)


def _table(
    console: Console, title: str, columns: Sequence[_Column], summaries: Sequence[Summary]
) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        header_style="bold",
        title=Text(title, "bold cyan"),
        title_justify="left",
    )
    table.add_column("strategy", style="bold", max_width=_WIDEST_NAME, overflow="fold")
    for column in columns:
        table.add_column(column.heading, justify="right", no_wrap=True)
    for summary in summaries:
        # A long name gives way to its option, which has the second line of the row to itself.
        name, slash, option = summary.strategy.partition("/")
        cells = [_cell(column, column.of(summary), _plus_minus(console)) for column in columns]
        table.add_row(Text(f"{name}\n  {slash}{option}" if slash else name), *cells)
    return table


def _cell(column: _Column, estimate: Estimate | None, sign: str) -> Text:
    if estimate is None:
        return Text("-")
    cell = Text(column.value(estimate.mean))
    half = estimate.high - estimate.mean
    if not math.isnan(half):
        cell.append(f"\n{sign}{column.spread(half, estimate.mean)}", _SPREAD_LOOK)
    return cell


def _plus_minus(console: Console) -> str:
    return "+-" if console.options.ascii_only else "\N{PLUS-MINUS SIGN}"
