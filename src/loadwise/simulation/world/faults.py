"""Faults of a run, put on the timeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf
from typing import Protocol

from loadwise.simulation.scenario import (
    Add,
    Crash,
    Drain,
    Fail,
    Fault,
    Flap,
    Group,
    Hang,
    RestartClients,
    Scenario,
    Slow,
)
from loadwise.simulation.scenario.fleet import added_groups, ids_of, seconds_of, targets
from loadwise.simulation.world.loop import Loop
from loadwise.simulation.world.server import Server
from loadwise.simulation.world.timeline import Mark

__all__ = ["FleetControl", "plan_faults"]


class FleetControl(Protocol):
    """A run, as faults change it."""

    def server(self, id: str) -> Server:  # noqa: A002 - the name of the thing everywhere else
        """Return a server by its id."""
        ...

    def join(self, group: Group) -> None:
        """Have servers join the fleet."""

    def drain(self, ids: tuple[str, ...]) -> None:
        """Have servers finish what they have and leave."""

    def restart_clients(self) -> None:
        """Restart all clients."""


def plan_faults(
    scenario: Scenario, fleet: FleetControl, loop: Loop, seconds: float
) -> tuple[Mark, ...]:
    """Plan what goes wrong; return where to mark it.

    Args:
        scenario: What is to happen.
        fleet: Whom it happens to.
        loop: Virtual time.
        seconds: How long requests arrive.
    """
    planner = _Planner(scenario, fleet, loop, seconds)
    return tuple(planner.plan(fault) for fault in scenario.faults)


class _Planner:
    def __init__(self, scenario: Scenario, fleet: FleetControl, loop: Loop, seconds: float) -> None:
        self._scenario = scenario
        self._fleet = fleet
        self._loop = loop
        self._seconds = seconds
        self._joining = iter(added_groups(scenario))

    def plan(self, fault: Fault) -> Mark:
        begin = seconds_of(fault.at, self._seconds)
        kind = str(fault.__struct_config__.tag)
        if isinstance(fault, RestartClients):
            self._plan(begin, self._fleet.restart_clients)
            return Mark(begin, begin, kind, ())
        if isinstance(fault, Add):
            group = next(self._joining)
            self._plan(begin, self._fleet.join, group)
            return Mark(begin, begin, kind, ids_of(group))
        ids = targets(self._scenario, fault.servers)
        if isinstance(fault, Drain):
            self._plan(begin, self._fleet.drain, ids)
            return Mark(begin, begin, kind, ids)
        lasts = inf if fault.lasts is None else seconds_of(fault.lasts, self._seconds)
        for begins, ends in self._spells(fault, begin, begin + lasts):
            for identity in ids:
                self._plan(begins, self._begin, fault, identity)
                if ends < inf:
                    self._plan(ends, self._end, fault, identity)
        return Mark(begin, begin + lasts, kind, ids)

    def _spells(
        self, fault: Crash | Slow | Fail | Hang | Flap, begin: float, end: float
    ) -> Iterator[tuple[float, float]]:
        """Yield when a fault begins and ends: once, or for a flapping server again and again."""
        if not isinstance(fault, Flap):
            yield begin, end
            return
        down = seconds_of(fault.down, self._seconds)
        up = seconds_of(fault.up, self._seconds)
        while begin < min(end, self._seconds):
            yield begin, min(begin + down, end)
            begin += down + up

    def _begin(self, fault: Crash | Slow | Fail | Hang | Flap, identity: str) -> None:
        server = self._fleet.server(identity)
        if isinstance(fault, Slow):
            server.slow_down(fault)
        elif isinstance(fault, Fail):
            server.fail(fault)
        elif isinstance(fault, Hang):
            server.hang()
        else:
            server.crash()

    def _end(self, fault: Crash | Slow | Fail | Hang | Flap, identity: str) -> None:
        server = self._fleet.server(identity)
        if isinstance(fault, Slow):
            server.speed_up(fault)
        elif isinstance(fault, Fail):
            server.recover(fault)
        elif isinstance(fault, Hang):
            server.resume()
        else:
            server.restart()

    def _plan(self, time: float, action: Callable[..., None], *arguments: object) -> None:
        self._loop.at(time, lambda given: action(*given), arguments)
