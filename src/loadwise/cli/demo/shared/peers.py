"""The other processes of ``loadwise demo --shared``, as their parent sees them."""

from __future__ import annotations

import json
from dataclasses import dataclass

from loadwise.cli.demo.child import Child
from loadwise.cli.demo.play import Counts
from loadwise.cli.demo.shared.settings import Settings
from loadwise.cli.demo.traffic import Answer
from loadwise.health import HealthStatus

__all__ = ["Client", "News", "Store"]

_PROGRAMS = "loadwise.cli.demo.shared"


@dataclass(frozen=True, slots=True)
class News:
    """That a client holds a server for healthy, or not, from now on.

    Attributes:
        at: When, by the monotonic clock.
        client: The client's name.
        server: The server's name.
        old: The state before.
        new: The state from now on.
        found: Whether the client found it out by its own requests; else it was told.
    """

    at: float
    client: str
    server: str
    old: HealthStatus
    new: HealthStatus
    found: bool


class Store(Child):
    """The Valkey server, and the process that keeps it.

    Attributes:
        port: Where it listens.
        server_pid: The server's own process.
    """

    def __init__(self) -> None:
        super().__init__("valkey")
        self.port = 0
        self.server_pid = 0

    def start(self) -> None:
        """Start it."""
        self.run("-P", "-m", f"{_PROGRAMS}.keeper")

    def hear(self, word: str, rest: str) -> bool:
        """Take note of where it is."""
        if word != "port":
            return False
        port, _, pid = rest.partition(" ")
        self.port, self.server_pid = int(port), int(pid)
        self.greet()
        return True


class Client(Child):
    """One client process.

    Attributes:
        counts: How far its requests are.
        news: What it found out or was told of the servers' health.
        answers: What was answered, once it is through.
        failures: When its failed attempts failed, and on which server, once it is through.
        lost: Why requests were given up, by number, once it is through.
        outages: How often it could not reach Valkey, once it is through.
        is_through: Whether it has told all.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.counts = Counts(0, 0, 0, 0)
        self.news: list[News] = []
        self.answers: list[Answer] = []
        self.failures: list[tuple[float, str]] = []
        self.lost: dict[int, str] = {}
        self.outages = 0
        self.is_through = False

    def start(self, settings: Settings) -> None:
        """Start it; it waits for the word to begin."""
        self.run("-P", "-m", f"{_PROGRAMS}.client", settings.to_json())

    def hear(self, word: str, rest: str) -> bool:
        """Take note of what it tells."""
        match word:
            case "ready":
                self.greet()
            case "counts":
                self.counts = Counts(*json.loads(rest))
            case "health":
                at, server, old, new, found = json.loads(rest)
                states = HealthStatus[old], HealthStatus[new]
                self.news.append(News(at, self.name, server, *states, found))
            case "answer":
                self.answers.append(Answer(*json.loads(rest)))
            case "failed":
                at, server = json.loads(rest)
                self.failures.append((at, server))
            case "lost":
                number, why = json.loads(rest)
                self.lost[number] = why
            case "end":
                (self.outages,) = json.loads(rest)
                self.is_through = True
            case _:
                return False
        return True
