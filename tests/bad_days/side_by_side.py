"""The tables in docs/bad-days.md: ten fleets, each with four ways to send requests to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from tests.bad_days.simulated import FLEETS, TRIES, WAYS, Cell, Key

from loadwise.simulation.analysis.statistics import Estimate, estimate, paired_difference

__all__ = ["PAGE", "lines", "worse"]

PAGE = Path(__file__).parents[2] / "docs" / "bad-days.md"
CLEARLY_MORE = 0.01
"""Of ways that lose more than this share above the last, p99 tells of other requests."""


@dataclass(frozen=True)
class _Measure:
    """A figure of the tables.

    Attributes:
        title: Its name on the page.
        of: Its values, seed by seed.
        unit: Its unit on the page, and how many of them one of its values is.
    """

    title: str
    of: Callable[[Cell], tuple[float, ...]]
    unit: tuple[str, float]

    def shown(self, value: Estimate) -> str:
        """Return a mean with half of its interval, as the page shows it."""
        unit, factor = self.unit
        digits = 2 if unit == "%" else 0
        half = (value.high - value.low) / 2
        return f"{value.mean * factor:.{digits}f} ± {half * factor:.{digits}f} {unit}"


LOSS = _Measure("requests lost", lambda cell: cell.losses, ("%", 100.0))
P99 = _Measure("p99 of the good answers", lambda cell: cell.p99, ("ms", 1000.0))
MEASURES = (LOSS, P99)


def lines(cells: Mapping[Key, Cell], fleets: Sequence[str] | None = None) -> Iterator[str]:
    """Give the tables line by line, and after them a sentence on the last column."""
    names = [fleet.name for fleet in FLEETS] if fleets is None else fleets
    heads = " | ".join(way.name for way in WAYS)
    said: list[str] = []
    for measure in MEASURES:
        for tries in TRIES:
            at = "one try" if tries == 1 else "three tries"
            yield f"| {measure.title}, at {at} | {heads} |\n"
            yield f"|---|{'---|' * len(WAYS)}\n"
            for name in names:
                row = [cells[name, tries, way.name] for way in WAYS]
                shown = [measure.shown(estimate(measure.of(cell))) for cell in row]
                found = worse(row, measure.of)
                if found is not None:
                    shown[-1] += " †"
                    best, by = found
                    said.append(
                        f"{name}, {measure.title} at {at}, {measure.shown(by)} more than "
                        f"{WAYS[best].name}"
                    )
                yield f"| {name} | {' | '.join(shown)} |\n"
            yield "\n"
    cells_of_last = len(names) * len(TRIES) * len(MEASURES)
    if said:
        yield f"In {len(said)} of {cells_of_last} cells the last column is worse than the best of "
        yield "the others by more than the interval (†):\n\n"
        yield from (f"- {each}\n" for each in said)
    else:
        yield f"In none of {cells_of_last} cells is the last column worse than the best of the "
        yield "others by more than the interval.\n"


def worse(
    row: Sequence[Cell], of: Callable[[Cell], tuple[float, ...]]
) -> tuple[int, Estimate] | None:
    """Return which of the others is the best, and by how much the last is worse, if it is.

    It is if the interval of the difference, seed by seed, lies above 0. Whoever loses clearly more
    requests is left out: quick answers to some do not make up for none to others.
    """
    last = row[-1]
    rivals = [
        place
        for place, cell in enumerate(row[:-1])
        if fmean(cell.losses) <= fmean(last.losses) + CLEARLY_MORE
    ]
    if not rivals:
        return None
    best = min(rivals, key=lambda place: fmean(of(row[place])))
    by = paired_difference(of(row[best]), of(last))
    return (best, by) if by.low > 0 else None
