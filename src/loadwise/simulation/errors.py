"""What is raised when a scenario cannot be used."""

from __future__ import annotations

from loadwise.errors import LoadwiseError

__all__ = ["ScenarioError"]


class ScenarioError(LoadwiseError, ValueError):
    """A scenario, its file or its trace is not as it must be; the message says where and what."""
