"""One client process of ``loadwise demo --shared``, a program of its own.

It has a balancer of its own; what it knows of quotas and health it shares with the others through
Valkey. Its parent talks to it through pipes, a line at a time:

- It is told ``start``, and later ``open``: the last requests may pass. It exits when its standard
  input ends, so it cannot outlive its parent.
- It writes ``ready``, ``counts`` now and then and ``health`` whenever a state changes; and when it
  is through, a line for each ``answer``, each attempt that ``failed`` and each request that was
  ``lost``, and ``end``. What follows the word is a JSON list. Times are those of the monotonic
  clock, which all processes of a machine have in common.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Hashable
from contextlib import ExitStack
from dataclasses import astuple
from threading import Event, Thread, current_thread

import redis

from loadwise.balancer import Balancer
from loadwise.cli.demo.choices import make
from loadwise.cli.demo.fleet import PROFILES
from loadwise.cli.demo.server import HOST, say
from loadwise.cli.demo.shared.quota import config_of, limits_of
from loadwise.cli.demo.shared.settings import Settings
from loadwise.cli.demo.stream import Stream
from loadwise.cli.demo.traffic import THREAD, Traffic
from loadwise.health import ConsecutiveFailurePolicy, HealthStatus
from loadwise.integrations.redis import SharedHealth, SharedQuota
from loadwise.metrics import NoopCollector
from loadwise.nodes import Endpoint
from loadwise.outcome import Outcome

_TICK = 0.05
# With Valkey. A machine that is busy with the demo is no outage.
_PATIENCE = 2.0


class Client(NoopCollector):
    """A balancer with shared state, and the threads that send its part of the requests.

    Args:
        settings: What to do.
        stack: Closes the connections to Valkey in the end.
    """

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self._settings = settings
        self._failures: list[tuple[float, str]] = []
        self._started = Event()
        self._stream: Stream | None = None
        plan = settings.plan
        valkey = stack.enter_context(redis.Redis(HOST, settings.valkey))
        self._quota = stack.enter_context(SharedQuota(valkey, timeout=_PATIENCE))
        for name, limit in limits_of(plan).items():
            self._quota.register(name, config_of(limit))
        policy = ConsecutiveFailurePolicy(probe_interval=plan.probe_interval)
        self._balancer = Balancer(
            [Endpoint(profile.name, weight=profile.weight) for profile in PROFILES],
            make(settings.choice, random.Random(f"{plan.seed} {settings.place}")),
            health=stack.enter_context(SharedHealth(valkey, policy=policy, timeout=_PATIENCE)),
            quota=self._quota,
            metrics=self,
        )

    def obey(self) -> None:
        """Do as the parent says, and exit when there is no parent any more."""
        for line in sys.stdin:
            if line == "start\n":
                self._started.set()
            elif self._stream is not None:
                self._stream.open()
        # At once, whatever the other threads are at.
        os._exit(0)

    def work(self) -> None:
        """Send all requests, and tell what came of them."""
        plan, part = self._settings.plan, (self._settings.place, self._settings.places)
        self._started.wait()
        self._stream = Stream(plan.requests, plan.seconds, plan.seed, plan.gate, part)
        traffic = Traffic(self._balancer, self._settings.ports, self._stream, plan.concurrency)
        traffic.start()
        while not traffic.wait(_TICK):
            tell("counts", *astuple(traffic.counts))
        traffic.stop()
        tell("counts", *astuple(traffic.counts))
        for answer in traffic.answers:
            tell("answer", *astuple(answer))
        for failure in self._failures:
            tell("failed", *failure)
        for number, why in traffic.lost.items():
            tell("lost", number, why)
        tell("end", self._quota.events["outage"])

    def on_health_change(self, node_id: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        """Tell of a change. What others found out comes from the background, not from a client."""
        found = current_thread().name == THREAD
        tell("health", time.monotonic(), str(node_id), old.name, new.name, found)

    def on_outcome(self, node_id: Hashable, outcome: Outcome, latency: float) -> None:  # noqa: ARG002 - as in the base
        """Take note of an attempt that failed."""
        if outcome is Outcome.FAILURE:
            self._failures.append((time.monotonic(), str(node_id)))


def tell(word: str, *values: object) -> None:
    """Tell the parent something."""
    say(f"{word} {json.dumps(values)}")


def main() -> None:
    """Work until all is sent or standard input ends."""
    with ExitStack() as stack:
        client = Client(Settings.from_json(sys.argv[1]), stack)
        Thread(target=client.obey, daemon=True).start()
        tell("ready")
        client.work()


if __name__ == "__main__":
    main()
