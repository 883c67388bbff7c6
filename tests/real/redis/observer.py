"""An observer of what other processes have used and found out."""

from __future__ import annotations

from contextlib import ExitStack

from tests.integrations.redis.limits import rpm
from tests.real.redis.support import PATIENCE, Valkey, until

from loadwise import HealthStatus
from loadwise.integrations.redis import SharedHealth, SharedQuota


class Observer:
    """Sees what is shared under a prefix."""

    def __init__(self, valkey: Valkey, prefix: str, stack: ExitStack) -> None:
        client = stack.enter_context(valkey.client())
        self.quota = stack.enter_context(SharedQuota(client, prefix, timeout=PATIENCE))
        self.health = stack.enter_context(SharedHealth(client, prefix, timeout=PATIENCE))

    def used(self, limit: int = 100) -> float:
        """Return the units that the server counts of a limit."""
        self.quota.register("node", rpm(limit))
        return limit - self.quota.remaining("node", "rpm")

    def sees_down(self, *node_ids: str) -> None:
        """Wait until nodes are known to be down."""
        until(lambda: all(self.health.status(each) is HealthStatus.UNHEALTHY for each in node_ids))
