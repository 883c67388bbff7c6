"""The layout of fleet files."""

from __future__ import annotations

from loadwise._tables.schema import FileLayout
from loadwise.config.records import FleetTable

__all__ = ["FLEET"]

FLEET = FileLayout(FleetTable, "fleet")
