"""Reads go to replicas, writes to the primary; one replica is down, and no read is lost.

SQLite files stand for the servers, so the program needs nothing. With PostgreSQL, `connect` makes
a `psycopg_pool.ConnectionPool` and the rest stays: see the guide.

    python examples/database_replicas.py
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from loadwise import Balancer, Endpoint, Filtered, Lease, PerNode, RoundRobin, WithFallback, by_tag


class Database:
    """One primary and its replicas.

    Args:
        nodes: Endpoints with the tag ``role``, ``"primary"`` or ``"replica"``. Their ids are paths.
    """

    def __init__(self, nodes: list[Endpoint]) -> None:
        # A replica; where none is left, the primary answers reads, too.
        replicas: Filtered[Endpoint] = Filtered(RoundRobin(), by_tag(role="replica"))
        reads: WithFallback[Endpoint] = WithFallback(replicas, RoundRobin())
        self.balancer = Balancer(nodes, reads, max_in_flight=20, name="db")
        self.connections = PerNode(self.connect, close=sqlite3.Connection.close)
        self.answered = Counter[str]()

    @staticmethod
    def connect(node: Endpoint) -> sqlite3.Connection:
        """Return what all requests to a node share: here a connection, else a pool."""
        return sqlite3.connect(f"file:{node.id}?mode=rw", uri=True, check_same_thread=False)

    def read(self, query: str) -> list[tuple[object, ...]]:
        """Run a query that changes nothing, on another node where one fails."""

        def ask(node: Endpoint, lease: Lease[Endpoint]) -> list[tuple[object, ...]]:
            rows = self.connections(lease).execute(query).fetchall()
            self.answered[Path(str(node.id)).stem] += 1
            return rows

        failures = sqlite3.OperationalError  # psycopg.OperationalError, with PostgreSQL
        return self.balancer.call(ask, retry_on=failures, with_lease=True, timeout=5.0)

    def write(self, query: str) -> None:
        """Change something, once, on the primary."""
        with self.balancer.acquire(where=by_tag(role="primary"), timeout=5.0) as lease:
            connection = self.connections(lease)
            connection.execute(query)
            connection.commit()


def main() -> None:
    """Read and write while a replica is down."""
    with TemporaryDirectory() as folder:
        roles = {"primary": "primary", "replica-1": "replica", "replica-2": "replica"}
        paths = {name: Path(folder, f"{name}.db") for name in roles}
        for name in ("primary", "replica-1"):  # replica-2 is down
            connection = sqlite3.connect(paths[name])
            connection.execute("CREATE TABLE users (name TEXT)")
            connection.close()
        nodes = [Endpoint(str(paths[name]), tags={"role": role}) for name, role in roles.items()]

        database = Database(nodes)
        with database.connections:
            database.write("INSERT INTO users VALUES ('ada')")
            rows = [database.read("SELECT count(*) FROM users") for _ in range(40)]
            print(f"{len(rows)} reads were answered:", *database.answered.items())
            for name, status in zip(roles, database.balancer.status(), strict=True):
                print(f"{name}: {status.health.name}, {status.health_reason or 'well'}")


if __name__ == "__main__":
    main()
