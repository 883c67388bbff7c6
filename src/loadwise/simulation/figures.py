"""Figures of a run, each declared once: its name, its value, and how tables and verdict show it.

Summaries, exports, the tables of the command and of the report, and the verdict read the
declarations: a new figure is counted (in `loadwise.simulation.world`, and kept in `Result`),
declared here, and documented in ``docs/simulation.md``. A new percentile is one field of `Latency`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Literal

from loadwise.simulation.runs.result import RANKS, Latency, Result
from loadwise.simulation.units import Written, duration, index, percentage, rounded

__all__ = [
    "ERRORS",
    "FIGURES",
    "FIRST_TOKENS",
    "LATENCIES",
    "PANIC",
    "UNHEALTHY_PICKS",
    "Figure",
    "TablePart",
]


class TablePart(IntEnum):
    """Parts of a table, in the order in which their columns stand."""

    FIRST_TOKEN = 1
    LATENCY = 2
    SERVICE = 3
    HEALTH = 4
    BALANCE = 5
    AFFINITY = 6


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a run.

    Attributes:
        name: Its key in summaries and exports.
        of: Its value in a run; ``None`` where it does not apply, NaN where it is unknown.
        part: The part of the tables that it stands in.
        written: Writes a value for people.
        heading: Heading of its column on a terminal, narrow: up to two lines.
        title: Heading of its column in the report.
        unit: Unit under that title.
        better: The better direction; ``None`` where none is, so that nobody is best.
        spoken: What the verdict calls it; empty where it has a sentence of its own, or none.
        rare: Whether it has a column only in comparisons in which it is not 0 throughout.
        counted: Whether it is made of counts that exports have for each run: then they have it for
            summaries only.
    """

    name: str
    of: Callable[[Result], float | None]
    part: TablePart
    written: Written
    heading: str
    title: str
    unit: str = ""
    better: Literal["lower", "higher"] | None = None
    spoken: str = ""
    rare: bool = False
    counted: bool = False

    @property
    def is_time(self) -> bool:
        """True for a time that requests take."""
        return self.written is duration

    def less(self, run: Result) -> float:
        """Return the value in a run as a number, the less the better; 0 where none applies."""
        value = self.of(run) or 0.0
        return -value if self.better == "higher" else value

    def shown(self, less: float) -> str:
        """Return the text for a number that `less` gave."""
        return self.written(-less if self.better == "higher" else less, None)


def _label(name: str) -> str:
    return f"p{100 * RANKS[name]:g}" if name in RANKS else name


def _latency(name: str) -> Figure:
    def of(run: Result) -> float:
        return float(getattr(run.latency, name))

    label = _label(name)
    spoken = {"mean": "Mean latency", "p99": "p99 latency"}.get(name, "")
    return Figure(
        name, of, TablePart.LATENCY, duration, label, label, better="lower", spoken=spoken
    )


def _first_token(name: str) -> Figure:
    def of(run: Result) -> float | None:
        return None if run.ttft is None else float(getattr(run.ttft, name))

    label = _label(name)
    named = {"mean": "Mean time to first token", "p99": "p99 time to first token"}
    return Figure(
        name,
        of,
        TablePart.FIRST_TOKEN,
        duration,
        label,
        f"first token {label}",
        better="lower",
        spoken=named.get(name, ""),
    )


def _errors(run: Result) -> float:
    # A run ends when nothing can happen any more: what is in flight then is never answered.
    lost = run.failed + run.dropped + run.in_flight
    return lost / run.arrived if run.arrived else math.nan


def _retries(run: Result) -> float:
    return run.retries / run.arrived if run.arrived else math.nan


def _unhealthy_picks(run: Result) -> float:
    return run.unhealthy_picks / run.attempts if run.attempts else math.nan


LATENCIES = tuple(_latency(field.name) for field in fields(Latency))
"""Latencies of the completed requests of a run, in seconds."""

FIRST_TOKENS = tuple(_first_token(field.name) for field in fields(Latency))
"""Times to the first token of the same requests, in seconds; ``None`` where there are none."""

ERRORS = Figure(
    "errors",
    _errors,
    TablePart.SERVICE,
    percentage,
    heading="requests\nlost",
    title="lost",
    unit="of requests",
    better="lower",
    spoken="Requests lost",
    counted=True,
)
"""Share of the requests that failed, were dropped or had no end."""

UNHEALTHY_PICKS = Figure(
    "unhealthy_picks",
    _unhealthy_picks,
    TablePart.HEALTH,
    percentage,
    heading="attempts on\nunhealthy",
    title="on unhealthy",
    unit="of attempts",
    better="lower",
    counted=True,
)
"""Share of the attempts sent to a server that was down, hanging or failing."""

PANIC = Figure(
    "panic",
    lambda run: run.panic,
    TablePart.HEALTH,
    percentage,
    heading="time in\npanic",
    title="in panic",
    unit="of the time",
    rare=True,
)
"""Share of the time in which clients were in panic."""

FIGURES = (
    Figure(
        "throughput",
        lambda run: run.throughput,
        TablePart.SERVICE,
        rounded,
        heading="completed\nper second",
        title="completed",
        unit="per second",
        better="higher",
    ),
    ERRORS,
    Figure(
        "retries",
        _retries,
        TablePart.SERVICE,
        percentage,
        heading="retries per\nrequest",
        title="retries",
        unit="per request",
        better="lower",
        counted=True,
    ),
    Figure(
        "imbalance",
        lambda run: run.imbalance,
        TablePart.BALANCE,
        rounded,
        heading="max/mean\nload",
        title="max/mean",
        unit="load",
    ),
    Figure(
        "jain",
        lambda run: run.jain,
        TablePart.BALANCE,
        index,
        heading="Jain's\nindex",
        title="Jain's",
        unit="index",
    ),
    Figure(
        "keys_moved",
        lambda run: run.keys_moved,
        TablePart.AFFINITY,
        percentage,
        heading="keys\nmoved",
        title="keys moved",
        unit="of requests",
        better="lower",
        spoken="Requests whose key moved",
    ),
    UNHEALTHY_PICKS,
    Figure(
        "tpot",
        lambda run: run.tpot,
        TablePart.FIRST_TOKEN,
        duration,
        heading="per output\ntoken",
        title="per output token",
        better="lower",
        spoken="Time per output token",
    ),
    Figure(
        "cache_hit",
        lambda run: run.cache_hit,
        TablePart.AFFINITY,
        percentage,
        heading="prompt\ncached",
        title="cached",
        unit="of prompt tokens",
        better="higher",
        spoken="Prompt tokens found cached",
    ),
    Figure(
        "cache_hits",
        lambda run: run.cache_hits,
        TablePart.AFFINITY,
        percentage,
        heading="cache\nhits",
        title="cache hits",
        unit="of requests",
        better="higher",
        spoken="Cache hits",
    ),
    PANIC,
    Figure(
        "ejections",
        lambda run: run.ejections,
        TablePart.HEALTH,
        rounded,
        heading="outliers\nejected",
        title="ejections",
        unit="of outliers",
        rare=True,
    ),
)
"""All other figures of a run, in the order of exports."""
