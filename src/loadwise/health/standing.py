"""A node's record of good answers, which tells the ailing from the dead.

A node that was well and stops answering fails in a way that it never did before: it is dead. One
that fails three requests of four may well fail three in a row: that run says nothing new, and to
rule it out helps only where the others do better.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Final, NamedTuple

__all__ = ["EVERYBODY", "SPOTLESS", "Standing", "TrackedIds"]

_WEIGHT: Final = 0.05
_LEAST_FAILURE_SHARE: Final = 0.01
_UNLIKELY: Final = 0.001
_LAPSES_PER_WINDOW: Final = 10
# In seconds. Below it a float may not be able to hold how many have passed.
_SHORTEST_STEP: Final = 1e-6


class Standing(NamedTuple):
    """A node's share of good answers as of its last success, and when that was.

    Attributes:
        share: Share of good answers, exponentially weighted: a twentieth for each result.
        last_success: When it last answered well, in seconds of the tracker's clock; ``None`` if
            that is not known.

    Example:
        >>> ailing = Standing(share=0.7, last_success=100.0)
        >>> [ailing.explains(failures) for failures in (3, 5, 6)]
        [True, True, False]
        >>> SPOTLESS.explains(3)
        False
    """

    share: float = 1.0
    last_success: float | None = None

    def after_success(self, failures: int, when: float) -> Standing:
        """Return the standing after a success that ended a run of ``failures``."""
        share = self.share * (1.0 - _WEIGHT) ** (failures + 1) + _WEIGHT
        return Standing(share, when)

    @property
    def spotless(self) -> bool:
        """True if it need not be remembered, because it counts as one that never failed."""
        return 1.0 - self.share <= _LEAST_FAILURE_SHARE

    def explains(self, failures: int) -> bool:
        """Tell whether a run of so many failures is one that the node would produce by itself."""
        return max(1.0 - self.share, _LEAST_FAILURE_SHARE) ** failures >= _UNLIKELY

    def counts_until(self, window: float) -> float:
        """Return when the last success is too old to count, in seconds of the tracker's clock.

        It is the end of the ``window`` seconds after it, put off to the next tenth of a window:
        so lapses of many nodes fall together, and each need not change the picture by itself.
        """
        if self.last_success is None:
            return -math.inf
        step = max(window / _LAPSES_PER_WINDOW, _SHORTEST_STEP)
        # Rounded up by floats alone, because a broken clock may return what no int can hold.
        return -(-(self.last_success + window) // step) * step


SPOTLESS: Final = Standing()
"""Standing of a node that is not known."""


class _Everybody:
    """A container of all there is."""

    def __contains__(self, node_id: Hashable) -> bool:
        return True

    def __bool__(self) -> bool:
        return True


EVERYBODY: Final = _Everybody()
"""All ids, where a success of any node could change something."""

TrackedIds = Mapping[Hashable, Standing] | _Everybody
"""Ids of the nodes whose success could change anything."""
