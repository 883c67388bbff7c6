"""The clients of the demo: threads that send real requests, each through the balancer."""

from __future__ import annotations

import select
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from threading import Event, Lock, Thread

from loadwise.balancer import Balancer
from loadwise.cli.demo.server import HOST, answer_to
from loadwise.cli.demo.stream import Stream
from loadwise.errors import NoNodeAvailable
from loadwise.nodes import Endpoint

__all__ = ["Answer", "AnswerError", "Failure", "Traffic"]

_TIMEOUT = 2.0


class AnswerError(Exception):
    """A server answered, but not what it was asked."""


_TROUBLE = (OSError, HTTPException, AnswerError)


@dataclass(frozen=True, slots=True)
class Answer:
    """A request that was answered: by whom, at which attempt, when, after how many seconds."""

    number: int
    server: str
    attempt: int
    at: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that failed: on which server, and how."""

    number: int
    server: str
    error: str


class Traffic:
    """Client threads that send the requests of a stream.

    Attributes:
        answers: What was answered.
        failures: The attempts that failed.
        lost: Why requests were given up, by number.
    """

    def __init__(
        self,
        balancer: Balancer[Endpoint],
        ports: Mapping[str, int],
        stream: Stream,
        concurrency: int,
    ) -> None:
        self.answers: list[Answer] = []
        self.failures: list[Failure] = []
        self.lost: dict[int, str] = {}
        self._balancer = balancer
        self._ports = ports
        self._stream = stream
        self._busy = concurrency
        self._lock = Lock()
        self._done = Event()
        self._threads = [Thread(target=self._work, daemon=True) for _ in range(concurrency)]

    @property
    def completed(self) -> int:
        """How many requests have come to an end, good or bad."""
        return len(self.answers) + len(self.lost)

    @property
    def retried(self) -> int:
        """How many requests were answered by another server than the first one asked."""
        return sum(answer.attempt > 1 for answer in self.answers)

    def start(self) -> None:
        """Start sending."""
        for thread in self._threads:
            thread.start()

    def wait(self, timeout: float) -> bool:
        """Wait for the end; return whether it has come."""
        return self._done.wait(timeout)

    def stop(self) -> None:
        """Send nothing more, and wait for the requests under way."""
        self._stream.stop()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(2 * _TIMEOUT)

    def _work(self) -> None:
        connections: dict[str, HTTPConnection] = {}
        try:
            while (number := self._stream.take()) is not None:
                self._send(number, connections)
        finally:
            for connection in connections.values():
                connection.close()
            with self._lock:
                self._busy -= 1
                if not self._busy:
                    self._done.set()

    def _send(self, number: int, connections: dict[str, HTTPConnection]) -> None:
        """Send one request, on as many servers as it takes."""
        began = time.monotonic()
        attempts = self._balancer.attempts(
            len(self._ports), retry_on=_TROUBLE, hash_key=f"request {number}"
        )
        try:
            for attempt in attempts:
                with attempt as lease:
                    name = str(lease.node.id)
                    self._ask(name, number, connections)
                    now = time.monotonic()
                    self.answers.append(Answer(number, name, attempt.number, now, now - began))
        except (*_TROUBLE, NoNodeAvailable) as error:
            self.lost[number] = _in_words(error)

    def _ask(self, name: str, number: int, connections: dict[str, HTTPConnection]) -> None:
        """Have one server answer, and check its answer."""
        connection = connections.get(name)
        if connection is None:
            connection = HTTPConnection(HOST, self._ports[name], timeout=_TIMEOUT)
            connections[name] = connection
        elif _has_ended(connection):
            connection.close()  # the next request opens it anew
        try:
            connection.request("GET", f"/requests/{number}")
            response = connection.getresponse()
            body = response.read()
            if response.status != HTTPStatus.OK:
                raise AnswerError(f"{response.status} {response.reason}")
            if body != answer_to(name, str(number)):
                raise AnswerError(f"request {number} to {name!r} was answered with {body!r}")
        except _TROUBLE as error:
            if not isinstance(error, AnswerError):
                connection.close()
            self.failures.append(Failure(number, name, _in_words(error)))
            raise


def _has_ended(connection: HTTPConnection) -> bool:
    """Whether the server has closed an idle connection: there is an end to read."""
    return connection.sock is not None and bool(select.select([connection.sock], [], [], 0)[0])


def _in_words(error: Exception) -> str:
    text = str(error)
    return type(error).__name__ + (f": {text}" if text else "")
