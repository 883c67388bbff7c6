"""The layout of scenario files."""

from __future__ import annotations

from loadwise._tables.schema import FileLayout
from loadwise.simulation.scenario.records import Scenario

__all__ = ["SCENARIO"]

SCENARIO = FileLayout(Scenario, "scenario")
