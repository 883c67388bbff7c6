"""Fleet files for tests."""

from __future__ import annotations

from typing import Any

import pytest

from loadwise.config import ConfigError, load_balancer

__all__ = ["FULL", "PLAIN", "refusal"]

PLAIN: dict[str, Any] = {"nodes": ["a:1", "b:1"]}
FULL: dict[str, Any] = {
    "schema": 1,
    "name": "search",
    "strategy": "tiers/slow-start",
    "tau": 5.0,
    "nodes": [
        {"id": "a:1", "weight": 3, "zone": "eu-1", "priority": 1, "tags": {"rack": "r1"}},
        {"id": "b:1", "zone": "eu-2"},
        "c:1",
    ],
    "clients": {"count": 2, "zone": "eu-1"},
    "callers": {"attempts": 2, "budget": "30%"},
    "health": {"failure_threshold": 5, "panic_threshold": "none", "jitter": 0.5},
    "outliers": {"interval": 5, "failure_share": "none"},
    "slow_start": {"window": 30.0},
    "limits": {"max_in_flight": 8, "max_waiting": 100},
    "quotas": [
        {"name": "rpm", "limit": 60},
        {"name": "tpm", "limit": 1000, "counts": "tokens", "nodes": ["a:1", "b:1"]},
        {"name": "spm", "limit": 9, "aware": False},
    ],
}
"""A fleet with something in every table."""


def refusal(fleet: Any, *settings: str) -> tuple[str, ...]:
    """Return all that is said of a fleet that is refused."""
    with pytest.raises(ConfigError) as caught:
        load_balancer(fleet, settings)
    return caught.value.problems
