"""A table of operations by fleet size."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.model import Result, Scale, Table, Target, show_seconds
from benchmarks.timing import Timings

__all__ = ["by_size", "times"]

Limit = Callable[[str], float | None]


def _no_limit(_row: str) -> None:
    """Expect nothing of any row's growth."""


def by_size(
    timings: Timings,
    scale: Scale,
    title: str,
    *,
    first: str = "strategy",
    limit: Limit = _no_limit,
    note: str = "",
) -> Result:
    """Make a table: a row per operation with its growth, a column per fleet size.

    Args:
        timings: What was found.
        scale: The sizes.
        title: What the table shows.
        first: What the rows are.
        limit: How much more a row may cost on the largest fleet than on the smallest, if that is
            expected.
        note: What to know to read it.
    """
    smallest, largest = scale.sizes[0], scale.sizes[-1]
    rows: list[tuple[str, ...]] = []
    growths: list[tuple[float, float, str]] = []
    for row in timings.rows():
        at = {size: timings.seconds(row, str(size)) for size in scale.sizes}
        growth = at[largest] / at[smallest]
        rows.append(
            (
                row,
                *(show_seconds(seconds) for seconds in at.values()),
                times(at[smallest] / timings.baseline.best),
                times(growth),
            )
        )
        most = limit(row)
        if most is not None:
            growths.append((growth, most, row))
    header = (
        first,
        *(f"{size:,}" for size in scale.sizes),
        f"to `random()`, {smallest}",
        f"{largest:,} to {smallest}",
    )
    said = f"A bare `random.random()` in the same run: {show_seconds(timings.baseline.best)}."
    table = Table(timings.subject, title, header, tuple(rows), f"{said} {note}".rstrip())
    what = f"{title}: growth from {smallest} nodes to {largest:,}"
    targets = (_growth(what, growths),) if growths else ()
    return Result((table,), timings.figures(), targets)


def _growth(what: str, growths: list[tuple[float, float, str]]) -> Target:
    """Return the target of all rows, with those beyond their limit, or else the nearest to it."""
    ordered = sorted(growths, key=lambda each: each[0] / each[1], reverse=True)
    missed = [each for each in ordered if each[0] > each[1]]
    limits = " or ".join(f"{most:g}" for most in sorted({most for _, most, _ in growths}))
    found = "; ".join(f"{times(growth)} ({row})" for growth, _, row in missed or ordered[:1])
    return Target(what, f"at most {limits}", found, not missed)


def times(ratio: float) -> str:
    """Return a ratio for readers."""
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"  # noqa: PLR2004
