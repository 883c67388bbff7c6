"""Shares of groups: those that are given, checked, and what they come to in per cent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from loadwise._numbers import finite, shown

__all__ = ["check_overprovisioning", "check_shares", "scaled"]

_ALL: Final = 100.0
_LARGE: Final = 1e300


def check_overprovisioning(value: object) -> float:
    """Return an overprovisioning factor.

    Raises:
        TypeError: It is no number.
        ValueError: It is below 1, NaN or infinite.
    """
    factor = finite("overprovisioning", value)
    if not factor >= 1:
        raise ValueError(
            f"overprovisioning is {shown(value)}; it must be a finite number, at least 1: 1.4 lets "
            f"two of seven nodes go down before requests go elsewhere, 1 none"
        )
    return factor


def check_shares(name: str, given: object, example: str) -> dict[Any, float]:
    """Return a mapping of shares, which need not add up to anything.

    Raises:
        TypeError: It is no mapping, or a share is no number.
        ValueError: It is empty, all shares are 0, or one is negative, NaN or infinite.
    """
    if not isinstance(given, Mapping):
        raise TypeError(f"{name} is {shown(given)}; give a mapping, such as {example}")
    wanted = cast("Mapping[object, object]", given)
    found: dict[Any, float] = {}
    for key, value in wanted.items():
        found[key] = finite(f"{name}[{key!r}]", value)
        if not found[key] >= 0:
            raise ValueError(
                f"{name}[{key!r}] is {shown(value)}; it must be a finite number, at least 0"
            )
    if not any(found.values()):
        raise ValueError(
            f"{name} is {shown(wanted)}, of which nobody is given anything; name at least one with "
            f"a number above 0, such as {example}"
        )
    return found


def scaled(parts: Sequence[float], to: float = _ALL) -> list[float]:
    """Return parts scaled so that they sum up to so many per cent; of nothing, the first is all."""
    largest = max(parts, default=0.0)
    if not largest:
        return [to if position == 0 else 0.0 for position in range(len(parts))]
    if largest > _LARGE:  # their sum could overflow
        parts = [part / largest for part in parts]
    in_all = sum(parts)
    return [to * part / in_all for part in parts]
