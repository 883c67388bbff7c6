"""Reads go to the replicas of a Redis or Valkey, writes to its primary, by redis-py.

    python examples/databases/redis_replicas.py redis://cache-0:6379 redis://cache-1:6379

The first is the primary.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Self, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.exceptions import MasterDownError, MaxConnectionsError
from redis.retry import Retry

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    Endpoint,
    Filtered,
    HealthFilter,
    HealthTracker,
    InFlight,
    Lease,
    Outcome,
    PerNode,
    PowerOfTwoChoices,
    RoundRobin,
    WithFallback,
    by_tag,
)
from loadwise.health_checks import HealthChecker

R = TypeVar("R")
Work = Callable[[redis.Redis], R]

PRIMARY, REPLICA = by_tag(role="primary"), by_tag(role="replica")
LOST = (redis.ConnectionError, redis.TimeoutError, MasterDownError)


def judge(error: Exception) -> Outcome:
    """Return what an error says of a server."""
    if isinstance(error, LOST) and not isinstance(error, MaxConnectionsError):
        return Outcome.FAILURE
    # A refusal is an answer; a bug of one's own says nothing.
    return Outcome.SUCCESS if isinstance(error, redis.ResponseError) else Outcome.CANCELLED


class Store:
    """One primary and its replicas.

    Args:
        primary: Its URL.
        replicas: Those of its replicas.
        patience: Seconds after which a server that does not answer has failed.
        interval: Seconds between two looks at whether a replica follows.
        rest: Seconds until a server that has failed is tried again.
    """

    def __init__(
        self,
        primary: str,
        replicas: Sequence[str],
        *,
        patience: float = 0.5,
        interval: float = 1.0,
        rest: float = 5.0,
    ) -> None:
        nodes = [Endpoint(primary, tags={"role": "primary"})]
        nodes += [Endpoint(replica, tags={"role": "replica"}) for replica in replicas]
        reads: WithFallback[Endpoint] = WithFallback(
            Filtered(PowerOfTwoChoices(load=InFlight()), REPLICA), RoundRobin()
        )
        self.patience = patience
        checks = HealthTracker()
        self.balancer = Balancer(
            nodes,
            reads,
            health=HealthTracker(ConsecutiveFailurePolicy(probe_interval=rest)),
            failures=judge,
            where=HealthFilter.available(checks),
            name="store",
        )
        self.clients = PerNode(self.connect, close=redis.Redis.close)
        self.checker = HealthChecker(
            self.balancer, self.follows, interval=interval, timeout=patience, health=checks
        )

    def connect(self, node: Endpoint) -> redis.Redis:
        """Return the client of a server, with connections of its own."""
        return redis.Redis.from_url(
            str(node.id),
            socket_connect_timeout=self.patience,
            socket_timeout=self.patience,
            # redis.Redis(host=...) sends again whose answer was lost: INCR would count twice.
            retry=Retry(NoBackoff(), 0),
        )

    def follows(self, node: Endpoint) -> bool:
        """Tell whether a server is the primary, or in touch with it."""
        with self.connect(node) as client:
            told = client.info("replication")
        return bool(told["role"] == "master" or told["master_link_status"] == "up")

    def read(self, work: Work[R]) -> R:
        """Do what changes nothing, ``work(client)``; on another server where one fails."""

        def run(_: Endpoint, lease: Lease[Endpoint]) -> R:
            return work(self.clients(lease))

        return self.balancer.call(run, retry_on=LOST, attempts=4, with_lease=True)

    def write(self, work: Work[R]) -> R:
        """Do what changes something, once, on the primary."""
        with self.balancer.acquire(where=PRIMARY) as lease:
            return work(self.clients(lease))

    def __enter__(self) -> Self:
        self.checker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.checker.stop()
        self.clients.close()


def main(primary: str, *replicas: str) -> None:
    """Write something, and read it."""
    with Store(primary, replicas) as store:
        store.write(lambda client: client.set("greeting", "hello"))
        for _ in range(10):
            print(store.read(lambda client: client.get("greeting")))
        for status in store.balancer.status():
            print(f"{status.id}: {status.picks} requests, {status.health.name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
