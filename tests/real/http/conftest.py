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
    """A server process; it can be killed, frozen, made to misbehave, and brought back.

    Attributes:
        spared: Whether nobody has sent it a signal.
    """

    def __init__(self, journal: Path) -> None:
        self.spared = True
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
        self.spared = False
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """Kill it and wait for its end."""
        self.spared = False
        self.process.kill()
        self.process.wait(10)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def acted_on(self) -> list[str]:
        """The ids of the requests it has acted on."""
        return self.journal.read_text().split()


@pytest.fixture(scope="module")
def idle_upstreams() -> Iterator[list[Upstream]]:
    """Servers that the tests of a file have started and left unharmed, for the next of them."""
    idle: list[Upstream] = []
    yield idle
    for each in idle:
        each.kill()


@pytest.fixture
def upstreams(
    tmp_path_factory: pytest.TempPathFactory, idle_upstreams: list[Upstream]
) -> Iterator[Callable[[int], list[Upstream]]]:
    """Give as many servers as asked for, of good manners and with empty journals."""
    used: list[Upstream] = []

    def start(count: int) -> list[Upstream]:
        given = [
            idle_upstreams.pop()
            if idle_upstreams
            else Upstream(tmp_path_factory.mktemp("upstream") / "journal")
            for _ in range(count)
        ]
        used.extend(given)
        return given

    yield start
    for each in used:
        if each.spared:
            each.behave("")
            each.journal.write_text("")
            idle_upstreams.append(each)
        else:
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
