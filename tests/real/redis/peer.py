"""A process that shares quotas and health, and does what it reads from its standard input."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import redis

from loadwise import Balancer, HealthStatus, NoNodeAvailable, QuotaConfig, QuotaDimension
from loadwise.integrations.redis import SharedHealth, SharedQuota

NODE = "node"


class Member:
    """Does one thing at a time."""

    def __init__(
        self,
        port: int,
        prefix: str,
        limit: float = 100,
        window: float = 60.0,
        **settings: Any,
    ) -> None:
        client = redis.Redis(port=port)
        self.health = SharedHealth(client, prefix, timeout=settings["timeout"])
        self.quota = SharedQuota(client, prefix, **settings)
        self.quota.register(NODE, QuotaConfig([QuotaDimension("rpm", limit=limit, window=window)]))
        self.balancer = Balancer([NODE], quota=self.quota, health=self.health)
        self.reservations: list[Any] = []

    def ready(self) -> bool:
        """Say that it has started."""
        return True

    def exhaust(self, refusals: int) -> int:
        """Acquire until so many attempts in a row were refused; return how many were not."""
        granted = refused = 0
        while refused < refusals:
            if self.quota.try_acquire(NODE) is None:
                refused += 1
            else:
                granted, refused = granted + 1, 0
        return granted

    def exhaust_connected(self, cost: float, refusals: int) -> float:
        """Acquire until the server has refused so many in a row; return the units it granted."""
        granted: float = 0
        refused = 0
        while refused < refusals:
            if self.quota.try_acquire(NODE, {"rpm": cost}) is not None:
                granted, refused = granted + cost, 0
            elif self.quota.connected and self.quota.remaining(NODE, "rpm") == 0:
                refused += 1
            else:
                time.sleep(0.001)
        return granted

    def exhaust_balancer(self, refusals: int) -> int:
        """Do the same through a balancer."""
        granted = refused = 0
        while refused < refusals:
            try:
                self.balancer.acquire().success()
            except NoNodeAvailable:
                refused += 1
            else:
                granted, refused = granted + 1, 0
        return granted

    def hammer(self, seconds: float) -> list[tuple[float, float]]:
        """Acquire through a balancer for a while; return between which times each was granted."""
        uses: list[tuple[float, float]] = []
        end = time.monotonic() + seconds
        while (begin := time.monotonic()) < end:
            try:
                lease = self.balancer.acquire()
            except NoNodeAvailable:
                time.sleep(0.001)
            else:
                uses.append((begin, time.monotonic()))
                lease.success()
        return uses

    def acquire(self, amount: float) -> bool:
        """Reserve so much; tell whether it was granted."""
        reservation = self.quota.try_acquire(NODE, {"rpm": amount})
        if reservation is not None:
            self.reservations.append(reservation)
        return reservation is not None

    def settle(self, amount: float) -> None:
        """Settle the latest reservation."""
        self.reservations.pop().settle({"rpm": amount})

    def pause(self, seconds: float) -> None:
        """Put the node on cooldown."""
        self.quota.mark_exhausted(NODE, seconds)

    def fail(self, node_id: str, times: int) -> float:
        """Report failures; return when the last was."""
        for _ in range(times):
            self.health.report_failure(node_id, "refused")
        return time.monotonic()

    def see(self, node_id: str, status: str, seconds: float) -> float:
        """Wait until a node has this status; return when."""
        end = time.monotonic() + seconds
        while self.health.status(node_id) is not HealthStatus[status]:
            if time.monotonic() > end:
                raise TimeoutError(f"still {self.health.status(node_id)} after {seconds} s")
            time.sleep(0.001)
        return time.monotonic()

    def events(self) -> dict[str, int]:
        """Return what has happened to the quota."""
        return dict(self.quota.events)

    def close(self) -> None:
        """End properly."""
        self.quota.close()
        self.health.close()


def main() -> None:
    """Do what is asked, line by line."""
    member = Member(**json.loads(sys.argv[1]))
    for line in sys.stdin:
        command, *args = json.loads(line)
        sys.stdout.write(json.dumps(getattr(member, command)(*args)) + "\n")
        sys.stdout.flush()
    member.close()


if __name__ == "__main__":
    main()
