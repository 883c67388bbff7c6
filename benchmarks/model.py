"""What a benchmark is made of: how much to do, what was found, and what was hoped for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

__all__ = [
    "FULL",
    "QUICK",
    "SMALLEST",
    "Figure",
    "Result",
    "Scale",
    "Subject",
    "Table",
    "Target",
    "show_seconds",
]


@dataclass(frozen=True)
class Scale:
    """How thorough a run is.

    Attributes:
        sizes: Fleet sizes, ascending.
        turns: Turns that each figure is taken from.
        turn_seconds: How long a turn takes, about; it is at least one operation.
        most_seconds: A case that has taken so long gets no further turns.
        share: How much to do, from 0 (the least possible) to 1, of what is not timed in turns.
    """

    sizes: tuple[int, ...]
    turns: int
    turn_seconds: float
    most_seconds: float
    share: float

    def portion(self, whole: int, least: int = 1) -> int:
        """Return this scale's share of so many, and ``least`` at the least."""
        return max(least, round(whole * self.share))


FULL = Scale((10, 100, 1000, 10_000), turns=25, turn_seconds=0.003, most_seconds=4.0, share=1.0)
QUICK = Scale((10, 1000), turns=7, turn_seconds=0.001, most_seconds=0.3, share=0.05)
SMALLEST = Scale((2, 3), turns=1, turn_seconds=0.0, most_seconds=0.0, share=0.0)
"""For the tests: every benchmark does its work once."""


@dataclass(frozen=True)
class Figure:
    """One thing measured, for the file.

    Attributes:
        name: The subject, the row and the column.
        values: One per turn: seconds per operation, or bytes.
        unit: ``second`` or ``byte``.
    """

    name: str
    values: tuple[float, ...]
    unit: str = "second"


@dataclass(frozen=True)
class Target:
    """A figure that was hoped for, and what it came to.

    Attributes:
        what: What is measured.
        hoped: The target, in words.
        found: What was found, in words.
        met: Whether it is within the target.
    """

    what: str
    hoped: str
    found: str
    met: bool


@dataclass(frozen=True)
class Table:
    """Figures for readers.

    Attributes:
        name: Where it belongs: the name between the markers of a page.
        title: What it shows.
        header: The columns' names; the first is that of the rows.
        rows: One cell per column.
        note: What to know to read it.
    """

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def markdown(self) -> str:
        """Return it in Markdown, without the title; numbers are aligned to the right."""
        columns = [[row[i] for row in self.rows] for i in range(len(self.header))]
        numeric = [all(_NUMBER.match(cell) for cell in column) for column in columns]
        lines = [
            "| " + " | ".join(self.header) + " |",
            "|" + "|".join("---:" if right else "---" for right in numeric) + "|",
            *("| " + " | ".join(row) + " |" for row in self.rows),
        ]
        if self.note:
            lines += ["", self.note]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Result:
    """What a subject has found."""

    tables: tuple[Table, ...]
    figures: tuple[Figure, ...] = ()
    targets: tuple[Target, ...] = ()


Subject = Callable[[Scale], Result]
"""Measures one thing at many sizes or in many ways."""

_NUMBER = re.compile(r"[-+]?\d[\d,.]*( ?(ns|us|ms|s|%|times))?$")
_UNITS = ((1e-6, 1e9, "ns"), (1e-3, 1e6, "us"), (1.0, 1e3, "ms"), (float("inf"), 1.0, "s"))


def show_seconds(seconds: float) -> str:
    """Return a time in three digits or so and the unit that fits."""
    seconds = float(f"{seconds:.3g}")  # or 999.7 ns would be shown as 1000 ns
    factor, unit = next((factor, unit) for limit, factor, unit in _UNITS if abs(seconds) < limit)
    value = seconds * factor
    digits = 0 if abs(value) >= 100 or unit == "ns" else 1 if abs(value) >= 10 else 2  # noqa: PLR2004
    return f"{value:.{digits}f} {unit}"
