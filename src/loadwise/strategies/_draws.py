"""Random draws shared by the randomised strategies.

The default source is the module-level generator of `random`: seeded by the system, and seeded
anew by Python itself in every forked child, so workers of one parent do not draw alike. The
`random()` of a `random.Random` is one C call, so sharing one between threads is safe.
"""

from __future__ import annotations

import random
from copy import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from collections.abc import Set as AbstractSet

__all__ = ["check_rng", "draw_one", "fork_of", "source_of"]

_MOST_TRIES = 8


def check_rng(rng: random.Random | None) -> None:
    """Raise unless ``rng`` can be drawn from."""
    if rng is not None and not callable(getattr(rng, "random", None)):
        raise TypeError(f"rng is {rng!r}; it must be a random.Random, or None for the shared one")


def source_of(rng: random.Random | None) -> Callable[[], float]:
    """Return the function that draws a float in [0, 1)."""
    return random.random if rng is None else rng.random


def fork_of(rng: random.Random | None) -> Callable[[], float]:
    """Return a function that will draw what ``rng`` would, leaving ``rng`` as it is."""
    if rng is None:
        twin = random.Random()
        twin.setstate(random.getstate())
        return twin.random
    try:
        return copy(rng).random
    except NotImplementedError:  # random.SystemRandom has no state that a draw could change
        return rng.random


def draw_one(
    eligible: Sequence[int], draw: Callable[[], float], exclude: AbstractSet[int]
) -> int | None:
    """Draw one index uniformly among those not excluded."""
    count = len(eligible)
    if not count:
        return None
    for _ in range(_MOST_TRIES):
        index = eligible[int(draw() * count)]
        if index not in exclude:
            return index
    rest = [i for i in eligible if i not in exclude]
    return rest[int(draw() * len(rest))] if rest else None
