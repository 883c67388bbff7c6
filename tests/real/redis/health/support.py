"""What trackers see that share their health."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.real.redis.support import until

from loadwise import ConsecutiveFailurePolicy, HealthStatus, HealthTracker
from loadwise.integrations.redis import SharedHealth

HEALTHY, UNHEALTHY = HealthStatus.HEALTHY, HealthStatus.UNHEALTHY
ABRUPT = ConsecutiveFailurePolicy(failure_threshold=1, recovery_successes=1)

Share = Callable[..., SharedHealth]


def has_passed(moment: float) -> bool:
    """Whether it is later than that."""
    return time.monotonic() > moment


def sees(tracker: HealthTracker, node_id: str, status: HealthStatus) -> None:
    """Wait until a tracker has a node in this state."""
    until(lambda: tracker.status(node_id) is status)
