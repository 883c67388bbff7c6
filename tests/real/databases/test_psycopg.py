"""Replicas of a real PostgreSQL by psycopg: the programs of the guide, on bad days."""

from __future__ import annotations

import runpy
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

import psycopg
import pytest
from tests.real.databases.servers import Cluster, Relay, dsn, until

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "databases"
READERS, WRITERS = 6, 2


def program(name: str) -> dict[str, Any]:
    """Return what a program of the guide defines."""
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


@pytest.fixture
def notes(cluster: Cluster) -> Iterator[None]:
    """An empty table, known to all."""
    cluster.primary.ask("CREATE TABLE notes (number int)")
    cluster.catch_up()
    yield
    cluster.primary.ask("DROP TABLE notes")
    cluster.catch_up()


class Load:
    """Readers and writers in threads, until told to end."""

    def __init__(self, read: Callable[[], object], write: Callable[[int], object]) -> None:
        self.read: Counter[str] = Counter()
        self.written: dict[int, str] = {}
        self._asked = read, write
        self._over = Event()
        self._numbers = count()
        self._pool = ThreadPoolExecutor(READERS + WRITERS)
        self._running = [self._pool.submit(self._keep_reading) for _ in range(READERS)]
        self._running += [self._pool.submit(self._keep_writing) for _ in range(WRITERS)]

    def _keep_reading(self) -> None:
        while not self._over.is_set():
            self.read[outcome(self._asked[0])] += 1

    def _keep_writing(self) -> None:
        while not self._over.is_set():
            number = next(self._numbers)
            self.written[number] = outcome(lambda number=number: self._asked[1](number))

    def until_read(self, more: int) -> None:
        """Wait until so many more reads have been answered."""
        aim = self.read["ok"] + more
        until(lambda: self.read["ok"] >= aim)

    def end(self) -> None:
        """Have all of them end."""
        self._over.set()
        for each in self._running:
            each.result()
        self._pool.shutdown()


def outcome(work: Callable[[], object]) -> str:
    """Return how something ended."""
    try:
        work()
    except psycopg.Error as error:
        return type(error).__name__
    return "ok"


def test_reads_survive_and_no_write_is_done_twice(
    cluster: Cluster, relay: Relay, notes: None
) -> None:
    """One replica is killed, one frozen, one resets; all come back; then the primary goes."""
    killed, frozen, _ = cluster.replicas
    where = [killed.dsn, frozen.dsn, dsn(relay.port)]
    database = program("psycopg_replicas")["Database"](
        cluster.primary.dsn, where, patience=0.5, interval=0.2
    )
    with database:
        load = Load(
            lambda: database.read(lambda c: c.execute("SELECT count(*) FROM notes").fetchone()),
            lambda n: database.write(lambda c: c.execute("INSERT INTO notes VALUES (%s)", [n])),
        )
        load.until_read(200)
        killed.kill()
        load.until_read(50)
        frozen.freeze()
        load.until_read(50)
        relay.reset()
        load.until_read(200)
        killed.start()
        frozen.thaw()
        relay.restore()
        replicas = [str(each) for each in where]
        before = {s.id: s.successes for s in database.balancer.status()}
        until(
            lambda: all(
                s.successes > before[s.id] for s in database.balancer.status() if s.id in replicas
            )
        )
        load.end()
        print(load.read, Counter(load.written.values()))
        assert set(load.read) == {"ok"}
        assert [s.in_flight for s in database.balancer.status()] == [0] * 4
