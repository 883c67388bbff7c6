"""Small fleets for the tests of the simulator."""

from __future__ import annotations

from typing import Any

from loadwise.simulation.scenario import Scenario, Servers

__all__ = ["fleet"]


def fleet(**settings: Any) -> Scenario:
    """Return a scenario of four servers that are alike, unless told otherwise."""
    defaults: dict[str, Any] = {"name": "test", "about": "", "servers": Servers(count=4)}
    return Scenario(**defaults | {"warmup": 0.0} | settings)
