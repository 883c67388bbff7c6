"""One run of the demo in one process: a balancer, its clients, and what happens to them."""

from __future__ import annotations

import random
import time
from collections.abc import Hashable
from dataclasses import dataclass

from loadwise.balancer import Balancer, NodeStatus
from loadwise.cli.demo.choices import make
from loadwise.cli.demo.fleet import Fleet
from loadwise.cli.demo.plan import Plan
from loadwise.cli.demo.play import DOOMED, MEANING, Counts, Play
from loadwise.cli.demo.stream import Stream
from loadwise.cli.demo.traffic import Traffic
from loadwise.health import ConsecutiveFailurePolicy, HealthStatus, HealthTracker
from loadwise.metrics import NoopCollector
from loadwise.nodes import Endpoint
from loadwise.outcome import Outcome

__all__ = ["Run", "Transition"]

_LONGEST_AIM = 0.25


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of a server's state of health."""

    seconds: float
    server: str
    old: HealthStatus
    new: HealthStatus


class Run(Play, NoopCollector):
    """The servers, the balancer and the clients, and what happens to them.

    Args:
        fleet: Running servers.
        choice: Name of the strategy.
        plan: What to run.

    Attributes:
        transitions: How states of health changed, in order.
        failures: The servers of the attempts that failed, in order.
        caught: Requests in flight on the server that was killed, when it was.
    """

    def __init__(self, fleet: Fleet, choice: str, plan: Plan) -> None:
        self.choice = choice
        self.transitions: list[Transition] = []
        self.failures: list[str] = []
        self.caught = 0
        self._health = HealthTracker(ConsecutiveFailurePolicy(probe_interval=plan.probe_interval))
        self.balancer = Balancer(
            [Endpoint(server.name, weight=server.profile.weight) for server in fleet],
            make(choice, random.Random(plan.seed)),
            health=self._health,
            metrics=self,
            name="demo",
        )
        self._stream = Stream(plan.requests, plan.seconds, plan.seed, plan.gate)
        ports = {server.name: server.port for server in fleet}
        self.traffic = Traffic(self.balancer, ports, self._stream, plan.concurrency)
        super().__init__(fleet, plan)

    @property
    def counts(self) -> Counts:
        """How far the requests are."""
        return self.traffic.counts

    @property
    def lost(self) -> int:
        """Requests that were taken on and not answered."""
        return self._stream.taken - len(self.traffic.answers)

    def status(self) -> dict[str, NodeStatus]:
        """How the balancer sees each server."""
        return {str(status.id): status for status in self.balancer.status()}

    def start(self) -> None:
        """Start sending."""
        self.traffic.start()

    def wait(self, timeout: float) -> bool:
        """Wait for the end of the requests; return whether it has come."""
        return self.traffic.wait(timeout)

    def stop(self) -> None:
        """Send nothing more, and wait for the requests under way."""
        self.traffic.stop()

    def open(self) -> None:
        """Let the last requests pass."""
        self._stream.open()

    def aim(self) -> str:
        """Wait until the server has requests in flight, the worst moment to die."""
        latest = time.monotonic() + _LONGEST_AIM
        while not self._in_flight() and time.monotonic() < latest:
            time.sleep(0.0002)
        self.caught = self._in_flight()
        return f" with {self.caught} request{'' if self.caught == 1 else 's'} in flight"

    def _in_flight(self) -> int:
        return self.status()[DOOMED].in_flight

    def on_health_change(self, node_id: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        """Take note of a change of health."""
        name = str(node_id)
        self.transitions.append(Transition(self.elapsed, name, old, new))
        self.tell(f"{name} {MEANING[new].format(interval=self.plan.probe_interval)}")

    def on_outcome(self, node_id: Hashable, outcome: Outcome, latency: float) -> None:  # noqa: ARG002 - as in the base
        """Take note of an attempt that failed."""
        if outcome is Outcome.FAILURE:
            self.failures.append(str(node_id))
