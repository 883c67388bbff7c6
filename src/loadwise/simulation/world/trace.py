"""Recorded requests: when they came and what they cost, from a CSV file with a header."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from loadwise.errors import nearest
from loadwise.simulation.errors import ScenarioError
from loadwise.simulation.scenario import Trace

__all__ = ["Recording", "read_trace"]

_NOT_ONE = (ArithmeticError, IndexError, TypeError, ValueError)
_EXAMPLE = "2026-03-01 18:15:46.5"
_MOST = 1e20  # nanoseconds since 1970 are less; and still finite when played a million times slower


@dataclass(frozen=True, slots=True)
class Recording:
    """Requests as they were recorded, in the order of their arrival.

    Attributes:
        times: Seconds from the first arrival, which is at 0.
        costs: One column per cost, each as long as ``times``.
    """

    times: array[float]
    costs: tuple[array[float], ...]

    @property
    def seconds(self) -> float:
        """Seconds from the first arrival to the last."""
        return self.times[-1]

    @property
    def rate(self) -> float:
        """Mean requests per second; infinite when all came at once."""
        return (len(self.times) - 1) / self.seconds if self.seconds else math.inf


def read_trace(trace: Trace, limit: int | None = None) -> Recording:
    r"""Read a recorded trace; rows out of order are sorted by time, stably.

    Times are numbers of seconds, or dates with times (ISO 8601; a fraction counts to the
    microsecond). Costs are numbers from 0 on. Empty lines are skipped. O(n), and 8 bytes per row
    and column.

    Args:
        trace: The file, its columns, and how many times faster than recorded it is played.
        limit: Keep no more than so many requests, the earliest.

    Raises:
        ScenarioError: The file cannot be read, lacks a column, has no rows, or has a row with a
            value that is none; the message names the line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "calls.csv")
        ...     written = file.write_text("second,tokens\n107,90\n103,250")
        ...     trace = Trace(file=str(file), time="second", cost=("tokens",), speed=2.0)
        ...     recording = read_trace(trace)
        >>> list(recording.times), list(recording.costs[0])
        ([0.0, 2.0], [250.0, 90.0])
    """
    path = Path(trace.file)
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            times, *costs = _columns(lines, trace)
    except UnicodeDecodeError:
        raise ScenarioError(f"{path}, line {_undecodable(path)}: this is not UTF-8") from None
    except (OSError, ValueError) as error:
        if isinstance(error, ScenarioError):
            raise
        # A ValueError is what a path with a null character gives.
        reason = error.strerror if isinstance(error, OSError) else error
        raise ScenarioError(f"the trace {trace.file!r} cannot be read: {reason}") from None
    order: Sequence[int] = range(len(times))
    if any(later < earlier for earlier, later in pairwise(times)):
        order = sorted(order, key=times.__getitem__)
    kept = order[:limit]
    first = times[kept[0]]
    return Recording(
        array("d", ((times[row] - first) / trace.speed for row in kept)),
        tuple(array("d", map(column.__getitem__, kept)) for column in costs),
    )


@dataclass(slots=True)
class _TraceColumn:
    """A column that is read: its name, its place, how, what is wanted, and what it held."""

    name: str
    place: int
    read: Callable[[str], float]
    wanted: str
    values: array[float]

    def fault(self, row: list[str]) -> str | None:
        """Return what is wrong with a row here, in words, if anything is."""
        if self.place >= len(row):
            return f"it has {len(row)} fields, and {self.name!r} is column {self.place + 1}"
        try:
            self.read(row[self.place])
        except _NOT_ONE:
            return f"{self.name} is {row[self.place][:60]!r}; it must be {self.wanted}"
        return None


def _columns(lines: Iterable[str], trace: Trace) -> tuple[array[float], ...]:
    """Return the columns of the times and of the costs."""
    rows = _numbered(lines, trace)
    names: list[str] = []
    for _, header in rows:
        names = [name.strip() for name in header]
        break
    if not any(names):
        raise ScenarioError(f"{trace.file} is empty; a trace begins with the names of its columns")
    columns = [
        _TraceColumn(name, _place(name, names, trace), _amount, "a number from 0 on", array("d"))
        for name in (trace.time, *trace.cost)
    ]
    time = columns[0]
    time.read = _reader_of_times()
    time.wanted = f"a number of seconds, or a date with a time such as {_EXAMPLE}, in all rows"
    for line, row in rows:
        try:
            for column in columns:
                column.values.append(column.read(row[column.place]))
        except _NOT_ONE:
            faults = filter(None, (column.fault(row) for column in columns))
            raise ScenarioError(f"{trace.file}, line {line}: {next(faults)}") from None
    if not time.values:
        raise ScenarioError(f"{trace.file} has the names of columns but no rows")
    return tuple(column.values for column in columns)


def _numbered(lines: Iterable[str], trace: Trace) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty, each with its line."""
    reader = csv.reader(lines)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise ScenarioError(f"{trace.file}, line {reader.line_num}: {error}") from None


def _place(name: str, names: list[str], trace: Trace) -> int:
    if name not in names:
        raise ScenarioError(
            f"{trace.file} has no column {name!r}{nearest(name, names)} (its columns are "
            f"{', '.join(names)[:200]})"
        )
    return names.index(name)


def _reader_of_times() -> Callable[[str], float]:
    """Return what reads times of one kind, that of the first: numbers, or dates with times."""
    first: datetime | None = None
    numbers = False

    def read(text: str) -> float:
        nonlocal first, numbers
        if first is not None:
            return (datetime.fromisoformat(text.strip()) - first).total_seconds()
        try:
            number = float(text)
        except ValueError:
            if numbers:
                raise
            first = datetime.fromisoformat(text.strip())
            return 0.0
        numbers = True
        return _within(number, -_MOST)

    return read


def _amount(text: str) -> float:
    return _within(float(text), 0.0)


def _within(number: float, least: float) -> float:
    if not least <= number <= _MOST:
        raise ValueError
    return number


def _undecodable(path: Path) -> int:
    """Return the first line that is not UTF-8."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1
