"""How a request ended, as far as its node is concerned."""

from __future__ import annotations

from enum import Enum

__all__ = ["Outcome"]


class Outcome(Enum):
    """How a request ended.

    Only ``SUCCESS`` and ``FAILURE`` say something about a node's health. A rate limit says that
    the node works and wants a pause; a cancellation, that the caller gave up.
    """

    SUCCESS = "success"
    FAILURE = "failure"
    RATE_LIMITED = "rate_limited"
    CANCELLED = "cancelled"
