"""Numbers that callers give: taken as plain ints and floats, or refused where they are given.

A `decimal.Decimal` does not add up with a float, and a NumPy number brings its own arithmetic. So
each number is turned into an ``int`` or a ``float`` once, where it is given. A bool is no number:
``timeout=True`` is a mistake, not one second.
"""

from __future__ import annotations

import math
import sys
from operator import index as as_index
from typing import SupportsFloat, TypeGuard

from loadwise._text import visible

__all__ = ["finite", "number", "shown", "whole"]

_MOST_SHOWN = 100


def number(name: str, value: object) -> float:
    """Return a real number as a plain ``int`` or ``float``.

    Reals of every kind are taken, such as `fractions.Fraction`, `decimal.Decimal` and those of
    NumPy. Whole numbers of an integer type stay ints.

    Raises:
        TypeError: It is no real number, or a bool; the message calls it by ``name``.
        ValueError: No float can hold it.
    """
    if type(value) is float or (type(value) is int and -(2**53) < value < 2**53):
        return value
    if isinstance(value, bool) or not _is_real(value):
        raise TypeError(f"{name} is {shown(value)}; it must be a number")
    try:
        plain = float(value)
    except OverflowError:
        plain = math.inf
    except ValueError:  # a signalling NaN
        plain = math.nan
    if math.isinf(plain) and not _is_infinite(value):
        raise ValueError(f"{name} is {shown(value)}; it must be a number that a float can hold")
    try:
        return as_index(value)  # type: ignore[arg-type]  # what is no whole number says so
    except TypeError:
        return plain


def finite(name: str, value: object) -> float:
    """Return a finite number as `number` does, and NaN for what is infinite.

    So one comparison tells whether it is in range: every comparison with NaN is false.
    """
    plain = number(name, value)
    return plain if math.isfinite(plain) else math.nan


def whole(name: str, value: object, least: int | None = None) -> int:
    """Return a whole number as a plain ``int``.

    Args:
        name: What the messages call it.
        value: An int, or what serves as one, such as those of NumPy.
        least: The lowest that is allowed.

    Raises:
        TypeError: It is no int, or a bool.
        ValueError: It is below ``least``.
    """
    try:
        if isinstance(value, bool):
            raise TypeError  # noqa: TRY301 - as what is no int at all
        plain = as_index(value)  # type: ignore[arg-type]  # that is what is found out
    except TypeError:
        raise TypeError(f"{name} is {shown(value)}; it must be an int") from None
    if least is not None and plain < least:
        raise ValueError(f"{name} is {shown(plain)}; it must be at least {least}")
    return plain


def shown(value: object) -> str:
    """Return a value as messages show it: its repr, cut short."""
    try:
        text = visible(repr(value))
    except Exception:  # noqa: BLE001 - such as an int of too many digits
        return f"<{type(value).__name__}>"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _is_real(value: object) -> TypeGuard[SupportsFloat]:
    if isinstance(value, (int, float)):
        return True
    from numbers import Real  # noqa: PLC0415 - a twentieth of what importing loadwise takes

    if isinstance(value, Real):
        return True
    decimal = sys.modules.get("decimal")
    return decimal is not None and isinstance(value, decimal.Decimal)


def _is_infinite(value: object) -> bool:
    try:
        return bool(value in (math.inf, -math.inf))
    except (ArithmeticError, TypeError, ValueError):
        return False
