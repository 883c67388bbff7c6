"""Sources of random floats: one for all threads, or one for each.

The default source is the module-level generator of `random`: seeded by the system, and seeded
again by Python itself in every forked child, so workers of one parent do not draw alike. The
`random()` of a `random.Random` is one C call, so sharing one between threads is safe.

Safe, but not fast where threads truly run at the same time: without the GIL each draw would wait
for the others. There each thread draws from a generator of its own, seeded by the system, too.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import copy
from threading import local

from loadwise._fork import call_in_child
from loadwise._gil import HAS_GIL

__all__ = ["OwnDraws", "check_rng", "fork_of", "random_of_this_thread", "source_of"]


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
call_in_child(_own.renew)


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


class OwnDraws:
    """Random floats for one object alone, so that what it draws next can be foretold.

    Strategies that ask others draw from it: what those draw does not change what it draws.

    Args:
        rng: The source to draw from; ``None`` for one of its own, which the shared one of the
            `random` module seeds: so `random.seed` makes it repeatable, too.
        shared: Whether all threads draw from the same one of its own.

    Attributes:
        random: Draws a float in [0, 1).
    """

    __slots__ = ("_given", "_source", "_threads", "random")

    def __init__(self, rng: random.Random | None, *, shared: bool = HAS_GIL) -> None:
        self._given = rng is not None
        self._threads = _OfThread()
        self._source = random.Random(random.getrandbits(64)) if rng is None and shared else rng
        self.random = self._of_this_thread if self._source is None else self._source.random

    def renew(self) -> None:
        """Take another seed, unless the source was given: in a forked child."""
        self._threads = _OfThread()
        if not self._given and self._source is not None:
            self._source.seed()

    def _of_this_thread(self) -> float:
        return self._threads.source.random()

    def fork(self) -> Callable[[], float]:
        """Return a function that will draw what `random` would, leaving that as it is."""
        return fork_of(self._threads.source if self._source is None else self._source)
