"""What a row of the proof is: a statement of theory, and what the code measures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev

from loadwise.simulation.analysis.statistics import t_probability

__all__ = ["Measured", "Row", "measured", "of_runs"]


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured.

    Attributes:
        value: The mean over independent runs, or the one outcome.
        error: Its standard error; 0 where chance has no part in it.
        runs: How many runs there were.
    """

    value: float
    error: float = 0.0
    runs: int = 1

    def risk(self, tolerance: float) -> float:
        """Return the chance that a mean of such runs is off by more than ``tolerance``."""
        if not self.error:
            return 0.0
        return 1.0 - t_probability(tolerance / self.error, self.runs - 1)


def of_runs(values: Sequence[float]) -> Measured:
    """Return the mean of independent runs with its standard error."""
    return Measured(fmean(values), stdev(values) / math.sqrt(len(values)), len(values))


@dataclass(frozen=True, slots=True)
class Row:
    """One statement, and what becomes of it.

    Attributes:
        chapter: Under which heading it stands.
        what: What is measured.
        expected: What theory or the source says; called when it is needed.
        measure: Measures it.
        tolerance: How far off it may be, as a share of what is expected.
        reason: Why that far, besides chance.
        sources: Keys of `SOURCES`.
    """

    chapter: str
    what: str
    expected: Callable[[], float]
    measure: Callable[[], Measured]
    tolerance: float
    reason: str
    sources: tuple[str, ...]


@cache
def measured(row: Row) -> Measured:
    """Measure a row, once."""
    return row.measure()
