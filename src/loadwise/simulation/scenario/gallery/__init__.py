"""Scenarios that ship with loadwise, one TOML file each."""

from __future__ import annotations

from importlib import resources

__all__ = ["NAMES", "scenario_names", "scenario_text"]

NAMES = (
    "supermarket",
    "homogeneous",
    "heterogeneous",
    "slow-node",
    "black-hole",
    "stampede",
    "flapping",
    "overload",
    "brownout",
    "gray-failure",
    "canary",
    "slow-start",
    "zone-outage",
    "many-clients",
    "many-workers",
    "affinity-churn",
    "llm-fleet",
    "llm-prefix",
)
"""From the textbook to the machine room."""


def scenario_names() -> tuple[str, ...]:
    """Return the names of the scenarios that ship with loadwise, the plainest first.

    Example:
        >>> scenario_names()[:3]
        ('supermarket', 'homogeneous', 'heterogeneous')
    """
    return NAMES


def scenario_text(name: str) -> str:
    """Return the TOML file of one of them, as it stands.

    Raises:
        KeyError: There is none of this name.
    """
    if name not in NAMES:
        raise KeyError(name)
    return resources.files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
