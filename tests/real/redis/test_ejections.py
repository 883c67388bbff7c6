"""Ejections of outliers where processes share health through a real server."""

from __future__ import annotations

import pytest
import redis
from tests.real.redis.support import PATIENCE, until

from loadwise import ConsecutiveFailurePolicy, HealthStatus
from loadwise.integrations.redis import SharedHealth

pytestmark = pytest.mark.slow

ABRUPT = ConsecutiveFailurePolicy(failure_threshold=1, recovery_successes=1)


def test_an_ejection_is_not_told(client: redis.Redis, prefix: str) -> None:
    """It is one process's comparison; what another finds out of the node counts after it."""
    with (
        SharedHealth(client, prefix, policy=ABRUPT, timeout=PATIENCE) as mine,
        SharedHealth(client, prefix, policy=ABRUPT, timeout=PATIENCE) as yours,
    ):
        for tracker in (mine, yours):
            tracker.catch_up()  # as with the first request
        assert mine.eject("a", "ejected: success rate 50 % is low", mine.clock() + 3600.0)
        mine.report_failure("b")
        # What was told before that has come with it.
        until(lambda: yours.status("b") is HealthStatus.UNHEALTHY)
        assert yours.status("a") is HealthStatus.HEALTHY
        yours.report_failure("a", "refused")
        yours.report_failure("c")
        until(lambda: mine.status("c") is HealthStatus.UNHEALTHY)
        assert mine.health("a").reason == "ejected: success rate 50 % is low"
        mine.readmit("a", probe=False)
        assert str(mine.health("a").reason).endswith("(found out by another process)")
        yours.report_success("a")
        until(lambda: mine.status("a") is HealthStatus.HEALTHY)
