"""Counters of one node.

An event must cost next to nothing, so nothing here knows labels or families: the counts are plain
objects that belong to one node, and are put into a monitoring system's terms when it asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from loadwise._counter import upcoming
from loadwise.outcome import Outcome

__all__ = ["OTHER", "Counts", "MetricRecorder", "NodeCounters", "bump", "totals"]

K = TypeVar("K")
R = TypeVar("R", bound="MetricRecorder")

Counts = dict[K, Iterator[int]]
"""Counters that ``next`` advances and `upcoming` reads."""

OTHER = "other"
"""The label of whatever is beyond a limit."""

_MOST_KEYS = 50


def bump(counts: Counts[str], key: str, make: Callable[[str], Iterator[int]]) -> None:
    """Count one more under ``key``; keys beyond the first 50 go to ``"other"``.

    Reasons are free text, and text that varies must not make a series of every request.
    """
    counter = counts.get(key)
    if counter is None:
        key = key if len(counts) < _MOST_KEYS else OTHER
        counter = counts.get(key) or counts.setdefault(key, make(key))
    next(counter)


def totals(counts: Counts[K]) -> dict[K, int]:
    """Return the counts that are not 0."""
    numbers = {key: upcoming(counter) for key, counter in counts.copy().items()}
    return {key: number for key, number in numbers.items() if number}


class MetricRecorder(Protocol):
    """Records in a monitoring system's way what cannot be read later."""

    def observe(self, seconds: float) -> None:
        """Record how long a request took, or waited."""
        ...

    def counter(self, metric: str, *labels: str) -> Iterator[int]:
        """Return a new counter at 0.

        Args:
            metric: The name of its metric in the table of metrics.
            labels: The values of the labels that the recorder does not know itself.
        """
        ...

    def after_fork(self) -> None:
        """Replace locks: another thread may have held one at the fork."""
        ...


class NodeCounters(Generic[R]):
    """The counts of one node, or of all those beyond the limit.

    Args:
        label: The node's id as text.
        recorder: Makes the counters, and records times.

    Attributes:
        label: The same.
        recorder: The same.
        picks: How often it was chosen, by strategy.
        outcomes: How many requests ended, by outcome.
        transitions: How often its health changed, by old and new state.
        cooldowns: How often a cooldown began.
        ejections: How often it was ejected, by rule.

    Thread-safety: the counts are exact, without a lock.
    """

    __slots__ = (
        "cooldowns",
        "ejections",
        "label",
        "outcomes",
        "picks",
        "recorder",
        "transitions",
    )

    def __init__(self, label: str, recorder: R) -> None:
        self.label = label
        self.recorder = recorder
        self.picks: Counts[str] = {}
        self.outcomes: Counts[str] = {
            outcome.value: recorder.counter("requests", outcome.value) for outcome in Outcome
        }
        self.transitions: Counts[tuple[str, str]] = {}
        self.cooldowns = recorder.counter("cooldowns")
        self.ejections: Counts[str] = {}
