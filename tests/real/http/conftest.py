"""Real upstream servers, each in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.ports import free_port
from tests.real.http.conversing import Scripted

UPSTREAM = Path(__file__).with_name("upstream.py")


class Upstream:
    """A server process; it can be killed, frozen, made to misbehave, and brought back."""

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self.journal.touch()
        self.port = free_port()
        self.start()

    def start(self) -> None:
        """Start it, on the port it had before."""
        self.process = subprocess.Popen(
            [sys.executable, str(UPSTREAM), str(self.journal), str(self.port)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    @property
    def address(self) -> str:
        """Its address, host:port."""
        return f"127.0.0.1:{self.port}"

    def behave(self, manners: str) -> None:
        """Make it ``"fail"`` or ``"reset"`` every request, or ``""`` for good manners."""
        request = urllib.request.Request(f"http://{self.address}/_manners", manners.encode())
        urllib.request.urlopen(request, timeout=10).close()  # noqa: S310 - a literal http URL

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """Kill it and wait for its end."""
        self.process.kill()
        self.process.wait(10)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def acted_on(self) -> list[str]:
        """The ids of the requests it has acted on."""
        return self.journal.read_text().split()


@pytest.fixture
def upstreams(tmp_path: Path) -> Iterator[Callable[[int], list[Upstream]]]:
    """Start as many servers as asked for; stop them in the end."""
    started: list[Upstream] = []

    def start(count: int) -> list[Upstream]:
        fresh = [Upstream(tmp_path / f"journal-{len(started) + i}") for i in range(count)]
        started.extend(fresh)
        return fresh

    yield start
    for each in started:
        each.kill()


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    """Start processes of servers with manners; stop them in the end."""
    started: list[Scripted] = []

    def start(manner: str, count: int = 1, certificate: tuple[Path, ...] = ()) -> Scripted:
        started.append(Scripted(manner, count, certificate))
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture
def dead() -> Iterator[str]:
    """An address where nobody listens: the port of a socket that is bound but not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"
