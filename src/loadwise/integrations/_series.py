"""What is counted of one node.

An event must cost next to nothing, so nothing here knows labels or families: the counts are plain
objects that belong to one node, and are put into a monitoring system's terms when it asks.
"""

from __future__ import annotations

from itertools import count
from typing import TypeVar

from loadwise._counter import upcoming
from loadwise.outcome import Outcome

__all__ = ["OTHER", "Counts", "NodeSeries", "bump", "totals"]

K = TypeVar("K")

Counts = dict[K, "count[int]"]

OTHER = "other"
"""The label of whatever is beyond a limit."""

_MOST_KEYS = 50


def bump(counts: Counts[str], key: str) -> None:
    """Count one more under ``key``; keys beyond the first 50 go to ``"other"``.

    Reasons are free text, and text that varies must not make a series of every request.
    """
    counter = counts.get(key)
    if counter is None:
        counter = counts.setdefault(key if len(counts) < _MOST_KEYS else OTHER, count())
    next(counter)


def totals(counts: Counts[K]) -> dict[K, int]:
    """Return the counts that are not 0."""
    numbers = {key: upcoming(counter) for key, counter in counts.copy().items()}
    return {key: number for key, number in numbers.items() if number}


class NodeSeries:
    """The counts of one node, or of all those beyond the limit.

    Attributes:
        label: The node's id as text.
        picks: How often it was chosen, by strategy.
        outcomes: How many requests ended, by outcome.
        transitions: How often its health changed, by old and new state.
        cooldowns: How often a cooldown began.

    Thread-safety: the counts are exact, without a lock.
    """

    __slots__ = ("cooldowns", "label", "outcomes", "picks", "transitions")

    def __init__(self, label: str) -> None:
        self.label = label
        self.picks: Counts[str] = {}
        self.outcomes: Counts[str] = {outcome.value: count() for outcome in Outcome}
        self.transitions: Counts[tuple[str, str]] = {}
        self.cooldowns = count()

    def observe(self, latency: float) -> None:
        """Take note of how many seconds a request took, or waited."""
        raise NotImplementedError

    def after_fork(self) -> None:
        """Replace locks, of which another thread may have held one at the fork."""
