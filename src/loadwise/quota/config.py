"""Limits of a node: what it may be asked for per stretch of time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from loadwise._numbers import finite, whole

__all__ = ["QuotaConfig", "QuotaDimension", "as_amount"]


@dataclass(frozen=True, slots=True)
class QuotaDimension:
    """One limit: at most ``limit`` units in any ``window`` seconds.

    Args:
        name: What is counted, such as ``"rpm"`` or ``"tpm"``.
        limit: Units allowed in any window, finite and > 0.
        window: Seconds, finite and > 0.
        resolution: Buckets per window, >= 1. Use is forgotten a bucket at a time: more buckets
            give units back sooner (at most ``window / resolution`` late) and take more memory.
        default_cost: Charged to a request that names no amount for this dimension, >= 0 and at
            most ``limit``.

    Raises:
        TypeError: The name is not a str, the resolution not an int, or another number none.
        ValueError: A number is out of range.

    Example:
        >>> QuotaDimension("tpm", limit=90_000, window=60.0, default_cost=0).limit
        90000
    """

    name: str
    limit: float
    window: float = 60.0
    resolution: int = 6
    default_cost: float = 1

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"the dimension's name is {self.name!r}; it must be a str")
        resolution = whole(f"{self.name}: resolution", self.resolution, 1)
        object.__setattr__(self, "resolution", resolution)
        for field in ("limit", "window"):
            value = getattr(self, field)
            plain = finite(f"{self.name}: {field}", value)
            if not plain > 0:
                raise ValueError(
                    f"{self.name}: {field} is {value!r}; it must be finite and above 0"
                )
            object.__setattr__(self, field, plain)
        cost = finite(f"{self.name}: default_cost", self.default_cost)
        if not 0 <= cost <= self.limit:
            raise ValueError(
                f"{self.name}: default_cost is {self.default_cost!r}; it must be between 0 and "
                f"the limit, {self.limit!r}"
            )
        object.__setattr__(self, "default_cost", cost)


@dataclass(frozen=True, slots=True, init=False)
class QuotaConfig:
    """The limits of one node.

    Args:
        dimensions: One per thing that is counted, each with a name of its own.

    Raises:
        TypeError: An entry is not a `QuotaDimension`.
        ValueError: Two dimensions share a name, or there are none.

    Example:
        >>> config = QuotaConfig([QuotaDimension("rpm", limit=100, window=60.0)])
        >>> [dimension.name for dimension in config.dimensions]
        ['rpm']
    """

    dimensions: tuple[QuotaDimension, ...]

    def __init__(self, dimensions: Iterable[QuotaDimension]) -> None:
        object.__setattr__(self, "dimensions", tuple(dimensions))
        names: set[str] = set()
        for dimension in self.dimensions:
            if not isinstance(dimension, QuotaDimension):
                raise TypeError(f"{dimension!r} is not a QuotaDimension")
            if dimension.name in names:
                raise ValueError(f"two dimensions are named {dimension.name!r}")
            names.add(dimension.name)
        if not names:
            raise ValueError("a QuotaConfig needs at least one QuotaDimension")


def as_amount(name: str, given: float) -> float:
    """Return units of a dimension as a plain number.

    Raises:
        TypeError: It is no number.
        ValueError: It is negative, NaN or infinite.
    """
    amount = finite(f"{name}: the amount", given)
    if not amount >= 0:
        raise ValueError(f"{name}: the amount is {given!r}; it must be finite and at least 0")
    return amount
