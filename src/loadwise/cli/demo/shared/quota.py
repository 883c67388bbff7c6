"""The quotas of ``loadwise demo --shared``: what each server allows all clients together."""

from __future__ import annotations

import math

from loadwise.cli.demo.fleet import PROFILES
from loadwise.cli.demo.plan import Plan
from loadwise.quota import QuotaConfig, QuotaDimension

__all__ = ["SCARCE", "WINDOW", "config_of", "limits_of", "most_in_any_window"]

SCARCE = "fast-1"
WINDOW = 1.0
# A request counts from when it is granted, and the server counts it when it arrives. Kept over a
# longer stretch, the limit holds at the server even if a request is that much longer on its way
# than those that follow.
_ON_THE_WAY = 0.25

# Of the rate of requests. A fast server gets a quarter of them if it may.
_SCARCE_SHARE = 0.08
_AMPLE_SHARE = 1.5
_LEAST = 2


def limits_of(plan: Plan) -> dict[str, int]:
    """Return how many requests in any `WINDOW` each server allows, by name."""
    rate = plan.requests / plan.seconds
    scarce = max(_LEAST, round(rate * WINDOW * _SCARCE_SHARE))
    ample = math.ceil(rate * WINDOW * _AMPLE_SHARE)
    return {each.name: scarce if each.name == SCARCE else ample for each in PROFILES}


def config_of(limit: int) -> QuotaConfig:
    """Return what a client keeps to, for a server with this limit."""
    return QuotaConfig([QuotaDimension("requests", limit=limit, window=WINDOW + _ON_THE_WAY)])


def most_in_any_window(times: list[float]) -> int:
    """Return the most of these moments that any `WINDOW` holds, wherever it begins.

    Example:
        >>> most_in_any_window([0.0, 0.5, 0.9, 1.0, 1.4])
        4
    """
    ordered = sorted(times)
    most = first = 0
    for last, time in enumerate(ordered):
        while time - ordered[first] >= WINDOW:
            first += 1
        most = max(most, last - first + 1)
    return most
