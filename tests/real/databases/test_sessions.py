"""`ReplicaSession` of SQLAlchemy, with a real primary and its replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, func, insert, literal, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker
from tests.ports import free_port
from tests.real.databases.servers import Cluster, dsn, until

from loadwise import (
    Balancer,
    Endpoint,
    Filtered,
    NoNodeAvailable,
    NoopCollector,
    Outcome,
    PerNode,
    RoundRobin,
    WithFallback,
    by_tag,
)
from loadwise.integrations.postgres import classify_postgres
from loadwise.integrations.sqlalchemy import ReplicaSession

pytestmark = pytest.mark.slow

PRIMARY = by_tag(role="primary")
PORT = select(func.inet_server_port())


class Base(DeclarativeBase):
    """All tables."""


class User(Base):
    """Somebody."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Outcomes(NoopCollector):
    """Remembers how requests ended."""

    def __init__(self) -> None:
        self.seen: list[Outcome] = []

    def on_outcome(self, node_id: object, outcome: Outcome, latency: float) -> None:
        self.seen.append(outcome)


class Stage:
    """A primary with replicas, and sessions over them.

    Attributes:
        outcomes: How requests ended.
        sessions: Makes sessions.
    """

    def __init__(self, cluster: Cluster, *extra: str, **options: Any) -> None:
        self.primary = cluster.primary.port
        self.outcomes = Outcomes()
        nodes = [Endpoint(cluster.primary.dsn, tags={"role": "primary"})]
        replicas = [*extra, *(each.dsn for each in cluster.replicas)]
        nodes += [Endpoint(each, tags={"role": "replica"}) for each in replicas]
        reads: Any = Filtered(RoundRobin(start=0), by_tag(role="replica"))
        self.balancer: Balancer[Endpoint] = Balancer(
            nodes, WithFallback(reads, RoundRobin()), metrics=self.outcomes
        )
        self.engines = PerNode(self._make, close=Engine.dispose)
        self.sessions: sessionmaker[Any] = sessionmaker(
            class_=ReplicaSession,
            balancer=self.balancer,
            engines=self.engines,
            primary=PRIMARY,
            **options,
        )

    def _make(self, node: Endpoint) -> Engine:
        return create_engine(
            "postgresql+psycopg://",
            creator=lambda: psycopg.connect(str(node.id), connect_timeout=2),
            pool_pre_ping=True,
        )

    @property
    def in_flight(self) -> list[int]:
        """Requests in flight, of the primary first."""
        return [status.in_flight for status in self.balancer.status()]


@pytest.fixture
def stage(cluster: Cluster) -> Iterator[Stage]:
    """A stage with an empty table of users."""
    cluster.primary.ask("CREATE TABLE users (id int PRIMARY KEY, name text)")
    cluster.catch_up()
    found = Stage(cluster)
    yield found
    found.engines.close()
    cluster.primary.ask("DROP TABLE users")


def test_a_transaction_reads_from_one_replica_until_it_writes(
    stage: Stage, cluster: Cluster
) -> None:
    """Then from the primary, and sees what it wrote; the next begins anew."""
    with stage.sessions() as session:
        first = session.scalar(PORT)
        assert first != stage.primary
        assert session.scalar(PORT) == first
        assert stage.in_flight == [0, 1, 0, 0]
        session.add(User(id=1, name="ada"))
        assert session.scalar(select(User.name)) == "ada"
        assert session.scalar(PORT) == stage.primary
        assert stage.in_flight == [1, 1, 0, 0]
        session.commit()
        assert stage.in_flight == [0, 0, 0, 0]
        cluster.catch_up()
        second = session.scalar(PORT)
        assert second not in {first, stage.primary}
        assert session.get(User, 1).name == "ada"
    assert stage.in_flight == [0, 0, 0, 0]
    assert stage.outcomes.seen == [Outcome.SUCCESS] * 3


@pytest.mark.parametrize(
    "statement",
    [
        insert(User).values(id=7, name="eve"),
        update(User).values(name="eve"),
        select(User).with_for_update(),
        text("SELECT 1"),
    ],
    ids=["insert", "update", "for update", "text"],
)
def test_what_may_write_goes_to_the_primary(stage: Stage, statement: Any) -> None:
    """As its form says, or where that says nothing."""
    with stage.sessions() as session:
        session.execute(statement)
        assert stage.in_flight == [1, 0, 0, 0]
        assert session.scalar(PORT) == stage.primary
        session.connection()
        assert stage.in_flight == [1, 0, 0, 0]
    with stage.sessions() as session:
        session.connection()
        assert stage.in_flight == [1, 0, 0, 0]


def test_a_read_that_the_primary_answers_is_its_transaction(stage: Stage) -> None:
    """No second connection is taken for what is written then."""
    for node in stage.balancer.nodes[1:]:
        stage.balancer.drain(node)
    with stage.sessions() as session:
        assert session.scalar(PORT) == stage.primary
        session.add(User(id=1, name="ada"))
        session.commit()
    assert [status.picks for status in stage.balancer.status()] == [1, 0, 0, 0]


def test_errors_of_the_program_are_no_failures(stage: Stage) -> None:
    """Duplicates, savepoints and exceptions of its own give everything back."""
    with stage.sessions.begin() as session:
        session.add(User(id=1, name="ada"))
        session.flush()
        session.begin_nested()
        session.add(User(id=1, name="again"))
        with pytest.raises(IntegrityError):
            session.flush()
        session.get_nested_transaction().rollback()
        assert stage.in_flight == [1, 0, 0, 0]
        session.add(User(id=2, name="bob"))
    with suppress(ZeroDivisionError), stage.sessions.begin() as session:
        session.scalar(PORT)
        raise ZeroDivisionError
    assert stage.in_flight == [0, 0, 0, 0]
    assert set(stage.outcomes.seen) == {Outcome.SUCCESS}
    with stage.sessions() as session:
        session.execute(text("SELECT 1"))
        assert session.scalar(select(func.count()).select_from(User)) == 2


def test_a_node_that_cannot_be_reached_costs_no_error(cluster: Cluster) -> None:
    """Another is tried, for nothing was sent; after the attempts it is the last error."""
    stage = Stage(cluster, dsn(free_port()), dsn(free_port()))
    with stage.sessions() as session:
        assert session.scalar(PORT) == cluster.replicas[0].port
    assert stage.outcomes.seen == [Outcome.FAILURE, Outcome.FAILURE, Outcome.SUCCESS]
    once = Stage(cluster, dsn(free_port()), attempts=1)
    with once.sessions() as session:
        with pytest.raises(OperationalError, match="refused"):
            session.scalar(PORT)
        # The session is as it was.
        assert session.scalar(PORT) == cluster.replicas[0].port
    assert once.in_flight == [0] * 5
    stage.engines.close()
    once.engines.close()


def test_a_server_that_goes_down_is_its_failure(stage: Stage, cluster: Cluster) -> None:
    """In a statement, and at the commit; kept connections are found dead before they are used."""
    replica, *_ = cluster.replicas
    with stage.sessions() as session:
        assert session.scalar(PORT) == replica.port
        replica.kill()
        with pytest.raises(DBAPIError):
            session.scalar(PORT)
        assert stage.in_flight == [0, 0, 0, 0]
    assert stage.outcomes.seen == [Outcome.FAILURE]
    assert "SELECT" not in str(stage.balancer.status()[1].health_reason)
    replica.start()
    with stage.sessions() as session:
        session.add(User(id=1, name="ada"))
        session.flush()
        cluster.primary.kill()
        with pytest.raises(DBAPIError):
            session.commit()
    cluster.primary.start()
    assert stage.outcomes.seen == [Outcome.FAILURE] * 2
    with stage.sessions() as session:
        session.add(User(id=1, name="ada"))
        session.commit()
    assert stage.in_flight == [0, 0, 0, 0]


def test_where_no_node_is_left(cluster: Cluster) -> None:
    """The balancer says why; nothing is held."""
    stage = Stage(cluster)
    stage.balancer.replace([])
    with stage.sessions() as session, pytest.raises(NoNodeAvailable):
        session.scalar(PORT)


def test_sessions_of_asyncio(stage: Stage, cluster: Cluster) -> None:
    """The same session, beneath an `AsyncSession`; a cancelled statement is nobody's failure."""

    def make(node: Endpoint) -> AsyncEngine:
        return create_async_engine(
            "postgresql+psycopg://",
            async_creator=lambda: psycopg.AsyncConnection.connect(str(node.id)),
        )

    async def main() -> None:
        async with PerNode(make, close=AsyncEngine.dispose) as engines:
            sessions = async_sessionmaker(
                sync_session_class=ReplicaSession,
                balancer=stage.balancer,
                engines=engines,
                primary=PRIMARY,
            )
            async with sessions() as session:
                assert await session.scalar(PORT) != stage.primary
                session.add(User(id=1, name="ada"))
                await session.commit()
            assert stage.in_flight == [0, 0, 0, 0]
            async with sessions() as session:
                slow = asyncio.create_task(session.scalar(select(func.pg_sleep(30))))
                await asyncio.to_thread(until, lambda: sum(stage.in_flight))
                slow.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await slow

    asyncio.run(main())
    assert stage.in_flight == [0, 0, 0, 0]
    assert stage.outcomes.seen == [Outcome.SUCCESS, Outcome.SUCCESS, Outcome.CANCELLED]


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"bind": object()}, TypeError, "takes neither bind nor binds"),
        ({"binds": {User: object()}}, TypeError, "takes neither bind nor binds"),
        ({"balancer": ["a"]}, TypeError, "must be a Balancer"),
        ({"engines": None}, TypeError, "engines is None"),
        ({"primary": "db-1"}, TypeError, "filter"),
        ({"classify": 3}, TypeError, "classify is 3"),
        ({"attempts": 0}, ValueError, "attempts"),
    ],
)
def test_wrong_arguments_are_refused(
    options: dict[str, Any], error: type[Exception], match: str
) -> None:
    """When the session is made."""
    good: dict[str, Any] = {"balancer": Balancer(["a"]), "engines": repr, "primary": PRIMARY}
    with pytest.raises(error, match=match):
        ReplicaSession(**(good | options))


def test_engines_are_engines() -> None:
    """What is none is said at the first statement, and nothing is held."""
    balancer = Balancer(["a"])
    session = ReplicaSession(balancer=balancer, engines=repr, primary=bool)
    with session, pytest.raises(TypeError, match="must return an Engine"):
        session.scalar(PORT)
    assert [status.in_flight for status in balancer.status()] == [0]


def test_a_session_is_a_session() -> None:
    """It takes its options, and an engine that is asked for by name."""
    engine = create_engine("sqlite://")
    with ReplicaSession(
        balancer=Balancer(["a"]), engines=repr, primary=bool, expire_on_commit=False
    ) as session:
        assert isinstance(session, Session)
        assert session.scalar(select(literal(7)), bind_arguments={"bind": engine}) == 7
    engine.dispose()
    assert classify_postgres(KeyError()) is Outcome.CANCELLED
