"""What can be asked of a quota that processes share."""

from __future__ import annotations

import math

from loadwise.integrations.redis._parsing import EXACT
from loadwise.quota import QuotaConfig, QuotaDimension
from loadwise.quota.tracker import Amounts, _NodeQuota

__all__ = ["check_shareable", "full_amounts", "needs"]

_FINEST = 500
_LONGEST_WINDOW = 366 * 86_400


def full_amounts(node: _NodeQuota, amounts: Amounts) -> dict[str, float]:
    """Return what a request is charged in every dimension, default costs included."""
    return {
        name: amounts.get(name, window.dimension.default_cost)
        for name, window in node.windows.items()
    }


def needs(dimension: QuotaDimension, amounts: Amounts) -> float:
    """Return the room that a request needs: where it costs nothing by default, a trace of it."""
    amount = amounts.get(dimension.name)
    if amount is None:
        return dimension.default_cost or math.ulp(dimension.limit)
    return amount


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
