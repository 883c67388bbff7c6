"""Values as JSON has them."""

from __future__ import annotations

import math
from enum import Enum
from typing import Any, Final

__all__ = ["as_json"]

_PLAIN: Final = frozenset({str, int, bool})


def as_json(value: object) -> Any:  # noqa: ANN401 - what JSON holds is of many types
    """Return a single value as JSON has it.

    Numbers that JSON lacks, NaN and the infinities, become ``None``, members of an enumeration
    their names, and what JSON has no word for its text.

    Example:
        >>> [as_json(value) for value in ("a", 1, float("inf"), ("10.0.0.1", 80))]
        ['a', 1, None, "('10.0.0.1', 80)"]
    """
    if value is None or type(value) in _PLAIN:  # by far the most
        return value
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, str):
        return str.__str__(value)  # of a subclass, the text and not what it says of itself
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return str(value)
