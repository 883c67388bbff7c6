"""Figures as people read them: three digits, and a unit that suits the size."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["Written", "duration", "duration_unit", "index", "percentage", "rounded"]

Written = Callable[[float, float | None], str]
"""Writes a value, with as many digits and in the unit that another one would have, if given."""

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))
_MISSING = "-"
_SMALLEST_SHARE = 1e-4


def rounded(value: float, like: float | None = None) -> str:
    """Return a number with three digits, or with as many decimals as another one would have.

    Args:
        value: The number; NaN becomes a dash.
        like: The number that says how many decimals there are; by default the number itself.

    Example:
        >>> rounded(2.6041), rounded(26.041), rounded(2604.1), rounded(0.0131, like=2.6041)
        ('2.60', '26.0', '2,604', '0.01')
    """
    if math.isnan(value):
        return _MISSING
    size = abs(value if like is None else like)
    # What would be rounded up to the next power of ten has the decimals of that power.
    decimals = 2 if size < 9.995 else 1 if size < 99.95 else 0  # noqa: PLR2004
    return f"{value:,.{decimals}f}"


def duration_unit(seconds: float) -> tuple[float, str]:
    """Return the unit that suits a time, as its length in seconds and its name.

    Example:
        >>> duration_unit(0.02)
        (0.001, 'ms')
    """
    for length, name in _UNITS:
        if seconds >= 0.9995 * length:
            return length, name
    return _UNITS[0] if seconds == 0 or math.isnan(seconds) else _UNITS[-1]


def duration(seconds: float, like: float | None = None) -> str:
    """Return a time with the unit that suits it.

    Args:
        seconds: The time; NaN becomes a dash.
        like: The time that says the unit and how many decimals there are; by default the time
            itself.

    Example:
        >>> duration(2.6041), duration(0.0123), duration(0.00045), duration(0.0123, like=2.6041)
        ('2.60 s', '12.3 ms', '450 us', '0.01 s')
    """
    if math.isnan(seconds):
        return _MISSING
    length, name = duration_unit(seconds if like is None else like)
    return f"{rounded(seconds / length, None if like is None else like / length)} {name}"


def index(value: float, like: float | None = None) -> str:  # noqa: ARG001 - all are written so
    """Return an index from 0 to 1, with three decimals; NaN becomes a dash.

    Example:
        >>> index(0.8)
        '0.800'
    """
    return f"{value:.3f}" if math.isfinite(value) else rounded(value)


def percentage(share: float, like: float | None = None) -> str:
    """Return a share in percent, with two digits or so, and with a word for nearly nothing or all.

    Args:
        share: The share; NaN becomes a dash.
        like: The share that says how many decimals there are; by default the share itself.

    Example:
        >>> percentage(0.614), percentage(0.0412), percentage(0.00312), percentage(0.00002)
        ('61 %', '4.1 %', '0.31 %', '< 0.01 %')
        >>> percentage(0.00312, like=0.0412)
        '0.3 %'
    """
    if math.isnan(share):
        return _MISSING
    if like is None and 0 < share < _SMALLEST_SHARE:
        return "< 0.01 %"
    if like is None and 1 - _SMALLEST_SHARE < share < 1:
        return "> 99.99 %"
    percent = 100 * (share if like is None else like)
    decimals = 2 if percent < 0.995 else 1 if percent < 9.95 else 0  # noqa: PLR2004
    if 99 < percent < 100:  # noqa: PLR2004 - nearly all is not all
        decimals = 2
    return f"{100 * share:.{decimals}f} %" if percent else "0 %"
