"""Values and names as plotly can take them, and lists as a reader wants them."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

from loadwise._text import visible, visible_lines

__all__ = ["for_chart", "listed", "markup", "plain", "rank"]


def rank(share: float) -> str:
    """Return a rank as a percentage.

    Example:
        >>> rank(0.5), rank(0.9999)
        ('50 %', '99.99 %')
    """
    return f"{100 * share:.4g} %"


def for_chart(values: Iterable[float]) -> list[float | None]:
    """Return values for a chart: four digits tell all that can be seen, and NaN is a gap."""
    return [float(f"{value:.4g}") if math.isfinite(value) else None for value in values]


def plain(text: str) -> str:
    """Return text that plotly shows as it is; it would take ``<b>`` and ``&amp;`` for markup."""
    return html.escape(visible(text), quote=False)


def markup(text: str) -> str:
    """Return text as HTML that shows it, line by line."""
    return html.escape(visible_lines(text))


def listed(names: Sequence[str], most: int = 6) -> str:
    """Return names as a list in words, cut short when there are many.

    Example:
        >>> listed(["a", "b", "c"]), listed(["a", "b", "c"], most=2)
        ('a, b, c', 'a and 2 more')
    """
    if len(names) <= most:
        return ", ".join(names)
    kept = names[: most - 1]
    return f"{', '.join(kept)} and {len(names) - len(kept)} more"
