"""Replicas of a real PostgreSQL: the programs of the guide, on bad days and on good ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from threading import Barrier
from typing import Any

import psycopg
import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session
from tests.real.databases.load import Load, program
from tests.real.databases.servers import Cluster, Relay, dsn, until

pytestmark = pytest.mark.slow

PORT = "SELECT inet_server_port(), count(*) FROM notes"


@pytest.fixture
def notes(cluster: Cluster) -> Iterator[None]:
    """An empty table, known to all, and to those that are started again from the first."""
    cluster.primary.ask("CREATE TABLE notes (number int)")
    cluster.primary.ask("CHECKPOINT")
    cluster.catch_up()
    for each in cluster.replicas:
        each.ask("CHECKPOINT")  # a replica that was killed goes on from there
    yield
    cluster.primary.ask("DROP TABLE notes")


def by_psycopg(database: Any) -> tuple[Callable[[], int], Callable[[int], object]]:
    """Return how to read and to write by psycopg."""

    def read(connection: psycopg.Connection[Any]) -> Any:
        row = connection.execute("SELECT inet_server_port(), count(*) FROM notes").fetchone()
        return row and row[0]

    def write(number: int) -> None:
        database.write(lambda c: c.execute("INSERT INTO notes VALUES (%s)", [number]))

    return lambda: int(database.read(read)), write


def by_sqlalchemy(database: Any) -> tuple[Callable[[], int], Callable[[int], object]]:
    """Return how to read and to write by SQLAlchemy."""
    port = select(text("inet_server_port()")).select_from(text("notes"))

    def read(session: Session) -> Any:
        return session.scalar(port.limit(1)) or session.scalar(select(text("inet_server_port()")))

    def write(number: int) -> None:
        with database.sessions.begin() as session:
            session.execute(text("INSERT INTO notes VALUES (:n)"), {"n": number})

    return lambda: int(database.read(read)), write


@pytest.mark.parametrize(
    ("name", "use"),
    [("psycopg_replicas", by_psycopg), ("sqlalchemy_replicas", by_sqlalchemy)],
    ids=["psycopg", "sqlalchemy"],
)
def test_reads_survive_and_no_write_is_done_twice(
    cluster: Cluster, relay: Relay, notes: None, name: str, use: Callable[[Any], Any]
) -> None:
    """One replica is killed, one frozen, one resets; all come back; then the primary goes."""
    killed, frozen, _ = cluster.replicas
    ports = {each.port for each in cluster.replicas}
    where = [killed.dsn, frozen.dsn, dsn(relay.port)]
    made = program(name)["Database"]
    with ExitStack() as stack:
        database = stack.enter_context(made(cluster.primary.dsn, where, patience=0.5, rest=0.5))
        load = stack.enter_context(Load(*use(database)))
        load.until_read_from(ports)
        killed.kill()
        load.until_read(50)
        frozen.freeze()
        load.until_read(50)
        relay.reset()
        load.until_read_from({cluster.primary.port})
        killed.start()
        frozen.thaw()
        relay.restore()
        load.until_read_from(ports)
        assert load.lost() == {}
        cluster.primary.kill()
        load.until_read(100)
        cluster.primary.start()
        written = len(load.written_well())
        until(lambda: len(load.written_well()) > written + 10)
    assert load.errors() == []
    assert [status.in_flight for status in database.balancer.status()] == [0] * 4
    found = cluster.primary.ask("SELECT array_agg(number) FROM notes")
    assert len(found) == len(set(found))
    assert load.written_well() <= set(found)


def test_reads_of_asyncio_survive(cluster: Cluster, relay: Relay, notes: None) -> None:
    """As in threads, by the program for asyncio."""
    killed, frozen, _ = cluster.replicas
    made = program("psycopg_asyncio")["Database"]
    where = [killed.dsn, frozen.dsn, dsn(relay.port)]
    seen: list[int] = []
    written: list[int] = []

    async def read(connection: psycopg.AsyncConnection[Any]) -> int:
        row = await (await connection.execute(PORT)).fetchone()
        assert row is not None
        return int(row[0])

    async def write(number: int, connection: psycopg.AsyncConnection[Any]) -> None:
        await connection.execute("INSERT INTO notes VALUES (%s)", [number])

    async def main() -> list[int]:
        over = asyncio.Event()

        async def keep_reading() -> None:
            while not over.is_set():
                seen.append(await database.read(read))

        async def keep_writing() -> None:
            while not over.is_set():
                number = len(written)
                await database.write(partial(write, number))
                written.append(number)

        async def until_read_from(ports: set[int]) -> None:
            before = len(seen)
            await asyncio.to_thread(until, lambda: ports <= set(seen[before:]))

        async with (
            made(cluster.primary.dsn, where, patience=0.5, rest=0.5) as database,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(4):
                group.create_task(keep_reading())
            group.create_task(keep_writing())
            await until_read_from({each.port for each in cluster.replicas})
            killed.kill()
            frozen.freeze()
            relay.reset()
            await until_read_from({cluster.primary.port})
            killed.begin()
            frozen.thaw()
            relay.restore()
            await until_read_from({each.port for each in cluster.replicas})
            over.set()
        return [status.in_flight for status in database.balancer.status()]

    assert asyncio.run(main()) == [0] * 4
    assert cluster.primary.ask("SELECT array_agg(number ORDER BY number) FROM notes") == written


def test_a_replica_that_lags_is_not_read_from(cluster: Cluster, notes: None) -> None:
    """Once it does not replay for too long, until it does again."""
    lagging, *others = cluster.replicas
    made = program("psycopg_replicas")["Database"]
    where = [each.dsn for each in cluster.replicas]
    with made(cluster.primary.dsn, where, most_lag=0.2, interval=0.05) as database:
        read, write = by_psycopg(database)
        assert database.balancer.status()[1].health.name == "HEALTHY"
        lagging.ask("SELECT pg_wal_replay_pause()")
        write(1)
        until(lambda: lagging.dsn not in str(database.balancer.explain().eligible))
        ports = {read() for _ in range(20)}
        assert ports <= {each.port for each in others}
        lagging.ask("SELECT pg_wal_replay_resume()")
        until(lambda: read() == lagging.port)


def test_a_server_that_was_restarted_costs_one_failure_at_most(cluster: Cluster) -> None:
    """However many connections to it had been kept: they are lost together."""
    replica, *_ = cluster.replicas
    together = Barrier(8)

    def wait(connection: psycopg.Connection[Any]) -> None:
        connection.execute("SELECT 1")
        together.wait(10)

    with program("psycopg_replicas")["Database"](
        cluster.primary.dsn, [replica.dsn], interval=60.0
    ) as database:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda _: database.read(wait), range(8)))
        replica.kill()
        replica.start()
        for _ in range(8):
            database.read(lambda c: c.execute("SELECT 1"))
        primary, restarted = database.balancer.status()
    assert restarted.recent_failures <= 1
    assert primary.picks <= 1


@pytest.mark.parametrize("name", ["psycopg_replicas", "sqlalchemy_replicas", "psycopg_asyncio"])
def test_programs_run_as_they_stand(
    cluster: Cluster, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each writes one row on the primary and reads it from the replicas."""
    done = program(name)["main"](*(each.dsn for each in cluster.all))
    if done is not None:
        asyncio.run(done)
    printed = capsys.readouterr().out.splitlines()
    assert "1" in printed[9]
    assert all("HEALTHY" in line for line in printed[-4:])
    cluster.primary.ask("DROP TABLE IF EXISTS users, people")
