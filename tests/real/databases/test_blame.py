"""Errors of a real PostgreSQL, as drivers and pools report them: whose fault they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import sqlalchemy
from psycopg_pool import ConnectionPool
from sqlalchemy.exc import SQLAlchemyError
from tests.ports import free_port
from tests.real.databases.servers import Cluster, Postgres, dsn, until

from loadwise import Outcome
from loadwise.integrations.postgres import classify_postgres
from loadwise.integrations.psycopg import AnswerTimeout, AsyncTimedConnection, TimedConnection

pytestmark = pytest.mark.slow


class Hasty(TimedConnection[Any]):
    """A connection whose server has a short time to answer."""

    answer_timeout: float | None = 0.3


class AsyncHasty(AsyncTimedConnection[Any]):
    """The same, of asyncio."""

    answer_timeout: float | None = 0.3


@contextmanager
def frozen(server: Postgres) -> Iterator[None]:
    """Have a server hang for the time of a block."""
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


QUERIES = {
    "SELECT 1/0": Outcome.SUCCESS,
    "SELECT nothing": Outcome.SUCCESS,
    "CREATE TABLE one (n int)": Outcome.SUCCESS,  # on a replica: 25006
    "SET statement_timeout = 50; SELECT pg_sleep(5)": Outcome.CANCELLED,
    "SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(5)": Outcome.CANCELLED,
    "SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(5)": Outcome.FAILURE,
    "SELECT %s, %s": Outcome.CANCELLED,  # psycopg sends none of it
}


@pytest.mark.parametrize(("query", "outcome"), QUERIES.items(), ids=[*QUERIES])
def test_errors_of_statements(cluster: Cluster, query: str, outcome: Outcome) -> None:
    """By SQLSTATE, bare or as SQLAlchemy raises them."""
    arguments = (1,) if "%s" in query else None
    server = cluster.replicas[0].dsn
    connection = psycopg.connect(server, autocommit=True)
    with pytest.raises(psycopg.Error) as bare:
        connection.execute(query, arguments)
    connection.close()
    assert classify_postgres(bare.value) is outcome
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(server, autocommit=True)
    )
    with engine.connect() as other, pytest.raises(SQLAlchemyError) as wrapped:
        other.exec_driver_sql(query, arguments)
    engine.dispose()
    assert classify_postgres(wrapped.value) is outcome


def test_errors_of_transactions(cluster: Cluster) -> None:
    """A serialization failure and a duplicate: the server has done its work."""
    cluster.primary.ask("CREATE TABLE counters (n int PRIMARY KEY)")
    try:
        with psycopg.connect(cluster.primary.dsn) as one, psycopg.connect(one.info.dsn) as two:
            for each in (one, two):
                each.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
                each.execute("SELECT count(*) FROM counters")
            one.execute("INSERT INTO counters VALUES (1)")
            two.execute("INSERT INTO counters VALUES (2)")
            one.commit()
            with pytest.raises(psycopg.errors.SerializationFailure) as failed:
                two.commit()
            assert classify_postgres(failed.value) is Outcome.SUCCESS
            with pytest.raises(psycopg.errors.UniqueViolation) as twice:
                one.execute("INSERT INTO counters VALUES (1)")
            assert classify_postgres(twice.value) is Outcome.SUCCESS
            one.rollback()
    finally:
        cluster.primary.ask("DROP TABLE counters")


def test_errors_of_connections(cluster: Cluster) -> None:
    """No server, a hung one, a role or a database that it does not know: the node's."""
    server = cluster.replicas[0]
    for where in (dsn(free_port()), f"{server.dsn} user=nobody", f"{server.dsn} dbname=nothing"):
        with pytest.raises(psycopg.OperationalError) as refused:
            psycopg.connect(where)
        assert classify_postgres(refused.value) is Outcome.FAILURE
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        cluster.replicas[0].kill()
        with pytest.raises(psycopg.OperationalError) as lost:
            connection.execute("SELECT 1")
    assert classify_postgres(lost.value) is Outcome.FAILURE
    server.start()


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        ("53300", Outcome.RATE_LIMITED),
        ("53100", Outcome.FAILURE),
        ("57P01", Outcome.FAILURE),
        ("57P03", Outcome.FAILURE),
        ("57P05", Outcome.CANCELLED),
        ("28P01", Outcome.FAILURE),
        ("XX001", Outcome.FAILURE),
        ("40P01", Outcome.SUCCESS),
        ("55P03", Outcome.SUCCESS),
    ],
)
@pytest.mark.parametrize("name", ["sqlstate", "pgcode"])
def test_errors_of_other_drivers(state: str, outcome: Outcome, name: str) -> None:
    """By the attribute that asyncpg and psycopg2 have for the SQLSTATE."""

    class DatabaseError(Exception):
        """As a driver's."""

    error = DatabaseError("FATAL")
    setattr(error, name, state)
    assert classify_postgres(error) is outcome
    around = DatabaseError("wrapped")
    around.orig = error  # type: ignore[attr-defined]  # as SQLAlchemy's
    assert classify_postgres(around) is outcome


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ConnectionResetError(), Outcome.FAILURE),
        (TimeoutError(), Outcome.FAILURE),
        (psycopg.InterfaceError("closed by the caller"), Outcome.CANCELLED),
        (sqlalchemy.exc.TimeoutError("the pool is full"), Outcome.CANCELLED),
        (KeyError("a bug"), Outcome.CANCELLED),
        (asyncio.CancelledError(), Outcome.CANCELLED),
        (KeyboardInterrupt(), Outcome.CANCELLED),
    ],
    ids=repr,
)
def test_errors_without_a_state(error: BaseException, outcome: Outcome) -> None:
    """Of the network: the node's; of the caller: nobody's."""
    assert classify_postgres(error) is outcome


def test_errors_of_pools(cluster: Cluster) -> None:
    """No connection in time is the node's; a queue that is full, or a closed pool, is not."""
    limits: dict[str, Any] = {"min_size": 0, "max_size": 1, "timeout": 0.1}
    with (
        ConnectionPool(dsn(free_port()), **limits, open=True) as dead,
        ConnectionPool(cluster.primary.dsn, max_waiting=1, **limits, open=True) as full,
        ThreadPoolExecutor(1) as threads,
    ):
        closed = ConnectionPool(cluster.primary.dsn, **limits, open=False)
        found: list[Outcome] = []
        with full.connection(timeout=10):
            waiting = threads.submit(full.getconn, 10)
            until(lambda: full.get_stats().get("requests_waiting"))
            for pool in (dead, full, closed):
                with pytest.raises(psycopg.OperationalError) as failed:
                    pool.getconn()
                found.append(classify_postgres(failed.value))
        full.putconn(waiting.result())
    assert found == [Outcome.FAILURE, Outcome.CANCELLED, Outcome.CANCELLED]


def test_a_connection_does_not_wait_for_ever(cluster: Cluster) -> None:
    """What is slow is waited for; what is hung is closed, and says nothing late."""
    server = cluster.replicas[0]
    with Hasty.connect(server.dsn, autocommit=True) as connection:
        assert connection.execute("SELECT pg_sleep(0.1), 7").fetchone() == ("", 7)
        with frozen(server), pytest.raises(AnswerTimeout, match=r"not answered in 0\.3 s") as late:
            connection.execute("SELECT 1")
        assert connection.closed
        assert classify_postgres(late.value) is Outcome.FAILURE
        with pytest.raises(psycopg.OperationalError, match="closed"):
            connection.execute("SELECT 2")


def test_a_connection_may_wait_as_long_as_it_is_told(cluster: Cluster) -> None:
    """One alone, without a bound; in transactions and cursors, too."""
    with Hasty.connect(cluster.replicas[0].dsn) as connection:
        connection.answer_timeout = None
        assert connection.execute("SELECT pg_sleep(0.5), 7").fetchone() == ("", 7)
        connection.answer_timeout = 0.2
        with connection.transaction(), connection.cursor("some") as cursor:
            cursor.execute("SELECT n, pg_sleep(0.05) FROM generate_series(1, 8) n")
            cursor.itersize = 2
            assert [row[0] for row in cursor] == [*range(1, 9)]
        with pytest.raises(AnswerTimeout):
            connection.execute("SELECT pg_sleep(5)")


def test_a_connection_of_asyncio_does_not_wait_for_ever(cluster: Cluster) -> None:
    """Nor does one that is cancelled wait for more than psycopg does."""
    server = cluster.replicas[0]

    async def main() -> None:
        connection = await AsyncHasty.connect(server.dsn, autocommit=True)
        cursor = await connection.execute("SELECT pg_sleep(0.1), 7")
        assert await cursor.fetchone() == ("", 7)
        with frozen(server), pytest.raises(AnswerTimeout):
            await connection.execute("SELECT 1")
        assert connection.closed
        other = await AsyncHasty.connect(server.dsn, autocommit=True)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await other.execute("SELECT pg_sleep(5)")
        other.answer_timeout = None
        assert await (await other.execute("SELECT pg_sleep(0.5), 8")).fetchone() == ("", 8)
        await other.close()

    asyncio.run(main())


CALLS: list[Callable[[Any], object]] = [
    lambda connection: connection.execute("SELECT 1"),
    lambda connection: connection.commit(),
    lambda connection: connection.cursor().executemany("SELECT %s", [(1,), (2,)]),
    ConnectionPool.check_connection,
]


def test_whatever_waits_for_the_server_ends(cluster: Cluster) -> None:
    """Statements, the end of a transaction, many at once, and the check of a pool."""
    server = cluster.replicas[0]
    connections = [Hasty.connect(server.dsn) for _ in CALLS]
    connections[1].execute("SELECT 1")
    with frozen(server):
        for connection, call in zip(connections, CALLS, strict=True):
            with pytest.raises(AnswerTimeout):
                call(connection)
            assert connection.closed
