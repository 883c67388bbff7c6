"""Frozen records of what a host's processes share, at one moment."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, fields
from typing import Any

from loadwise.balancer.json_values import as_json
from loadwise.health import HealthStatus

__all__ = ["HostNode", "HostProcess", "HostStatus"]


@dataclass(frozen=True, slots=True)
class HostProcess:
    """One process that takes part.

    Attributes:
        pid: Its id, as it sees it itself: containers may count from 1.
        is_alive: Whether it lives. One that has died is shown until another process clears its
            row, within a second; where nobody is left, until the next one comes.
        seconds: For how many seconds it has taken part.
        in_flight: Requests that it has under way; 0 for one that has died.
        nodes: How many nodes it has; 0 for one that has died.
    """

    pid: int
    is_alive: bool
    seconds: float
    in_flight: int
    nodes: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it, with the names of the attributes as keys."""
        return {each.name: as_json(getattr(self, each.name)) for each in fields(self)}


@dataclass(frozen=True, slots=True)
class HostNode:
    """One node that a process has.

    Attributes:
        id: Its id; of one too long for the file its beginning, as a text.
        health: The newest state of health that a process found; HEALTHY where none found any.
        state_seconds: For how many seconds it has been known to be so; ``None`` where none
            found any.
        consecutive_failures: How many requests in a row had failed when that was found.
        in_flight: Requests under way, of all processes.
        by_process: The same of each process, in the order of `HostStatus.processes`.
        cost: The highest cost in seconds that a process knows (see `PeakEwma`); ``None`` where
            none has measured it.
        oldest: For how many seconds the oldest request has waited for its first byte; ``None``
            where none waits, or no process goes by ages.
    """

    id: Hashable
    health: HealthStatus
    state_seconds: float | None
    consecutive_failures: int
    in_flight: int
    by_process: tuple[int, ...]
    cost: float | None
    oldest: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it, with the names of the attributes as keys.

        ``health`` is the name of the state, such as ``"HEALTHY"``. An id that is no str, int,
        float, bool or ``None`` becomes its text.
        """
        told = {each.name: as_json(getattr(self, each.name)) for each in fields(self)}
        told["by_process"] = list(self.by_process)
        return told


@dataclass(frozen=True, slots=True)
class HostStatus:
    """Picture of a host at one moment, as `read_host` returns it.

    The processes go on while it is read, so numbers of different nodes may be of moments that are
    a little apart.

    Attributes:
        name: The name; the path, for a file that was given by its path.
        path: The file.
        max_processes: How many processes may take part.
        max_nodes: How many nodes there is room for.
        processes: Those that take part.
        nodes: Those that a living process has.
    """

    name: str
    path: str
    max_processes: int
    max_nodes: int
    processes: tuple[HostProcess, ...]
    nodes: tuple[HostNode, ...]

    @property
    def in_flight(self) -> int:
        """Requests under way, of all processes. O(nodes)."""
        return sum(node.in_flight for node in self.nodes)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it, for ``json.dumps`` as it stands.

        The keys are the names of the attributes.
        """
        return {
            "name": self.name,
            "path": self.path,
            "max_processes": self.max_processes,
            "max_nodes": self.max_nodes,
            "in_flight": self.in_flight,
            "processes": [each.to_dict() for each in self.processes],
            "nodes": [each.to_dict() for each in self.nodes],
        }
