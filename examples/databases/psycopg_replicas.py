"""Reads go to the replicas of a PostgreSQL, writes to its primary, by psycopg 3 in threads.

    python examples/databases/psycopg_replicas.py "host=db-0 dbname=shop" "host=db-1 dbname=shop"

The first is the primary. Passwords belong in ~/.pgpass, because ids of nodes are shown.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import psycopg
from psycopg_pool import ConnectionPool

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
from loadwise.integrations.psycopg import TimedConnection, classify_postgres

R = TypeVar("R")
Work = Callable[[psycopg.Connection[Any]], R]

SIZE = 20
PRIMARY, REPLICA = by_tag(role="primary"), by_tag(role="replica")
LAG = """
SELECT CASE WHEN NOT pg_is_in_recovery() OR pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()
    THEN 0 ELSE extract(epoch FROM now() - pg_last_xact_replay_timestamp()) END
"""


class Database:
    """One primary and its replicas.

    Args:
        primary: How it is reached, by libpq's keywords.
        replicas: How those are.
        patience: Seconds after which a server that does not answer has failed.
        most_lag: Seconds that a replica may lag behind.
        interval: Seconds between two looks at that.
        rest: Seconds until a server that has failed is tried again.
    """

    def __init__(
        self,
        primary: str,
        replicas: Sequence[str],
        *,
        patience: float = 2.0,
        most_lag: float = 10.0,
        interval: float = 1.0,
        rest: float = 5.0,
    ) -> None:
        class Connection(TimedConnection[Any]):
            answer_timeout = patience

        nodes = [Endpoint(primary, tags={"role": "primary"})]
        nodes += [Endpoint(replica, tags={"role": "replica"}) for replica in replicas]
        # A replica; where none is left, the primary answers reads, too.
        reads: WithFallback[Endpoint] = WithFallback(
            Filtered(PowerOfTwoChoices(load=InFlight()), REPLICA), RoundRobin()
        )
        self.connection_class = Connection
        self.most_lag = most_lag
        checks = HealthTracker()
        self.balancer = Balancer(
            nodes,
            reads,
            health=HealthTracker(ConsecutiveFailurePolicy(probe_interval=rest)),
            failures=classify_postgres,
            max_in_flight=SIZE,
            where=HealthFilter.available(checks),
            name="db",
        )
        self.pools = PerNode(self.open_pool, close=ConnectionPool.close)
        self.checker = HealthChecker(
            self.balancer, self.keeps_up, interval=interval, timeout=patience, health=checks
        )

    def open_pool(self, node: Endpoint) -> ConnectionPool[psycopg.Connection[Any]]:
        """Return the pool of a server."""
        return ConnectionPool(
            str(node.id),
            connection_class=self.connection_class,
            # The server ends what is slow before the client takes it for hung.
            kwargs={"connect_timeout": 2, "options": "-c statement_timeout=1500"},
            min_size=0,
            max_size=SIZE,  # as max_in_flight, so nobody waits but for a new connection
            timeout=2.0,
            reconnect_timeout=0.0,  # the next request tries again, however long it was down
            open=True,
        )

    def keeps_up(self, node: Endpoint) -> bool:
        """Tell whether a server is no more than so far behind."""
        with self.connection_class.connect(str(node.id), connect_timeout=2) as connection:
            row = connection.execute(LAG).fetchone()
        return row is not None and row[0] <= self.most_lag

    @contextmanager
    def connection(self, lease: Lease[Endpoint]) -> Iterator[psycopg.Connection[Any]]:
        """Borrow a connection to the lease's server, and end its transaction."""
        pool = self.pools(lease)
        try:
            with pool.connection() as connection:
                yield connection
        except psycopg.OperationalError as error:
            if classify_postgres(error) is Outcome.FAILURE:
                pool.drain()  # the others are lost, too
            raise

    def read(self, work: Work[R]) -> R:
        """Do what changes nothing, ``work(connection)``; on another server where one fails."""

        def run(_: Endpoint, lease: Lease[Endpoint]) -> R:
            with self.connection(lease) as connection:
                return work(connection)

        retried = psycopg.OperationalError
        return self.balancer.call(run, retry_on=retried, attempts=4, with_lease=True, timeout=5.0)

    def write(self, work: Work[R]) -> R:
        """Do what changes something, once, on the primary."""
        with (
            self.balancer.acquire(where=PRIMARY, timeout=5.0) as lease,
            self.connection(lease) as connection,
        ):
            return work(connection)

    def __enter__(self) -> Self:
        self.checker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.checker.stop()
        self.pools.close()


def main(primary: str, *replicas: str) -> None:
    """Write something, and read it."""
    with Database(primary, replicas) as database:
        database.write(lambda c: c.execute("CREATE TABLE IF NOT EXISTS users (name text)"))
        database.write(lambda c: c.execute("INSERT INTO users VALUES ('ada')"))
        for _ in range(10):
            print(database.read(lambda c: c.execute("SELECT count(*) FROM users").fetchone()))
        for status in database.balancer.status():
            print(f"{status.id}: {status.picks} requests, {status.health.name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
