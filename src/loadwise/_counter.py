"""Exact counting by many threads without a lock.

``next`` on an `itertools.count` is one C call: atomic under the GIL, and a compare-and-swap on
free-threaded builds from 3.13 on. ``x += 1`` is neither.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["upcoming"]


def upcoming(counter: Iterator[int]) -> int:
    """Return the number that ``next(counter)`` would give, without taking it."""
    # The repr, "count(7)", is the only way to read it that neither advances it nor is deprecated
    # (copying and pickling of iterators are).
    return int(repr(counter)[6:-1])
