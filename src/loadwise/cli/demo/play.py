"""What every run of the demo plays: three acts, in which a server dies and returns."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from loadwise.cli.demo.child import ChildError
from loadwise.cli.demo.fleet import Fleet
from loadwise.cli.demo.plan import Plan
from loadwise.cli.demo.process import Server
from loadwise.health import HealthStatus

__all__ = ["ACTS", "DOOMED", "MEANING", "Counts", "Event", "Play"]

ACTS = 3
DOOMED = "doomed"

MEANING = {
    HealthStatus.DEGRADED: "begins to fail: DEGRADED",
    HealthStatus.UNHEALTHY: "is UNHEALTHY: no traffic but one probe every {interval:g} s",
    HealthStatus.RECOVERING: "answered its probe: RECOVERING",
    HealthStatus.HEALTHY: "is HEALTHY: back in full traffic",
}


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth telling; ``act`` is its number where it opens one."""

    seconds: float
    text: str
    act: int | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """How far the requests are: come to an end, answered, answered late, lost."""

    completed: int
    answered: int
    retried: int
    lost: int


class Play(ABC):
    """The acts; who sends the requests is for others to say.

    Args:
        fleet: Running servers.
        plan: What to run.

    Attributes:
        events: What happened, in order.
        act: The number of the present act.
        began: When it began, by the monotonic clock.
        killed_at: When it killed a server, by the same clock.
        seconds: How long it took, once it is over.
    """

    def __init__(self, fleet: Fleet, plan: Plan) -> None:
        self.fleet = fleet
        self.plan = plan
        self.events: deque[Event] = deque()
        self.act = 0
        self.seconds = 0.0
        self.killed_at = math.inf
        self._restarting: Server | None = None
        self._acts: deque[tuple[float, Callable[[], None]]] = deque(
            [(0.0, self._begin), (1 / 3, self._kill), (2 / 3, self._restart)]
        )
        self.began = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return self.seconds or time.monotonic() - self.began

    @property
    @abstractmethod
    def counts(self) -> Counts:
        """How far the requests are."""

    @abstractmethod
    def start(self) -> None:
        """Start sending."""

    @abstractmethod
    def wait(self, timeout: float) -> bool:
        """Wait for the end of the requests; return whether it has come."""

    @abstractmethod
    def stop(self) -> None:
        """Send nothing more, and wait for the requests under way."""

    @abstractmethod
    def open(self) -> None:
        """Let the last requests pass."""

    @abstractmethod
    def aim(self) -> str:
        """Wait for a good moment to kill a server; return what is special about it."""

    def play(self, show: Callable[[], None], tick: float) -> None:
        """Run all acts, calling ``show`` every ``tick`` seconds and at the end."""
        self._advance()
        self.start()
        try:
            while not self.wait(tick):
                self._advance()
                show()
        finally:
            self.stop()
            self.seconds = time.monotonic() - self.began
        show()

    def tell(self, text: str) -> None:
        """Take note of something worth telling."""
        self.events.append(Event(self.elapsed, text))

    def _advance(self) -> None:
        """Go on to the next act when enough requests are through."""
        while self._acts and self.counts.completed >= self._acts[0][0] * self.plan.requests:
            self.act += 1
            self._acts.popleft()[1]()
        if self._restarting is not None:
            self._greet(self._restarting)

    def _begin(self) -> None:
        self._open_act("three servers are well, slow is slow, flaky fails now and then")

    def _kill(self) -> None:
        self._open_act(f"doomed is killed (SIGKILL){self.aim()}")
        self.killed_at = time.monotonic()
        self.fleet[DOOMED].kill()

    def _restart(self) -> None:
        self._restarting = self.fleet[DOOMED]
        self._restarting.start()
        self._open_act("doomed is started again")

    def _greet(self, server: Server) -> None:
        """Let the last requests pass once a server that is being restarted listens."""
        try:
            if not server.is_ready():
                return
            self.tell(f"{server.name} listens on port {server.port} again, as pid {server.pid}")
        except ChildError as error:
            self.tell(str(error))
        self._restarting = None
        self.open()

    def _open_act(self, text: str) -> None:
        self.events.append(Event(self.elapsed, text, self.act))
