"""Exact counting by many threads without a lock.

``next`` on an `itertools.count` is one C call: atomic under the GIL, and a compare-and-swap on
free-threaded builds from 3.13 on. ``x += 1`` is neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import cast

__all__ = ["counter_from", "upcoming"]

_FAR = 2**62


class _FarCount:
    """A count from a number so large that `itertools.count` would count with objects.

    Without the GIL, one of those must not be read while another thread advances it: its repr may
    use a number that is gone. So a small count is advanced, and the rest is added to it.
    """

    __slots__ = ("_count", "_start")

    def __init__(self, start: int) -> None:
        self._start = start
        self._count = count()

    def __iter__(self) -> _FarCount:
        return self

    def __next__(self) -> int:
        return self._start + next(self._count)

    def __repr__(self) -> str:
        return f"count({self._start + upcoming(self._count)})"


def counter_from(start: int) -> count[int]:
    """Return what counts from ``start`` on, and may be read by `upcoming` meanwhile."""
    return count(start) if start < _FAR else cast("count[int]", _FarCount(start))


def upcoming(counter: Iterator[int]) -> int:
    """Return the number that ``next(counter)`` would give, without taking it."""
    # The repr, "count(7)", is the only way to read it that neither advances it nor is deprecated
    # (copying and pickling of iterators are).
    return int(repr(counter)[6:-1])
