"""Outcomes of requests, as far as their nodes are concerned."""

from __future__ import annotations

from enum import Enum

from loadwise._numbers import shown

__all__ = ["Outcome", "check_outcome"]


class Outcome(Enum):
    """End of a request, by its kind.

    Only ``SUCCESS`` and ``FAILURE`` say something about a node's health. A rate limit says that
    the node works and needs a cooldown; a cancellation, that the caller gave up.
    """

    SUCCESS = "success"
    FAILURE = "failure"
    RATE_LIMITED = "rate_limited"
    CANCELLED = "cancelled"


def check_outcome(outcome: object) -> None:
    """Raise ``TypeError`` unless ``outcome`` is an `Outcome`; its value as a str is none."""
    if not isinstance(outcome, Outcome):
        raise TypeError(
            f"outcome is {shown(outcome)}; it must be one of "
            f"{', '.join(f'Outcome.{each.name}' for each in Outcome)}"
        )
