"""Another simulator of a fleet, on top of simpy; it shares no code with the one that ships."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import simpy

__all__ = ["Fleet", "Job", "Oracle", "Rule", "fewest", "in_turn"]

Event = simpy.Event
Job = tuple[float, float]
"""Seconds of a request's arrival, and seconds of work at speed 1."""


@dataclass(frozen=True)
class Fleet:
    """What both simulators are told; a server that is down refuses, and what it has breaks.

    Attributes:
        speeds: Speeds of the servers, one for each.
        parallelism: Requests that a server works on at a time.
        queue_limit: Requests that may wait at one.
        timeout: Seconds after which a caller waits no longer; the server works on.
        attempts: Attempts per request, each on another server.
        down: When the first server is down.
        slow: When the second server begins no service but such that takes three times as long.
    """

    speeds: tuple[float, ...] = (1.0, 1.0, 1.0)
    parallelism: int = 1
    queue_limit: int | None = None
    timeout: float | None = None
    attempts: int = 1
    down: tuple[float, float] | None = None
    slow: tuple[float, float] | None = None


Rule = Callable[[Sequence[int], list[int], int], int]
"""Chooses one of some servers, given the requests in flight at all of them, and a number."""


def in_turn(allowed: Sequence[int], _in_flight: list[int], number: int) -> int:
    """Choose one after the other."""
    return allowed[number % len(allowed)]


def fewest(allowed: Sequence[int], in_flight: list[int], _number: int) -> int:
    """Choose the one with the fewest requests in flight, of several the first."""
    return min(allowed, key=lambda index: in_flight[index])


class OracleServer:
    """A server of the other simulator: a simpy resource."""

    def __init__(self, env: simpy.Environment, fleet: Fleet, index: int) -> None:
        self.env = env
        self.slots = simpy.Resource(env, fleet.parallelism)
        self.speed = fleet.speeds[index]
        self.room = inf if fleet.queue_limit is None else fleet.parallelism + fleet.queue_limit
        self.slow = (fleet.slow if index == 1 else None) or (inf, inf)
        self.here: list[simpy.Process] = []
        self.down = False

    def serve(self, work: float) -> Generator[Event, Any, str]:
        """Wait for a slot and do the work, unless the server dies first."""
        try:
            slot = self.slots.request()
            with slot:
                yield slot
                begin, end = self.slow
                factor = 3.0 if begin <= self.env.now < end else 1.0
                yield self.env.timeout(work * factor / self.speed)
        except simpy.Interrupt:
            return "failed"
        process = self.env.active_process
        assert process is not None
        self.here.remove(process)
        return "completed"

    def die(self) -> None:
        """Break all that is here."""
        self.down = True
        for process in self.here:
            process.interrupt()
        self.here.clear()


class Oracle:
    """The other simulator: the same requests through a fleet of simpy resources.

    Attributes:
        ends: How many requests ended in which way.
        latencies: Of the requests that completed, by their numbers.
        log: When each attempt began and ended, and whether it succeeded.
        repeated: Attempts after the first.
        timeouts: Attempts given up.
    """

    def __init__(self, fleet: Fleet, rule: Rule, jobs: Sequence[Job]) -> None:
        self.env = simpy.Environment()
        self.fleet = fleet
        self.rule = rule
        self.servers = [OracleServer(self.env, fleet, i) for i in range(len(fleet.speeds))]
        self.in_flight = [0] * len(self.servers)
        self.ends = {"completed": 0, "failed": 0, "dropped": 0}
        self.latencies: dict[int, float] = {}
        self.log: list[tuple[float, float, bool]] = []
        self.repeated = 0
        self.timeouts = 0
        for number, (arrival, work) in enumerate(jobs):
            self.env.process(self.request(number, arrival, work))
        if fleet.down is not None:
            self.env.process(self.outage(*fleet.down))
        self.env.run()

    def request(self, number: int, arrival: float, work: float) -> Generator[Event, Any, None]:
        """See a request through."""
        yield self.env.timeout(arrival)
        allowed = list(range(len(self.servers)))
        end = ""
        for attempt in range(self.fleet.attempts):
            if not allowed:
                break
            index = self.rule(allowed, self.in_flight, number)
            allowed.remove(index)
            self.repeated += attempt > 0
            end = yield from self.attempt(index, work)
            if end == "completed":
                self.latencies[number] = self.env.now - arrival
                break
        self.ends[end] += 1

    def attempt(self, index: int, work: float) -> Generator[Event, Any, str]:
        """Ask one server, and wait for its answer as long as callers wait."""
        begin = self.env.now
        server = self.servers[index]
        self.in_flight[index] += 1
        if server.down:
            end = "failed"
        elif len(server.here) >= server.room:
            end = "dropped"
        else:
            service = self.env.process(server.serve(work))
            server.here.append(service)
            patience = inf if self.fleet.timeout is None else self.fleet.timeout
            yield service | self.env.timeout(patience)
            end = str(service.value) if service.triggered else "failed"
            self.timeouts += not service.triggered
        self.in_flight[index] -= 1
        self.log.append((begin, self.env.now, end == "completed"))
        return end

    def outage(self, begin: float, end: float) -> Generator[Event, Any, None]:
        """Have the first server die and come back."""
        yield self.env.timeout(begin)
        self.servers[0].die()
        yield self.env.timeout(end - begin)
        self.servers[0].down = False
