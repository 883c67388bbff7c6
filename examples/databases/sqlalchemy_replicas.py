"""Reads go to the replicas of a PostgreSQL, writes to its primary, by SQLAlchemy 2.

    python examples/databases/sqlalchemy_replicas.py "host=db-0 dbname=shop" "host=db-1 dbname=shop"

The first is the primary.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar

import psycopg
from sqlalchemy import Engine, create_engine, func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    Endpoint,
    Filtered,
    HealthTracker,
    InFlight,
    Lease,
    PerNode,
    PowerOfTwoChoices,
    RoundRobin,
    WithFallback,
    by_tag,
)
from loadwise.integrations.psycopg import TimedConnection
from loadwise.integrations.sqlalchemy import ReplicaSession, classify_postgres

R = TypeVar("R")

SIZE = 20
PRIMARY, REPLICA = by_tag(role="primary"), by_tag(role="replica")


class Base(DeclarativeBase):
    """All tables."""


class User(Base):
    """Somebody."""

    __tablename__ = "people"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


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
        class Connection(TimedConnection[Any]):
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
        self.engines = PerNode(self.make_engine, close=Engine.dispose)
        self.sessions = sessionmaker(
            class_=ReplicaSession, balancer=self.balancer, engines=self.engines, primary=PRIMARY
        )

    def make_engine(self, node: Endpoint) -> Engine:
        """Return the engine of a server."""

        def connect() -> psycopg.Connection[Any]:
            limits = "-c statement_timeout=1500"
            return self.connection_class.connect(str(node.id), connect_timeout=2, options=limits)

        return create_engine(
            "postgresql+psycopg://",
            creator=connect,
            pool_size=SIZE,  # as max_in_flight
            max_overflow=0,
            pool_pre_ping=True,
            hide_parameters=True,
        )

    def read(self, work: Callable[[Session], R]) -> R:
        """Do what changes nothing, ``work(session)``; again elsewhere where a server fails."""

        def run(_: Endpoint, lease: Lease[Endpoint]) -> R:
            with Session(self.engines(lease)) as session:
                return work(session)

        retried = OperationalError
        return self.balancer.call(run, retry_on=retried, attempts=4, with_lease=True, timeout=5.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.engines.close()


def main(primary: str, *replicas: str) -> None:
    """Write something, and read it."""
    with Database(primary, replicas) as database:
        with database.sessions.begin() as session:
            Base.metadata.create_all(session.connection())
        with database.sessions() as session:
            print(session.scalar(select(func.count()).select_from(User)))  # of a replica
            session.add(User(name="ada"))
            session.commit()  # on the primary
        for _ in range(10):
            print(database.read(lambda s: s.scalar(select(func.count()).select_from(User))))
        for status in database.balancer.status():
            print(f"{status.id}: {status.picks} requests, {status.health.name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
