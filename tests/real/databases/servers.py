"""PostgreSQL and Valkey, each a primary with replicas, and a relay that resets connections."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import psycopg
from tests.ports import free_port

DEADLINE = 30.0
_ROOM = 2**29
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "4MB",
    "hot_standby_feedback": "on",
    "wal_retrieve_retry_interval": "100ms",
    "log_min_messages": "fatal",
}


def program(name: str) -> str | None:
    """Return the path of one of PostgreSQL's programs; ``None`` if there is none here."""
    # Debian has the server's programs in no path, one folder for each version.
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(versions[-1]) if versions else shutil.which(name)


def _memory() -> str | None:
    """Return a folder in memory, where copies of clusters cost next to nothing, if there is one."""
    folder = Path("/dev/shm")  # noqa: S108 - what is made in it has a name of its own
    roomy = folder.is_dir() and shutil.disk_usage(folder).free > _ROOM
    return str(folder) if roomy else None


def until(condition: Callable[[], Any], seconds: float = DEADLINE) -> Any:
    """Return what ``condition`` returns once it is true; fail after ``seconds``."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"still {found!r} after {seconds} s"
        time.sleep(0.005)
    return found


class Postgres:
    """A server in processes of its own; it can be killed, frozen and brought back.

    Args:
        data: Its folder.
        owner: Whom its processes belong to, because PostgreSQL refuses root; ``None`` for us.
        primary: Whom it follows, if it is a replica.
    """

    def __init__(self, data: Path, owner: str | None, primary: Postgres | None = None) -> None:
        self.port = free_port()
        self._data = data
        self._owner = owner
        self._settings = dict(_SETTINGS)
        if primary is not None:
            self._settings["primary_conninfo"] = primary.dsn
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """How it is reached; without a password, for it trusts everybody of this host."""
        return dsn(self.port)

    def begin(self) -> None:
        """Start it, and do not wait for it."""
        path = program("postgres")
        assert path is not None
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [path, "-D", str(self._data), "-p", str(self.port), *settings],
                cwd="/",
                stdout=subprocess.DEVNULL,
                stderr=log,
                user=self._owner,
            )

    def start(self) -> None:
        """Start it, and wait until it answers queries."""
        self.begin()
        self.wait()

    def wait(self) -> None:
        """Wait until it answers queries."""
        until(self._answers)

    @property
    def _log(self) -> Path:
        return self._data / "stderr"

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()[-2000:]
        with suppress(psycopg.OperationalError):
            self.ask("SELECT 1")
            return True
        return False

    def ask(self, query: str, *arguments: object) -> Any:
        """Return the first value of the answer to a query; ``None`` where there is no answer."""
        with psycopg.connect(self.dsn, connect_timeout=2, autocommit=True) as connection:
            cursor = connection.execute(query, arguments or None)
            row = cursor.fetchone() if cursor.description else None
            return row and row[0]

    def _pids(self) -> list[int]:
        """Return the process and its children, each of which has a session of its own."""
        assert self._process is not None
        parent = str(self._process.pid)
        found = [self._process.pid]
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                if path.read_text().rpartition(")")[2].split()[1] == parent:
                    found.append(int(path.parent.name))
        return found

    def _signal(self, number: int) -> None:
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def freeze(self) -> None:
        """Have it hang: the kernel accepts connections, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it with all its processes; `start` brings it back."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait(DEADLINE)
            self._process = None


def dsn(port: int) -> str:
    """Return how to reach a server on a port."""
    return f"host=127.0.0.1 port={port} user=postgres dbname=postgres"


class Cluster:
    """A primary of PostgreSQL and replicas that follow it by streaming replication."""

    def __init__(self, replicas: int) -> None:
        self._owner = "postgres" if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="loadwise-", dir=_memory()))
        if self._owner is not None:
            shutil.chown(self._folder, self._owner)
        first = self._folder / "primary"
        self.primary = Postgres(first, self._owner)
        self.replicas: list[Postgres] = []
        try:
            options = "-U postgres -A trust -N --locale=C -E UTF8 --wal-segsize=1"
            self._run(program("initdb"), "-D", first, *options.split())
            for number in range(replicas):
                # A copy of what has never been started is a base backup without the wait for one.
                data = self._folder / f"replica-{number}"
                self._run("/bin/cp", "-a", first, data)
                self._run("/bin/touch", data / "standby.signal")
                self.replicas.append(Postgres(data, self._owner, self.primary))
            for each in self.all:
                each.begin()
            for each in self.all:
                each.wait()
        except BaseException:
            self.stop()
            raise

    @property
    def all(self) -> list[Postgres]:
        """The primary and its replicas."""
        return [self.primary, *self.replicas]

    def _run(self, *command: object) -> None:
        subprocess.run(
            [*map(str, command)],
            cwd="/",
            check=True,
            stdout=subprocess.DEVNULL,
            user=self._owner,
        )

    def catch_up(self) -> None:
        """Wait until all replicas have what the primary has."""
        at = self.primary.ask("SELECT pg_current_wal_lsn()")
        for each in self.replicas:
            until(partial(each.ask, "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", at))

    def stop(self) -> None:
        """Stop all of it for good, whatever state it is in."""
        for each in self.all:
            each.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


class Relay:
    """Passes bytes to a server and back; while it is told to, it resets every connection.

    Args:
        port: Of the server.
    """

    def __init__(self, port: int) -> None:
        self._server = port
        self._lock = Lock()
        self._open: list[socket.socket] = []
        self._resets = False
        self._loses = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def reset(self) -> None:
        """Reset all connections, and from now on new ones with their first bytes."""
        with self._lock:
            self._resets = True
            _cut(self._open)

    def lose_an_answer(self) -> None:
        """Pass on what is sent next, and reset its connection instead of passing on the answer."""
        self._loses = True

    def restore(self) -> None:
        """Pass everything on again."""
        with self._lock:
            self._resets = False

    def stop(self) -> None:
        """Stop for good."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.reset()
        for thread in self._threads:
            thread.join(DEADLINE)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with self._lock:
                    if self._resets:
                        _cut([client])
                        continue
                    server = socket.create_connection(("127.0.0.1", self._server))
                    self._open += [client, server]
                for pair in ((client, server), (server, client)):
                    self._threads.append(Thread(target=self._pass_on, args=pair, daemon=True))
                    self._threads[-1].start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if self._loses and source.getpeername()[1] == self._server:
                    self._loses = False
                    break
                target.sendall(data)
        with self._lock:
            _cut([each for each in (source, target) if each in self._open])


def _cut(connections: Sequence[socket.socket]) -> None:
    """Reset connections, though threads may wait for them."""
    for each in list(connections):
        with suppress(OSError):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.shutdown(socket.SHUT_RDWR)
        each.close()
