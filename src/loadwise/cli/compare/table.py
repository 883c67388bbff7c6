"""The figures of a comparison, in tables that fit a terminal of 80 columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console, Group
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from loadwise._text import visible
from loadwise.simulation.analysis.comparison import Comparison, Estimate, Summary
from loadwise.simulation.figures import FIGURES, FIRST_TOKENS, LATENCIES, Figure, TablePart

__all__ = ["show_tables", "show_verdict"]

_WIDEST_NAME = 26
_UNBOUNDED = 1000
_SPREAD_LOOK = "dim"


_TABLES = (
    ("Time to first token of the completed requests", (TablePart.FIRST_TOKEN,)),
    ("Latency of the completed requests", (TablePart.LATENCY,)),
    ("Service", (TablePart.SERVICE, TablePart.BALANCE)),
    ("Affinity and health", (TablePart.AFFINITY, TablePart.HEALTH)),
)
_WHERE_IT_MATTERS = {TablePart.FIRST_TOKEN, TablePart.AFFINITY, TablePart.HEALTH}


def show_tables(console: Console, comparison: Comparison) -> None:
    """Print what came of each strategy: latency, then service, then what only some runs have."""
    summaries = comparison.summaries
    for title, parts in _TABLES:
        columns = [
            figure
            for part in parts
            for figure in (*FIRST_TOKENS, *LATENCIES, *FIGURES)
            if figure.part is part
            and (part not in _WHERE_IT_MATTERS or _matters(figure, summaries))
        ]
        if columns:
            _show(console, _table(console, title, columns, summaries))
    seeds = len(summaries[0].runs)
    if seeds > 1:
        sign = _plus_minus(console)
        note = f"{sign} is half of the 95 % confidence interval over {seeds} seeds (Student's t)."
        console.print(Text(note, _SPREAD_LOOK))


def show_verdict(console: Console, sentences: Iterable[str]) -> None:
    """Print what the figures support saying."""
    points = Table.grid(padding=(0, 1))
    for sentence in sentences:
        points.add_row("-", Text(visible(sentence)))
    console.print(Group(Text("\nVerdict", "bold"), points))


def _matters(figure: Figure, summaries: Sequence[Summary]) -> bool:
    """Return whether some strategy has a figure that is not 0."""
    estimates = [each.of(figure) for each in summaries]
    return any(each is not None and (each.mean != 0) for each in estimates)


def _show(console: Console, table: Table) -> None:
    """Print a table as wide as it is: a narrow terminal breaks lines, and hides nothing."""
    needed = Measurement.get(console, console.options.update(width=_UNBOUNDED), table).maximum
    if needed > console.width:
        table.width = needed
    console.print(table, crop=False)


def _table(
    console: Console, title: str, columns: Sequence[Figure], summaries: Sequence[Summary]
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
        name, slash, option = visible(summary.strategy).partition("/")
        cells = [_cell(column, summary.of(column), _plus_minus(console)) for column in columns]
        table.add_row(Text(f"{name}\n  {slash}{option}" if slash else name), *cells)
    return table


def _cell(figure: Figure, estimate: Estimate | None, sign: str) -> Text:
    if estimate is None:
        return Text("-")
    cell = Text(figure.written(estimate.mean, None))
    half = estimate.high - estimate.mean
    if not math.isnan(half):
        cell.append(f"\n{sign}{figure.written(half, estimate.mean)}", _SPREAD_LOOK)
    return cell


def _plus_minus(console: Console) -> str:
    return "+-" if console.options.ascii_only else "\N{PLUS-MINUS SIGN}"
