"""Limits of quotas, in a word."""

from __future__ import annotations

from typing import Any

from loadwise import QuotaConfig, QuotaDimension


def rpm(limit: float, window: float = 60.0, **settings: Any) -> QuotaConfig:
    """Return a configuration of one dimension."""
    return QuotaConfig([QuotaDimension("rpm", limit=limit, window=window, **settings)])
