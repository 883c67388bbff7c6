"""Metrics of a host: what all its processes have together, read from the file that they share.

They are apart from a balancer's, because they are totals: any process can show them, and several
that do so all show the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from loadwise._log import log_warning
from loadwise._numbers import whole
from loadwise.health import HealthStatus
from loadwise.integrations._metric_table import Metric, MetricKind
from loadwise.integrations._node_counters import OTHER
from loadwise.integrations._node_state import state_name
from loadwise.shared_memory import HostFileError, HostNode, HostStatus, read_host

__all__ = ["HOST_METRICS", "HostMetric", "HostReader", "HostReading"]

Samples = Iterator[tuple[tuple[str, ...], float]]


@dataclass(slots=True)
class _NodeTotals:
    """Totals of one label: of a node, or of all those beyond the limit.

    Of costs the highest, because a sum of them means nothing.
    """

    in_flight: int = 0
    cost: float | None = None
    health: dict[str, int] = field(
        default_factory=lambda: {state_name(status): 0 for status in HealthStatus}
    )

    def add(self, node: HostNode) -> None:
        """Take a node in."""
        self.in_flight += node.in_flight
        self.health[state_name(node.health)] += 1
        if node.cost is not None:
            self.cost = max(node.cost, self.cost or 0.0)


@dataclass(frozen=True, slots=True)
class HostReading:
    """Totals of a host at one moment.

    Attributes:
        name: The host's name, or the path of its file.
        processes: How many living processes take part.
        nodes: The totals of its nodes, by label.
    """

    name: str
    processes: int
    nodes: dict[str, _NodeTotals]


class HostMetric(NamedTuple):
    """One metric of a host, and what reads it."""

    metric: Metric
    read: Callable[[HostReading], Samples]


def _in_flight(reading: HostReading) -> Samples:
    return (((node,), totals.in_flight) for node, totals in reading.nodes.items())


def _processes(reading: HostReading) -> Samples:
    yield (), reading.processes


def _costs(reading: HostReading) -> Samples:
    for node, totals in reading.nodes.items():
        if totals.cost is not None:
            yield (node,), totals.cost


def _healths(reading: HostReading) -> Samples:
    for node, totals in reading.nodes.items():
        for state, number in totals.health.items():
            yield (node, state), number


HOST_METRICS: Final = (
    HostMetric(
        Metric(
            "host.requests_in_flight",
            MetricKind.ADDITIVE_GAUGE,
            "{request}",
            "Requests in progress, of all processes of the host.",
            ("node",),
        ),
        _in_flight,
    ),
    HostMetric(
        Metric(
            "host.processes",
            MetricKind.ADDITIVE_GAUGE,
            "{process}",
            "Living processes that share the host's picture.",
        ),
        _processes,
    ),
    HostMetric(
        Metric(
            "host.node.cost",
            MetricKind.GAUGE,
            "s",
            "Highest cost of the node that any process knows.",
            ("node",),
        ),
        _costs,
    ),
    HostMetric(
        Metric(
            "host.node.health",
            MetricKind.ADDITIVE_GAUGE,
            "{node}",
            "1 for the health state that was last found by any process, 0 for the others.",
            ("node", "state"),
        ),
        _healths,
    ),
)
"""All of them, in the order in which they are shown. All have the host as their first label."""


class HostReader:
    """Reads the totals of hosts, whenever it is asked.

    Args:
        hosts: The names or the paths, as for `HostState`; at least one.
        max_nodes: How many nodes of each have series of their own; the others are added up.

    Raises:
        TypeError: A host is neither, or the number is none.
        ValueError: There is no host, one cannot be one, its folder is missing, or the number is
            below 1.

    Thread-safety: full.

    Cost: that of `read_host` for each.
    """

    def __init__(self, hosts: Iterable[str | os.PathLike[str]], max_nodes: int) -> None:
        self._max_nodes = whole("max_nodes", max_nodes, 1)
        self._hosts = tuple(hosts)
        # What was logged of each that could not be read.
        self._told: dict[int, str] = {}
        if not self._hosts:
            raise ValueError(
                "there is no host; give the name or the path that the processes give to HostState"
            )
        for host in self._hosts:
            with suppress(HostFileError):  # a file may come later
                read_host(host)

    def read(self) -> list[HostReading]:
        """Return the totals of all that can be read; of the others it is logged once why not."""
        readings: list[HostReading] = []
        for number, host in enumerate(self._hosts):
            try:
                readings.append(self._reading(read_host(host)))
            except (HostFileError, ValueError) as error:  # the folder may have gone since
                if self._told.get(number) != str(error):
                    self._told[number] = str(error)
                    log_warning("metrics of host %r are not shown: %s", host, error)
            else:
                self._told.pop(number, None)
        return readings

    def _reading(self, status: HostStatus) -> HostReading:
        nodes: dict[str, _NodeTotals] = {}
        for node in status.nodes:
            label = str(node.id)
            if label not in nodes and len(nodes) >= self._max_nodes:
                label = OTHER
            nodes.setdefault(label, _NodeTotals()).add(node)
        living = sum(process.is_alive for process in status.processes)
        return HostReading(status.name, living, nodes)
