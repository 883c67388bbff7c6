"""LookPace at which a source is asked: as it says, with jitter, and slower while it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["LONGEST_BACKOFF", "LookPace"]

LONGEST_BACKOFF: Final = 10.0
"""Most seconds after an error until the source is asked again."""
_FIRST_BACKOFF: Final = 0.25
_MOST_DOUBLINGS: Final = 10
_JITTER: Final = 0.1
_LEAST_GAP: Final = 0.002
"""Seconds; a source whose every answer is at once the next one would else never let go."""


class LookPace:
    """Delays before the next look at a source.

    After the k-th error in a row it is half to all of ``0.25 * 2**k`` seconds, 10 at most: never
    nothing, and not the same for all who wait for the same server.

    Args:
        draw: Returns a random float in [0, 1).

    Not thread-safe: it belongs to the thread that asks.

    Example:
        >>> pace = LookPace(lambda: 0.5)
        >>> [pace.after_error(None) for _ in range(3)]
        [0.1875, 0.375, 0.75]
        >>> pace.after_answer(30.0, is_empty=False)
        31.5
    """

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._errors = 0

    def after_answer(self, again: float, *, is_empty: bool) -> float:
        """Return the seconds to wait after an answer; never fewer than it says, if it has nodes."""
        self._errors = 0
        if is_empty:
            again = min(again, LONGEST_BACKOFF / (1.0 + _JITTER))
        return max(again * (1.0 + _JITTER * self._draw()), _LEAST_GAP)

    def after_error(self, again: float | None) -> float:
        """Return the seconds to wait after an error.

        Args:
            again: Seconds that the error itself names, if it does.
        """
        most = min(LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(self._errors, _MOST_DOUBLINGS))
        self._errors += 1
        if again is not None:
            return max(min(again, LONGEST_BACKOFF), _LEAST_GAP)
        return most * (0.5 + 0.5 * self._draw())
