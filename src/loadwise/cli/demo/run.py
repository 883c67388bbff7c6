"""One run of the demo: three acts, in which a server dies and returns under traffic."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from loadwise.balancer import Balancer, NodeStatus
from loadwise.cli.demo.choices import CHOICES
from loadwise.cli.demo.fleet import Fleet
from loadwise.cli.demo.plan import Plan
from loadwise.cli.demo.process import Server, ServerError
from loadwise.cli.demo.stream import Stream
from loadwise.cli.demo.traffic import Traffic
from loadwise.health import ConsecutiveFailurePolicy, HealthStatus, HealthTracker
from loadwise.metrics import NoopCollector
from loadwise.nodes import Endpoint

__all__ = ["ACTS", "Event", "Run", "Transition"]

ACTS = 3
_LONGEST_AIM = 0.25
_GATE = 0.8


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth telling; ``act`` is its number where it opens one."""

    seconds: float
    text: str
    act: int | None = None


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of a server's state of health."""

    seconds: float
    server: str
    old: HealthStatus
    new: HealthStatus


class Run(NoopCollector):
    """The servers, the balancer and the clients, and what happens to them.

    Args:
        fleet: Running servers.
        choice: Name of the strategy.
        plan: What to run.

    Attributes:
        events: What happened, in order.
        transitions: How states of health changed, in order.
        caught: Requests in flight on the server that was killed, when it was.
        began: When it began, by the monotonic clock.
        seconds: How long it took, once it is over.
    """

    def __init__(self, fleet: Fleet, choice: str, plan: Plan) -> None:
        self.fleet = fleet
        self.choice = choice
        self.plan = plan
        self.events: deque[Event] = deque()
        self.transitions: list[Transition] = []
        self.act = 0
        self.caught = 0
        self.seconds = 0.0
        self._restarting: Server | None = None
        self._acts: deque[tuple[float, Callable[[], None]]] = deque(
            [(0.0, self._begin), (1 / 3, self._kill), (2 / 3, self._restart)]
        )
        self._health = HealthTracker(ConsecutiveFailurePolicy(probe_interval=plan.probe_interval))
        self.balancer = Balancer(
            [Endpoint(server.name, weight=server.profile.weight) for server in fleet],
            CHOICES[choice].make(random.Random(plan.seed)),
            health=self._health,
            metrics=self,
            name="demo",
        )
        gate = int(plan.requests * _GATE)
        self._stream = Stream(plan.requests, plan.seconds, plan.seed, gate)
        ports = {server.name: server.port for server in fleet}
        self.traffic = Traffic(self.balancer, ports, self._stream, plan.concurrency)
        self.began = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return self.seconds or time.monotonic() - self.began

    @property
    def lost(self) -> int:
        """Requests that were taken on and not answered."""
        return self._stream.taken - len(self.traffic.answers)

    def status(self) -> dict[str, NodeStatus]:
        """How the balancer sees each server."""
        return {str(status.id): status for status in self.balancer.status()}

    def play(self, show: Callable[[], None], tick: float) -> None:
        """Run all acts, calling ``show`` every ``tick`` seconds and at the end."""
        self._advance()
        self.traffic.start()
        try:
            while not self.traffic.wait(tick):
                self._advance()
                show()
        finally:
            self.traffic.stop()
            self.seconds = time.monotonic() - self.began
        show()

    def _advance(self) -> None:
        """Go on to the next act when enough requests are through."""
        while self._acts and self.traffic.completed >= self._acts[0][0] * self.plan.requests:
            self.act += 1
            self._acts.popleft()[1]()
        if self._restarting is not None:
            self._greet(self._restarting)

    def _begin(self) -> None:
        self._open_act("three servers are well, slow is slow, flaky fails now and then")

    def _kill(self) -> None:
        doomed = self.fleet["doomed"]
        # The worst moment to die is with requests under way, so that is the moment to choose.
        latest = time.monotonic() + _LONGEST_AIM
        while not self._in_flight(doomed) and time.monotonic() < latest:
            time.sleep(0.0002)
        self.caught = self._in_flight(doomed)
        count = f"{self.caught} request{'' if self.caught == 1 else 's'}"
        self._open_act(f"doomed is killed (SIGKILL) with {count} in flight")
        doomed.kill()

    def _restart(self) -> None:
        self._restarting = self.fleet["doomed"]
        self._restarting.start()
        self._open_act("doomed is started again")

    def _greet(self, server: Server) -> None:
        """Let the last requests pass once a server that is being restarted listens."""
        try:
            if not server.is_ready():
                return
            self.tell(f"{server.name} listens on port {server.port} again, as pid {server.pid}")
        except ServerError as error:
            self.tell(str(error))
        self._restarting = None
        self._stream.open()

    def _in_flight(self, server: Server) -> int:
        return self.status()[server.name].in_flight

    def _open_act(self, text: str) -> None:
        self.events.append(Event(self.elapsed, text, self.act))

    def tell(self, text: str) -> None:
        """Take note of something worth telling."""
        self.events.append(Event(self.elapsed, text))

    def on_health_change(self, node_id: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        """Take note of a change of health."""
        name = str(node_id)
        self.transitions.append(Transition(self.elapsed, name, old, new))
        self.tell(f"{name} {_MEANING[new].format(interval=self.plan.probe_interval)}")


_MEANING = {
    HealthStatus.DEGRADED: "begins to fail: DEGRADED",
    HealthStatus.UNHEALTHY: "is UNHEALTHY: no traffic but one probe every {interval:g} s",
    HealthStatus.RECOVERING: "answered its probe: RECOVERING",
    HealthStatus.HEALTHY: "is HEALTHY: back in full traffic",
}
