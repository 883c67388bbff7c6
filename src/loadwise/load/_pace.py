"""Pace of a node: how many seconds it takes to compute a token of a prompt."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from statistics import median_low
from typing import Final

__all__ = ["Pace", "relative_paces"]

_KEPT: Final = 7
"""Spans of which the median counts: three may be outliers."""
_ENOUGH: Final = 3
"""Spans before a node counts as measured."""
_PROMPTS: Final = 4
"""First bytes of a span, where the node is never idle."""
_SHORT: Final = 1 / 16
"""Of the mean prompt: the first byte of one as short tells of what all prompts take besides."""
_GAIN: Final = 0.125
"""Weight of the newest in a moving average."""
_ALIKE: Final = 1.25
"""Paces that differ by no more than this factor from the typical one count as the same."""
_MOST: Final = 16.0
"""Factor by which a pace may differ from the typical one."""
_STALE: Final = 64
"""Prompts sent to each node on average, after which a node's pace is forgotten."""


class Pace:
    """Seconds that one node takes to compute a token of a prompt, from when first bytes come.

    The time that a node has prompts to compute is cut into spans. A span ends when the node has
    nothing left to compute, or after a few first bytes; it has the tokens of a mean prompt at
    least. Its seconds by its tokens are what the node
    needs for a token, in whichever order, and however many at a time, it computes the prompts. What
    each prompt takes besides is taken off, as told by prompts that are cached but for their end. Of
    the last spans the median counts, so an answer that hangs changes nothing, nor does a prompt
    that was cached after all.

    Attributes:
        turn: Number of the prompt, of all that the measure was told of, with which the last span
            ended.

    Not thread-safe: it is called under the lock of its node.
    """

    __slots__ = (
        "_alone",
        "_mark",
        "_mean",
        "_overhead",
        "_prompts",
        "_seconds",
        "_spans",
        "_spoiled",
        "_tokens",
        "turn",
    )

    def __init__(self) -> None:
        self._spans: deque[float] = deque(maxlen=_KEPT)
        self._overhead = 0.0
        self._mean = 0.0
        self._mark = 0.0
        self._alone = False
        self._spoiled = False
        self._prompts = 0
        self._seconds = self._tokens = 0.0
        self.turn = 0

    def begin(self, now: float, *, idle: bool) -> None:
        """Record that a prompt was sent, to a node that was idle or not."""
        self._alone = idle
        if idle:
            self._mark, self._spoiled = now, False

    def heard(self, moment: float) -> None:
        """Take note that the node began anew then, or had computed a prompt, of somebody else."""
        self._mark = max(self._mark, moment)

    def first_byte(self, tokens: float, now: float, turn: int, *, idle: bool) -> None:
        """Record that a prompt of so many uncached tokens was computed; the node is idle now."""
        seconds, self._mark = now - self._mark, now
        self._mean += (tokens - self._mean) * (_GAIN if self._mean else 1.0)
        spoiled, self._spoiled = self._spoiled, False
        if spoiled or seconds < 0.0:
            return
        if idle and self._alone and tokens <= _SHORT * self._mean:
            known = self._overhead or seconds
            self._overhead = known + _GAIN * (min(seconds, 4 * known) - known)
        self._prompts += 1
        self._seconds += seconds
        self._tokens += tokens
        if self._tokens >= self._mean and (idle or self._prompts >= _PROMPTS):
            self._end(turn)

    def spoil(self) -> None:
        """Record that a prompt has gone without a first byte: what it took is not known."""
        self._spoiled = True

    def _end(self, turn: int) -> None:
        besides = min(self._prompts * self._overhead, 0.75 * self._seconds)
        self._spans.append((self._seconds - besides) / self._tokens)
        self._prompts, self._seconds, self._tokens = 0, 0.0, 0.0
        self.turn = turn

    @property
    def seconds(self) -> float:
        """Seconds for a token; 0 if it is not known."""
        spans = [*self._spans]
        return median_low(spans) if len(spans) >= _ENOUGH else 0.0


def relative_paces(
    paces: Sequence[Pace], parts: Sequence[float] | None, turn: int
) -> list[float] | None:
    """Return what nodes need for a token, by what is typical of them; ``None`` if all are alike.

    A node whose pace is not known, or was measured too long ago, is taken to be typical. O(n log n)

    Args:
        paces: The nodes'.
        parts: Their weights, each of which is a speed until the pace is known; ``None`` if they are
            alike.
        turn: Number of the last prompt sent.
    """
    oldest = turn - _STALE * len(paces)
    found = [pace.seconds if pace.turn >= oldest else 0.0 for pace in paces]
    if parts is not None:
        found = [seconds * part for seconds, part in zip(found, parts, strict=True)]
    known = sorted(filter(None, found))
    if len(known) < 2:  # noqa: PLR2004 - one alone is typical
        return None
    typical = known[(len(known) - 1) // 2]
    ratios = [seconds / typical if seconds else 1.0 for seconds in found]
    ratios = [min(max(ratio, 1 / _MOST), _MOST) for ratio in ratios]
    ratios = [1.0 if 1 / _ALIKE <= ratio <= _ALIKE else ratio for ratio in ratios]
    return None if ratios == [1.0] * len(ratios) else ratios
