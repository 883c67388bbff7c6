"""What the tests of health checks need: a clock to push, servers of their own, and patience."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Condition, Event, Thread
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Self

import trio
from tests.ports import free_port

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    HealthStatus,
    HealthTracker,
    NodeHealth,
    Outcome,
)
from loadwise.health_checks import AsyncHealthChecker, HealthChecker
from loadwise.testing import ManualClock

TIMEOUT = 20.0
"""Seconds after which a test gives up on something that should happen at once."""

KINDS = ("thread", "asyncio", "trio")

SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        kind, _, argument = self.path.strip("/").partition("/")
        if kind == "reset":
            self.close_connection = True
            return
        if kind == "babble":
            self.wfile.write(b"220 mail.example.com ESMTP\\r\\n")
            self.close_connection = True
            return
        if kind == "early":
            self.wfile.write(b"HTTP/1.1 100 Continue\\r\\n\\r\\n")
            self.wfile.write(b"HTTP/1.1 103 Early Hints\\r\\nLink: </a>\\r\\n\\r\\n")
        status = int(argument) if kind == "status" else 200
        if kind == "host":
            status = 200 if self.headers["Host"] == argument else 421
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    do_HEAD = do_GET

    def log_message(self, *args):
        pass

class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass

server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


class Server:
    """An HTTP server in a process of its own.

    ``/status/N`` answers N, ``/reset`` closes the connection, ``/babble`` does not speak HTTP,
    ``/early`` sends an interim response first, ``/host/H`` passes if the Host header is H;
    anything else answers 200.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.start()

    def start(self) -> None:
        """Start the process, on the same port as before."""
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(self.port)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """End the process with SIGKILL, which works on a stopped one, too."""
        self.process.kill()
        self.process.wait(TIMEOUT)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()


class Told:
    """A policy that counts what it is told of each node: one failure is enough, one pass mends."""

    probe_interval = 3600.0

    def __init__(self) -> None:
        self._inner = ConsecutiveFailurePolicy(1, 1)
        self._counts: Counter[Hashable] = Counter()
        self._changed = Condition()

    def next_status(self, health: NodeHealth, outcome: Outcome) -> HealthStatus:
        with self._changed:
            self._counts[health.id] += 1
            self._changed.notify_all()
        return self._inner.next_status(health, outcome)

    def until(self, node_id: Hashable, count: int) -> None:
        """Return as soon as it has been told this often of the node."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._counts[node_id] >= count, TIMEOUT)


class Watch:
    """Waits for a node of a tracker to change its state."""

    def __init__(self, tracker: HealthTracker) -> None:
        self._tracker = tracker
        self._changed = Condition()
        tracker.subscribe(self._note)

    def _note(self, *_change: object) -> None:
        with self._changed:
            self._changed.notify_all()

    def until(self, node_id: Hashable, status: HealthStatus) -> None:
        """Return as soon as the node is in this state."""
        with self._changed:
            assert self._changed.wait_for(
                lambda: self._tracker.status(node_id) is status, TIMEOUT
            ), f"{node_id!r} is {self._tracker.health(node_id)}, not {status}"


class PushedTime(ManualClock):
    """A clock that wakes who waits when it is pushed on; nobody sleeps."""

    def __init__(self) -> None:
        super().__init__(1000.0)
        self._events: set[Event] = set()
        self._async_events: set[asyncio.Event] = set()

    def wait(self, event: Event, _seconds: float) -> None:
        # A push before this event was known did not set it, so look at the time again.
        if event in self._events:
            assert event.wait(TIMEOUT)
        self._events.add(event)

    async def async_wait(self, event: asyncio.Event, _seconds: float) -> None:
        self._async_events.add(event)
        async with asyncio.timeout(TIMEOUT):
            await event.wait()

    def push(self, seconds: float) -> None:
        self.advance(seconds)
        for event in tuple(self._events):
            event.set()
        for async_event in tuple(self._async_events):
            async_event.set()


def until(condition: Callable[[], bool]) -> None:
    """Look again and again until something is the case."""
    end = monotonic() + TIMEOUT
    while not condition():
        assert monotonic() < end
        sleep(0.002)


@contextmanager
def checking(
    kind: str, balancer: Balancer[Any], probe: Callable[..., Any] | Any, **options: Any
) -> Iterator[None]:
    """Run a checker of any kind, the async ones in an event loop in another thread."""
    if kind == "thread":
        with HealthChecker(balancer, probe, **options):
            yield
        return

    finishing: list[Callable[[], object]] = []
    ready = Event()

    async def main() -> None:
        async with AsyncHealthChecker(balancer, probe, **options):
            finished: Any = asyncio.Event() if kind == "asyncio" else trio.Event()
            call_soon: Callable[..., object] = (
                asyncio.get_running_loop().call_soon_threadsafe
                if kind == "asyncio"
                else trio.lowlevel.current_trio_token().run_sync_soon
            )
            finishing.append(partial(call_soon, finished.set))
            ready.set()
            await finished.wait()

    def run() -> None:
        asyncio.run(main()) if kind == "asyncio" else trio.run(main)

    thread = Thread(target=run)
    thread.start()
    try:
        assert ready.wait(TIMEOUT)
        yield
    finally:
        for finish in finishing:
            finish()
        thread.join(TIMEOUT)
        assert not thread.is_alive()
