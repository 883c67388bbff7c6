"""Checks of numbers that callers give."""

from __future__ import annotations

import math

__all__ = ["is_finite"]


def is_finite(name: str, value: float) -> bool:
    """Whether ``value`` is a finite float, or an int that a float can hold.

    Raises:
        TypeError: It is no number; the message calls it by ``name``.
    """
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
    except TypeError:
        raise TypeError(f"{name} is {value!r}; it must be a number") from None
