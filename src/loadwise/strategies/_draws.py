"""Random draws shared by the randomised strategies.

The default source is the module-level generator of `random`: seeded by the system, and seeded
anew by Python itself in every forked child, so workers of one parent do not draw alike. The
`random()` of a `random.Random` is one C call, so sharing one between threads is safe.

Safe, but not fast where threads truly run at the same time: without the GIL each draw would wait
for the others. There each thread draws from a generator of its own, seeded by the system, too.
"""

from __future__ import annotations

import os
import random
from bisect import bisect_left, bisect_right
from copy import copy
from threading import local
from typing import TYPE_CHECKING

from loadwise._gil import HAS_GIL
from loadwise.strategies._planned import none_left

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from collections.abc import Set as AbstractSet

__all__ = [
    "check_rng",
    "draw_one",
    "fork_of",
    "position_besides",
    "positions_of",
    "random_of_this_thread",
    "source_of",
]

_MOST_TRIES = 8


def check_rng(rng: random.Random | None) -> None:
    """Raise unless ``rng`` can be drawn from."""
    if rng is not None and not callable(getattr(rng, "random", None)):
        raise TypeError(f"rng is {rng!r}; it must be a random.Random, or None for the shared one")


class _OfThread(local):
    """A generator for each thread that asks."""

    def __init__(self) -> None:
        self.source = random.Random()

    def renew(self) -> None:
        """Take another seed: in a forked child, which would draw what its parent draws."""
        self.source = random.Random()


_own = _OfThread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_own.renew)


def random_of_this_thread() -> float:
    """Draw a float in [0, 1) from the generator of the calling thread."""
    return _own.source.random()


def source_of(rng: random.Random | None, *, shared: bool = HAS_GIL) -> Callable[[], float]:
    """Return the function that draws a float in [0, 1), by default ``shared`` by all threads."""
    if rng is not None:
        return rng.random
    return random.random if shared else random_of_this_thread


def fork_of(rng: random.Random | None, *, shared: bool = HAS_GIL) -> Callable[[], float]:
    """Return a function that will draw what ``rng`` would, leaving ``rng`` as it is."""
    if rng is None and shared:
        twin = random.Random()
        twin.setstate(random.getstate())
        return twin.random
    rng = _own.source if rng is None else rng
    try:
        return copy(rng).random
    except NotImplementedError:  # random.SystemRandom has no state that a draw could change
        return rng.random


def draw_one(
    eligible: Sequence[int], draw: Callable[[], float], exclude: AbstractSet[int]
) -> int | None:
    """Draw one index uniformly among those not excluded."""
    count = len(eligible)
    # Ahead of any draw, for what declines after one cannot be foretold.
    if none_left(eligible, exclude):
        return None
    for _ in range(_MOST_TRIES):
        index = eligible[int(draw() * count)]
        if index not in exclude:
            return index
    rest = [i for i in eligible if i not in exclude]
    return rest[int(draw() * len(rest))]


def positions_of(indices: Iterable[int], eligible: Sequence[int]) -> list[int]:
    """Return at which positions of ``eligible``, which is ascending, the indices stand, ascending.

    O(log n) for each.
    """
    found: list[int] = []
    for index in sorted(indices):
        position = bisect_left(eligible, index)
        if position < len(eligible) and eligible[position] == index:
            found.append(position)
    return found


def position_besides(sums: Sequence[float], out: Sequence[int], unit: float) -> int:
    """Return a position with a chance proportional to its weight, none of ``out``.

    Args:
        sums: Of the weights up to each position, the position's own included.
        out: Positions to leave out, ascending, and not all there are.
        unit: A float drawn from [0, 1).

    Cost: O(log n), and O(1) for each one to leave out.
    """
    parts = [sums[p] - sums[p - 1] if p else sums[p] for p in out]
    target = unit * max(0.0, sums[-1] - sum(parts))
    for position, part in zip(out, parts, strict=True):
        if sums[position] - part <= target:
            target += part
    found = min(bisect_right(sums, target), len(sums) - 1)
    # Rounding may leave it on one of those.
    while found in out:
        found = (found + 1) % len(sums)
    return found
