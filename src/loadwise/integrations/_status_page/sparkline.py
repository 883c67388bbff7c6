"""Sparklines: a node's picks and its state over the last minutes, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from loadwise._amounts import figure
from loadwise.integrations._status_page.history import POINTS, STEP, Point
from loadwise.integrations._status_page.verdicts import Severity

__all__ = ["sparkline"]

_WIDTH: Final = 120
_HEIGHT: Final = 22
_STRIP: Final = 3
"""Height of the strip below that shows the states."""
_SPAN: Final = POINTS * STEP


def sparkline(points: Sequence[Point], highest: float) -> str:
    """Return a node's history as SVG; its words for those who do not see it included.

    Args:
        points: The history, the oldest first.
        highest: Picks per second at the top.
    """
    known = [point.rate for point in points if point.rate is not None]
    words = "no history yet"
    if known:
        words = f"picks per second: {figure(known[-1])} now, {figure(max(known))} at most"
    return (
        f'<svg class="spark" viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" '
        f'role="img" aria-label="{words}">{_area(points, highest)}{_strip(points)}</svg>'
    )


def _x(point: Point) -> float:
    return max(0.0, _WIDTH * (1 - point.seconds / _SPAN))


def _area(points: Sequence[Point], highest: float) -> str:
    """Return the picks as an area; where they are not known there is a gap."""
    floor = _HEIGHT - _STRIP - 1
    parts: list[str] = []
    run: list[tuple[float, float]] = []

    def close() -> None:
        if len(run) > 1:
            line = "L".join(f"{x:.1f} {y:.1f}" for x, y in run)
            parts.append(f"M{run[0][0]:.1f} {floor}L{line}L{run[-1][0]:.1f} {floor}Z")
        run.clear()

    for point in points:
        if point.rate is None:
            close()
            continue
        run.append((_x(point), floor - (floor - 1) * min(1.0, point.rate / (highest or 1.0))))
    close()
    return f'<path class="area" d="{"".join(parts)}"/>' if parts else ""


def _strip(points: Sequence[Point]) -> str:
    """Return a strip of the times at which the node was not well."""
    parts: dict[int, list[str]] = {}
    for point, following in pairwise([*points, Point(0.0, None, Severity.WELL)]):
        if point.severity < Severity.NOTICE:
            left, right = _x(point), _x(following)
            parts.setdefault(point.severity, []).append(
                f"M{left:.1f} {_HEIGHT}V{_HEIGHT - _STRIP}H{right:.1f}V{_HEIGHT}Z"
            )
    return "".join(
        f'<path class="{Severity(severity).name.lower()}" d="{"".join(paths)}"/>'
        for severity, paths in sorted(parts.items())
    )
