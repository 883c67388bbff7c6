"""History of the last two minutes, of one balancer's nodes."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Final, NamedTuple

__all__ = ["POINTS", "STEP", "History", "Point"]

POINTS: Final = 60
"""Points of a sparkline."""
STEP: Final = 2.0
"""Seconds from point to point, at least."""
_GAP: Final = 15.0
"""Seconds between two samples from which on their difference says little."""


class Point(NamedTuple):
    """One point of a node's history.

    Attributes:
        seconds: How long ago it ends.
        rate: Picks per second since the point before; ``None`` if that is not known.
        severity: How bad the node's state was, as `Severity` has it.
    """

    seconds: float
    rate: float | None
    severity: int


class _Sample(NamedTuple):
    """Counts of all nodes at one moment, in the order of ``places``."""

    when: float
    places: dict[Hashable, int]
    picks: array[int]
    severities: bytes


class History:
    """Keeps counts of the last `POINTS` samples, at least `STEP` seconds apart.

    It takes 9 bytes a node and sample: 5 MB for 10,000 nodes.

    Not thread-safe: its owner holds a lock. Cost: O(n) to add a sample, O(`POINTS`) to read a node.
    """

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque(maxlen=POINTS + 1)

    def add(
        self, when: float, ids: Sequence[Hashable], picks: Sequence[int], severities: bytes
    ) -> None:
        """Add a sample, unless the last one is younger than a step."""
        if self._samples and when - self._samples[-1].when < STEP:
            return
        places = self._samples[-1].places if self._samples else {}
        if len(places) != len(ids) or any(
            one is not other and one != other for one, other in zip(places, ids, strict=True)
        ):
            places = {identity: place for place, identity in enumerate(ids)}
        self._samples.append(_Sample(when, places, array("q", picks), severities))

    def rates(self, when: float) -> Callable[[Hashable, int], float | None]:
        """Return what tells a node's picks per second now; ``None`` for what is not known yet.

        It is a function of the node's id, and how often it was chosen since it joined.
        """
        for sample in reversed(self._samples):
            if when - sample.when >= STEP / 2:
                return partial(_rate, sample, when)
        return lambda _, __: None

    def points(self, identity: Hashable, now: float) -> list[Point]:
        """Return a node's history, the oldest first."""
        found: list[Point] = []
        before: _Sample | None = None
        for sample in self._samples:
            place = sample.places.get(identity)
            if place is not None:
                rate = None
                if before is not None:
                    rate = _rate(before, sample.when, identity, sample.picks[place])
                found.append(Point(now - sample.when, rate, sample.severities[place]))
            before = sample
        return found


def _rate(before: _Sample, when: float, identity: Hashable, picks: int) -> float | None:
    place, seconds = before.places.get(identity), when - before.when
    if place is None or seconds <= 0 or seconds > _GAP:
        return None
    # A node that left and came back counts from zero again.
    return None if picks < before.picks[place] else (picks - before.picks[place]) / seconds
