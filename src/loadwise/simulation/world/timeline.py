"""Course of a run: its queues, loads, faults, changes of health and panics, in even steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["HealthChange", "Mark", "Panicked", "Timeline"]


@dataclass(frozen=True, slots=True)
class HealthChange:
    """Change of a client's view of a server's health: when, whose, and from what to what."""

    at: float
    client: int
    server: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A fault on the timeline: when it began and ended, what it was, and which servers it hit."""

    begin: float
    end: float
    kind: str
    servers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Panicked:
    """A spell in which a client was in panic: from when to when, and whose."""

    begin: float
    end: float
    client: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """Course of the run, in even steps.

    Attributes:
        times: Seconds of the run.
        queues: Requests at each server, waiting or in work, at those times.
        loads: Requests sent to each server in the step that ends then, per second.
        latency: Mean latency of the requests completed in the step; NaN for none.
        failures: Requests that failed or were dropped in the step.
        health: Changes of health, in order.
        marks: The faults.
        panics: Spells of panic, by when they ended.
    """

    times: tuple[float, ...]
    queues: Mapping[str, tuple[int, ...]]
    loads: Mapping[str, tuple[float, ...]]
    latency: tuple[float, ...]
    failures: tuple[int, ...]
    health: tuple[HealthChange, ...]
    marks: tuple[Mark, ...]
    panics: tuple[Panicked, ...] = ()
