"""Arguments of what is shared, checked when it is made."""

from __future__ import annotations

from typing import Literal, get_args

from loadwise._numbers import finite, number
from loadwise.clock import Clock, check_clock
from loadwise.integrations.redis._parsing import EXACT
from loadwise.quota import QuotaConfig

__all__ = [
    "Mode",
    "OutagePolicy",
    "as_seconds",
    "check_prefix",
    "check_quota_options",
    "check_shareable",
]

Mode = Literal["strict", "leased"]
OutagePolicy = Literal["local", "refuse"]

_FINEST = 500
_LONGEST_WINDOW = 366 * 86_400


def check_prefix(prefix: object) -> None:
    """Refuse what cannot begin a key.

    Raises:
        TypeError: It is no str.
        ValueError: It is empty, or cannot be written in UTF-8.
    """
    if not isinstance(prefix, str):
        raise TypeError(f"prefix is {prefix!r}; it must be a str")
    if not prefix:
        raise ValueError("prefix is empty; then nobody could tell loadwise's keys from others")
    try:
        prefix.encode()
    except UnicodeEncodeError:
        raise ValueError(f"prefix is {prefix!r}; it cannot be written in UTF-8") from None


def as_seconds(name: str, value: float) -> float:
    """Return a stretch of time as a plain number.

    Raises:
        TypeError: It is no number.
        ValueError: It is not finite or not above 0.
    """
    seconds = finite(name, value)
    if not seconds > 0:
        raise ValueError(f"{name} is {value!r}; it must be finite and above 0")
    return seconds


def check_quota_options(
    prefix: object, mode: object, on_outage: object, slice_share: float, clock: Clock
) -> None:
    """Refuse options that no shared quota can have.

    Raises:
        TypeError: One is of the wrong kind.
        ValueError: One is out of range.
    """
    check_prefix(prefix)
    check_clock(clock)
    for name, value, choices in (
        ("mode", mode, get_args(Mode)),
        ("on_outage", on_outage, get_args(OutagePolicy)),
    ):
        if value not in choices:
            raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")
    if not 0 < number("slice_share", slice_share) <= 1:
        raise ValueError(f"slice_share is {slice_share!r}; it must be above 0 and at most 1")


def check_shareable(node_id: str, config: QuotaConfig) -> None:
    """Refuse limits that cannot be shared.

    Raises:
        ValueError: A number is out of range, or a name cannot be written in UTF-8.
    """
    node_id.encode()
    for dimension in config.dimensions:
        dimension.name.encode()
        if dimension.resolution > _FINEST:
            raise ValueError(
                f"{dimension.name}: resolution is {dimension.resolution}; in a shared quota it "
                f"must be at most {_FINEST}"
            )
        for field, most in (("limit", EXACT), ("window", _LONGEST_WINDOW)):
            value = getattr(dimension, field)
            if value > most:
                raise ValueError(
                    f"{dimension.name}: {field} is {value!r}; in a shared quota it must be at "
                    f"most {most}"
                )
