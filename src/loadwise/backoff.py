"""Delays before the next round of attempts, after one that failed on every node."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

from loadwise._numbers import finite, shown

__all__ = ["Backoff"]

_MOST_DOUBLINGS: Final = 1023
"""A float holds no higher power of two."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that grow from round to round of a request's attempts.

    After round ``k``, from 0 on, the wait is at most ``min(cap, base * 2**k)`` seconds. With
    jitter it is anything from 0 to that, drawn each time, so that clients that failed
    together do not come back together.

    Args:
        base: Seconds, finite and > 0: the most after the first round.
        cap: Seconds, finite and at least ``base``: the most after any round.
        jitter: Whether the wait is drawn at random; else it is the most it can be.
        rng: Source of randomness; ``None`` for the shared one of the `random` module.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: ``base`` or ``cap`` is out of range.

    Thread-safety: immutable, and as thread-safe as ``rng`` is. One may serve many balancers.

    Cost: O(1).

    Source: "full jitter" of Marc Brooker, *Exponential Backoff And Jitter*, 2015.

    Example:
        >>> backoff = Backoff(base=0.1, cap=1.0, jitter=False)
        >>> [backoff.delay(k) for k in range(5)]
        [0.1, 0.2, 0.4, 0.8, 1.0]
    """

    base: float = 0.05
    cap: float = 2.0
    jitter: bool = True
    rng: random.Random | None = field(default=None, repr=False, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        base, cap = finite("base", self.base), finite("cap", self.cap)
        if not base > 0:
            raise ValueError(
                f"base is {self.base!r}; it must be a finite number of seconds above 0"
            )
        if not cap >= base:
            raise ValueError(
                f"cap is {self.cap!r}; it must be a finite number of seconds, at least the base "
                f"of {base:g}"
            )
        if not isinstance(self.jitter, bool):
            raise TypeError(f"jitter is {shown(self.jitter)}; it must be True or False")
        if self.rng is not None and not callable(getattr(self.rng, "random", None)):
            raise TypeError(
                f"rng is {shown(self.rng)}; it must be a random.Random, or None for the shared one"
            )
        object.__setattr__(self, "base", base)
        object.__setattr__(self, "cap", cap)

    def delay(self, k: int) -> float:
        """Return the seconds to wait after round ``k``, counted from 0; it may draw at random."""
        most = min(self.cap, self.base * 2.0 ** min(k, _MOST_DOUBLINGS))
        if not self.jitter:
            return most
        draw = random.random if self.rng is None else self.rng.random
        return most * draw()
