"""The clients of the demo: threads that send real requests, each through the transport."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from threading import Event, Lock, Thread

import httpx2

from loadwise.balancer import Balancer
from loadwise.cli.demo.server_program import HOST, answer_to
from loadwise.cli.demo.stream import Stream
from loadwise.errors import NoNodeAvailable
from loadwise.integrations.httpx2 import LoadwiseTransport
from loadwise.nodes import Endpoint

__all__ = ["Answer", "AnswerError", "Traffic", "TrafficCounts"]

_TIMEOUT = 2.0
# Each thread may have a connection to each server, and keeps it.
_NO_LIMITS = httpx2.Limits()


class AnswerError(Exception):
    """A request was answered, but not well, or not with what it asked for."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A request that was answered: by whom, at which attempt, when, after how many seconds."""

    number: int
    server: str
    attempt: int
    at: float
    seconds: float


@dataclass(frozen=True, slots=True)
class TrafficCounts:
    """Numbers of requests so far: those that ended, were answered, answered late, lost."""

    completed: int
    answered: int
    retried: int
    lost: int


class Traffic:
    """Client threads that send the requests of a stream, all through one client.

    A request is tried on as many servers as there are; failed attempts are reported to the
    balancer's metrics collector.

    Attributes:
        answers: The requests that were answered.
        lost: The errors of those that were given up, by number.
    """

    def __init__(
        self,
        balancer: Balancer[Endpoint],
        ports: Mapping[str, int],
        stream: Stream,
        concurrency: int,
    ) -> None:
        self.answers: list[Answer] = []
        self.lost: dict[int, str] = {}
        urls = {name: f"http://{HOST}:{port}" for name, port in ports.items()}
        transport = LoadwiseTransport(
            balancer,
            # Nothing is encrypted here, and to load certificates would take a while.
            httpx2.HTTPTransport(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), limits=_NO_LIMITS),
            url=lambda node: urls[node.id],
            max_attempts=len(ports),
        )
        self._client = httpx2.Client(transport=transport, timeout=_TIMEOUT)
        self._stream = stream
        self._busy = concurrency
        self._lock = Lock()
        self._done = Event()
        self._threads = [Thread(target=self._work, daemon=True) for _ in range(concurrency)]

    @property
    def counts(self) -> TrafficCounts:
        """Numbers of requests so far."""
        answered, lost = len(self.answers), len(self.lost)
        return TrafficCounts(answered + lost, answered, self.retried, lost)

    @property
    def retried(self) -> int:
        """Requests that were answered by another server than the first one asked."""
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
        self._client.close()

    def _work(self) -> None:
        try:
            while (number := self._stream.take()) is not None:
                self._send(number)
        finally:
            with self._lock:
                self._busy -= 1
                if not self._busy:
                    self._done.set()

    def _send(self, number: int) -> None:
        """Send one request, and record its answer or its error."""
        began = time.monotonic()
        try:
            response = self._client.get(
                f"http://service/requests/{number}",
                extensions={"loadwise": {"hash_key": f"request {number}"}},
            )
            server, attempts = _check(number, response)
        except (httpx2.TransportError, NoNodeAvailable, AnswerError) as error:
            self.lost[number] = _in_words(error)
            return
        now = time.monotonic()
        self.answers.append(Answer(number, server, attempts, now, now - began))


def _check(number: int, response: httpx2.Response) -> tuple[str, int]:
    """Return the server that answered a request, and the number of the attempt.

    Raises:
        AnswerError: The answer is not what was asked for.
    """
    route = response.extensions["loadwise"]
    server = str(route["node"])
    if response.status_code != HTTPStatus.OK:
        raise AnswerError(f"{response.status_code} {response.reason_phrase} from {server!r}")
    if response.content != answer_to(server, str(number)):
        raise AnswerError(f"request {number} to {server!r} was answered with {response.content!r}")
    return server, route["attempts"]


def _in_words(error: Exception) -> str:
    text = str(error)
    return type(error).__name__ + (f": {text}" if text else "")
