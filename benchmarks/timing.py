"""Times many cases in turns.

pyperf's own runner gives each benchmark processes of its own, one benchmark after the other. What
is asked here are ratios: to the floor, to a peer, to another fleet size. On a machine that does
other things besides, the minutes between two benchmarks decide more of a ratio than the code does,
and the import of some peers alone would take longer than the measuring. So all cases of a subject
take turns of a few milliseconds within one process, and the quickest turn of each counts: whatever
disturbs makes turns slower, never quicker. The file that is written is pyperf's, with every turn
in it, for ``pyperf stats`` and ``pyperf compare_to``.

A bare ``random.random()`` takes its turns with each subject, as the measure of the machine.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from time import perf_counter

from benchmarks.model import Figure, Scale

__all__ = ["Batch", "Case", "Timed", "calls", "measure"]

Batch = Callable[[int], float]
"""Does something so many times, and returns the seconds that it took."""


@dataclass(frozen=True)
class Case:
    """One thing to time.

    Attributes:
        row: What it is.
        column: The variant, such as the fleet size.
        batch: Does it.
        warm: How often to do it before each turn, untimed; a whole turn at least. With twice the
            number of nodes, what is compared is the work, and not whose nodes happened to be in
            the processor's cache.
        round: How many make a round, where one costs more than another; a turn is whole rounds, or
            the quickest would be that of the cheapest.
    """

    row: str
    column: str
    batch: Batch
    warm: int = 0
    round: int = 1


@dataclass
class Timed:
    """What the turns of a case took, in seconds per operation."""

    case: Case
    turns: list[float] = field(default_factory=list[float])

    @property
    def best(self) -> float:
        """The quickest turn."""
        return min(self.turns)


@dataclass(frozen=True)
class Timings:
    """What was found of a subject's cases."""

    subject: str
    timed: Sequence[Timed]
    baseline: Timed

    def seconds(self, row: str, column: str) -> float:
        """Return the quickest turn of one case."""
        return next(
            each.best for each in self.timed if (each.case.row, each.case.column) == (row, column)
        )

    def rows(self) -> list[str]:
        """Return the rows, in order."""
        return list(dict.fromkeys(each.case.row for each in self.timed))

    def figures(self) -> tuple[Figure, ...]:
        """Return every turn, for the file."""
        return tuple(
            Figure(f"{self.subject}: {each.case.row}: {each.case.column}", tuple(each.turns))
            for each in (*self.timed, self.baseline)
        )


def calls(function: Callable[[], object]) -> Batch:
    """Return a batch that calls ``function``."""

    def batch(loops: int) -> float:
        start = perf_counter()
        for _ in repeat(None, loops):
            function()
        return perf_counter() - start

    return batch


def measure(subject: str, cases: Iterable[Case], scale: Scale) -> Timings:
    """Time all cases in turns, a bare ``random.random()`` among them."""
    baseline = Timed(Case("random.random()", "", calls(random.random)))
    timed = [Timed(case) for case in cases]
    everything = [*timed, baseline]
    counts = [_operations_per_turn(each.case, scale) for each in everything]
    spent = [0.0] * len(everything)
    with _no_collections():
        for _ in range(scale.turns):
            for position, (each, count) in enumerate(zip(everything, counts, strict=True)):
                if spent[position] > scale.most_seconds and each.turns:
                    continue
                start = perf_counter()
                # What is as slow as a turn brings its own data along.
                if count > 1:
                    each.case.batch(max(count, each.case.warm))
                each.turns.append(each.case.batch(count) / count)
                spent[position] += perf_counter() - start
    return Timings(subject, timed, baseline)


def _operations_per_turn(case: Case, scale: Scale) -> int:
    """Return how many operations make a turn."""
    case.batch(1)  # builds what is built at the first time
    count = 1
    # The quicker of two, for a stall would be taken for an operation that is slow.
    while (seconds := case.batch(count)) < scale.turn_seconds / 2 or (
        seconds := min(seconds, case.batch(count))
    ) < scale.turn_seconds / 2:
        count *= 2
    wanted = count * scale.turn_seconds / max(seconds, 1e-9)
    return max(1, round(wanted / case.round)) * case.round


@contextmanager
def _no_collections() -> Generator[None]:
    """Have garbage collected before and after, not in between."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()
