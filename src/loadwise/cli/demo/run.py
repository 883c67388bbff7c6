"""One run of the demo: a balancer and its clients, in three acts in which a server is killed."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from loadwise.balancer import Balancer, NodeStatus
from loadwise.cli.demo.choices import make
from loadwise.cli.demo.fleet import DemoFleet
from loadwise.cli.demo.plan import DemoPlan
from loadwise.cli.demo.server import RestartingServer, ServerError
from loadwise.cli.demo.stream import Stream
from loadwise.cli.demo.traffic import Traffic, TrafficCounts
from loadwise.health import ConsecutiveFailurePolicy, HealthStatus, HealthTracker
from loadwise.metrics import NoopCollector
from loadwise.nodes import Endpoint
from loadwise.outcome import Outcome

__all__ = ["ACTS", "DemoRun", "Event", "Transition"]

ACTS = 3

_DOOMED = "doomed"
_LONGEST_AIM = 0.25
_MEANINGS = {
    HealthStatus.DEGRADED: "begins to fail: DEGRADED",
    HealthStatus.UNHEALTHY: "is UNHEALTHY: no traffic but one probe every {interval:g} s",
    HealthStatus.RECOVERING: "answered its probe: RECOVERING",
    HealthStatus.HEALTHY: "is HEALTHY: back in full traffic",
}


@dataclass(frozen=True, slots=True)
class Event:
    """A line to show; ``act`` is the number of the act that it opens, if it opens one."""

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


class DemoRun(NoopCollector):
    """The servers, the balancer and the clients, and what happens to them.

    Args:
        fleet: Running servers.
        choice: Name of the strategy.
        plan: The size of the run.

    Attributes:
        balancer: The balancer that the clients use.
        traffic: The clients.
        events: Events to show, in order; whoever shows one removes it.
        transitions: Changes of health, in order.
        failures: The servers of the attempts that failed, in order.
        caught: Requests in flight on the server that was killed, when it was.
        act: The number of the present act.
        began: When it began, by the monotonic clock.
        seconds: How long it took, once it is over.
    """

    def __init__(self, fleet: DemoFleet, choice: str, plan: DemoPlan) -> None:
        self.fleet = fleet
        self.choice = choice
        self.plan = plan
        self.events: deque[Event] = deque()
        self.transitions: list[Transition] = []
        self.failures: list[str] = []
        self.caught = 0
        self.act = 0
        self.seconds = 0.0
        # Each act begins when this share of the requests is through.
        self._acts: deque[tuple[float, Callable[[], None]]] = deque(
            [(0.0, self._begin), (1 / 3, self._kill), (2 / 3, self._restart)]
        )
        self._restarting: RestartingServer | None = None
        self.balancer = Balancer(
            [Endpoint(server.name, weight=server.profile.weight) for server in fleet],
            make(choice, random.Random(plan.seed)),
            health=HealthTracker(ConsecutiveFailurePolicy(probe_interval=plan.probe_interval)),
            metrics=self,
            name="demo",
        )
        self._stream = Stream(plan.requests, plan.seconds, plan.seed, plan.gate)
        ports = {server.name: server.port for server in fleet}
        self.traffic = Traffic(self.balancer, ports, self._stream, plan.concurrency)
        self.began = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return self.seconds or time.monotonic() - self.began

    @property
    def counts(self) -> TrafficCounts:
        """Numbers of requests so far."""
        return self.traffic.counts

    @property
    def lost(self) -> int:
        """Requests that were taken on and not answered."""
        return self._stream.taken - len(self.traffic.answers)

    def status(self) -> dict[str, NodeStatus]:
        """Return the balancer's view of each server."""
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

    def on_health_change(self, node_id: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        """Record a change of health."""
        name = str(node_id)
        self.transitions.append(Transition(self.elapsed, name, old, new))
        self._tell(f"{name} {_MEANINGS[new].format(interval=self.plan.probe_interval)}")

    def on_outcome(self, node_id: Hashable, outcome: Outcome, latency: float) -> None:  # noqa: ARG002 - as in the base
        """Record an attempt that failed."""
        if outcome is Outcome.FAILURE:
            self.failures.append(str(node_id))

    def _advance(self) -> None:
        """Go on to the next act when enough requests are through."""
        while self._acts and self.counts.completed >= self._acts[0][0] * self.plan.requests:
            self.act += 1
            self._acts.popleft()[1]()
        if self._restarting is not None:
            self._await(self._restarting)

    def _begin(self) -> None:
        self._open_act("three servers are well, slow is slow, flaky fails now and then")

    def _kill(self) -> None:
        self.caught = self._aim()
        plural = "" if self.caught == 1 else "s"
        self._open_act(f"doomed is killed (SIGKILL) with {self.caught} request{plural} in flight")
        self.fleet[_DOOMED].kill()

    def _restart(self) -> None:
        self._restarting = self.fleet[_DOOMED]
        self._restarting.start()
        self._open_act("doomed is started again")

    def _aim(self) -> int:
        """Wait until the server has requests in flight, the worst moment to die."""
        latest = time.monotonic() + _LONGEST_AIM
        while not (in_flight := self.status()[_DOOMED].in_flight) and time.monotonic() < latest:
            time.sleep(0.0002)
        return in_flight

    def _await(self, server: RestartingServer) -> None:
        """Let the last requests pass once a server that is being restarted listens."""
        try:
            if not server.is_ready():
                return
            self._tell(f"{server.name} listens on port {server.port} again, as pid {server.pid}")
        except ServerError as error:
            self._tell(str(error))
        self._restarting = None
        self._stream.open()

    def _tell(self, text: str) -> None:
        self.events.append(Event(self.elapsed, text))

    def _open_act(self, text: str) -> None:
        self.events.append(Event(self.elapsed, text, self.act))
