"""The four states of a node's health."""

from __future__ import annotations

from enum import Flag

__all__ = ["HealthStatus"]


class HealthStatus(Flag):
    """A node's health; combine with ``|`` to name several states at once.

    ``HEALTHY`` works. ``DEGRADED`` has begun to fail and still gets traffic. ``UNHEALTHY`` gets
    none but a probe at a time. ``RECOVERING`` has answered a probe and is on trial.

    Example:
        >>> HealthStatus.DEGRADED in (HealthStatus.HEALTHY | HealthStatus.DEGRADED)
        True
    """

    HEALTHY = 1
    DEGRADED = 2
    UNHEALTHY = 4
    RECOVERING = 8
