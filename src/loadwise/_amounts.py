"""Amounts as people read them: times, rates, counts, shares."""

from __future__ import annotations

from typing import Final

__all__ = ["count", "figure", "in_words", "latency", "percent", "plural"]

_UNITS: Final = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))
_TWO_OF: Final = 2.0
"""From two of a unit on it says enough."""


def in_words(seconds: float) -> str:
    """Return a length of time in one unit, as far as anybody wants to know it.

    Example:
        >>> [in_words(each) for each in (0.4, 12.3, 100.0, 600.0, 9000.0, 400_000.0)]
        ['0.4 s', '12 s', '100 s', '10 min', '2 h', '5 d']
    """
    for size, unit in _UNITS:
        if seconds >= _TWO_OF * size:
            return f"{seconds / size:,.0f} {unit}"
    tenths = round(seconds, 1)
    return f"{tenths:.1f} s" if 0 < tenths < 1 else f"{seconds:.0f} s"


def latency(seconds: float) -> str:
    """Return a latency with its unit.

    Example:
        >>> [latency(each) for each in (0.00042, 0.0123, 0.8, 2.25, 75.0)]
        ['0.42 ms', '12 ms', '800 ms', '2.2 s', '75 s']
    """
    if seconds >= 1:
        return f"{figure(seconds)} s"
    return f"{figure(1000 * seconds)} ms"


def figure(value: float) -> str:
    """Return a number with two digits that count, or all of its whole ones.

    Example:
        >>> [figure(each) for each in (0.0, 0.0417, 3.14, 31.4, 31_415.9)]
        ['0', '0.042', '3.1', '31', '31,416']
    """
    return f"{value:,.0f}" if value >= 10 or not value else f"{value:.2g}"  # noqa: PLR2004


def count(number: float) -> str:
    """Return a count in four characters or so.

    Example:
        >>> [count(each) for each in (7, 1234, 98_765, 1_234_567)]
        ['7', '1,234', '98.8k', '1.23M']
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            return f"{number / (1e3 if unit == 'k' else size):.3g}{unit}"
    return f"{number:,.0f}" if float(number).is_integer() else figure(number)


def percent(share: float) -> str:
    """Return a share as a percentage; none but nothing is 0 %, none but all is 100 %.

    Example:
        >>> [percent(each) for each in (0.0, 0.001, 0.5, 0.999, 1.0)]
        ['0 %', '<1 %', '50 %', '>99 %', '100 %']
    """
    rounded = round(100 * share)
    if share > 0 and not rounded:
        return "<1 %"
    if share < 1 and rounded >= 100:  # noqa: PLR2004 - all of them
        return ">99 %"
    return f"{rounded} %"


def plural(number: int, thing: str) -> str:
    """Return a number of things.

    Example:
        >>> plural(1, "node"), plural(2000, "node")
        ('1 node', '2,000 nodes')
    """
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
