"""Errors of the simulator."""

from __future__ import annotations

from loadwise.errors import LoadwiseError

__all__ = ["ConservationError", "ScenarioError"]


class ScenarioError(LoadwiseError, ValueError):
    """A scenario, its file or its trace is not as it must be; the message says where and what."""


class ConservationError(LoadwiseError):
    """Requests got lost or were made up in a simulation: a fault of the simulator."""
