"""Reads go to the replicas of a PostgreSQL, writes to its primary, by psycopg 3 in asyncio.

    python examples/databases/psycopg_asyncio.py "host=db-0 dbname=shop" "host=db-1 dbname=shop"

The first is the primary.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

import psycopg
from psycopg_pool import AsyncConnectionPool

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    Endpoint,
    Filtered,
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
from loadwise.integrations.psycopg import AsyncTimedConnection, classify_postgres

R = TypeVar("R")
Work = Callable[[psycopg.AsyncConnection[Any]], Awaitable[R]]

SIZE = 20
PRIMARY, REPLICA = by_tag(role="primary"), by_tag(role="replica")


class Database:
    """One primary and its replicas.

    Args:
        primary: How it is reached, by libpq's keywords.
        replicas: How those are.
        patience: Seconds after which a server that does not answer has failed.
        rest: Seconds until a server that has failed is tried again.
    """

    def __init__(
        self, primary: str, replicas: Sequence[str], *, patience: float = 2.0, rest: float = 5.0
    ) -> None:
        class Connection(AsyncTimedConnection[Any]):
            answer_timeout = patience

        nodes = [Endpoint(primary, tags={"role": "primary"})]
        nodes += [Endpoint(replica, tags={"role": "replica"}) for replica in replicas]
        reads: WithFallback[Endpoint] = WithFallback(
            Filtered(PowerOfTwoChoices(load=InFlight()), REPLICA), RoundRobin()
        )
        self.connection_class = Connection
        self.balancer = Balancer(
            nodes,
            reads,
            health=HealthTracker(ConsecutiveFailurePolicy(probe_interval=rest)),
            failures=classify_postgres,
            max_in_flight=SIZE,
            name="db",
        )
        self.pools = PerNode(self.open_pool, close=AsyncConnectionPool.close)

    async def open_pool(self, node: Endpoint) -> AsyncConnectionPool[psycopg.AsyncConnection[Any]]:
        """Return the pool of a server."""
        pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]] = AsyncConnectionPool(
            str(node.id),
            connection_class=self.connection_class,
            kwargs={"connect_timeout": 2, "options": "-c statement_timeout=1500"},
            min_size=0,
            max_size=SIZE,
            timeout=2.0,
            reconnect_timeout=0.0,
            open=False,
        )
        await pool.open()
        return pool

    @asynccontextmanager
    async def connection(
        self, lease: Lease[Endpoint]
    ) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """Borrow a connection to the lease's server, and end its transaction."""
        pool = await self.pools(lease)
        try:
            async with pool.connection() as connection:
                yield connection
        except psycopg.OperationalError as error:
            if classify_postgres(error) is Outcome.FAILURE:
                await pool.drain()
            raise

    async def read(self, work: Work[R]) -> R:
        """Do what changes nothing, ``await work(connection)``; elsewhere where a server fails."""

        async def run(_: Endpoint, lease: Lease[Endpoint]) -> R:
            async with self.connection(lease) as connection:
                return await work(connection)

        return await self.balancer.call_async(
            run, retry_on=psycopg.OperationalError, attempts=4, with_lease=True, timeout=5.0
        )

    async def write(self, work: Work[R]) -> R:
        """Do what changes something, once, on the primary."""
        async with (
            self.balancer.acquire_async(where=PRIMARY, timeout=5.0) as lease,
            self.connection(lease) as connection,
        ):
            return await work(connection)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.pools.aclose()


async def main(primary: str, *replicas: str) -> None:
    """Write something, and read it."""

    async def count(connection: psycopg.AsyncConnection[Any]) -> object:
        cursor = await connection.execute("SELECT count(*) FROM users")
        return await cursor.fetchone()

    async with Database(primary, replicas) as database:
        await database.write(lambda c: c.execute("CREATE TABLE IF NOT EXISTS users (name text)"))
        await database.write(lambda c: c.execute("INSERT INTO users VALUES ('ada')"))
        for _ in range(10):
            print(await database.read(count))
        for status in database.balancer.status():
            print(f"{status.id}: {status.picks} requests, {status.health.name}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
