"""Load that servers report with their answers, by ORCA (Open Request Cost Aggregation)."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from loadwise._callables import refuse_async
from loadwise._numbers import finite, shown
from loadwise.clock import Clock, check_clock
from loadwise.integrations.grpc._verdicts import Trailers
from loadwise.integrations.grpc._wire import as_double, fields
from loadwise.nodes import node_id

__all__ = ["LoadReport", "ReportedLoad", "report_in"]

_TRAILER: Final = "endpoint-load-metrics-bin"
_MOST_NODES: Final = 65_536


def _nothing() -> Mapping[str, float]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Load that a server has reported with one answer.

    What it did not report is 0, or empty.

    Attributes:
        cpu_utilization: Share of the available CPU in use; above 1 past a soft limit.
        mem_utilization: Share of the memory in use.
        application_utilization: Share in use of whatever the application counts.
        rps: Requests per second, all services together.
        eps: Errors per second.
        request_cost: What this request has cost, by name.
        utilization: Shares in use, by name.
        named_metrics: Other figures, by name.

    Source: ``xds/data/orca/v3/orca_load_report.proto``; gRFC A51.
    """

    cpu_utilization: float = 0.0
    mem_utilization: float = 0.0
    application_utilization: float = 0.0
    rps: float = 0.0
    eps: float = 0.0
    request_cost: Mapping[str, float] = field(default_factory=_nothing)
    utilization: Mapping[str, float] = field(default_factory=_nothing)
    named_metrics: Mapping[str, float] = field(default_factory=_nothing)

    @classmethod
    def parse(cls, message: bytes) -> LoadReport:
        """Return the report in a serialized ``OrcaLoadReport``.

        Raises:
            ValueError: It is none.

        Example:
            >>> LoadReport.parse(bytes([0x09, 0, 0, 0, 0, 0, 0, 0xE0, 0x3F])).cpu_utilization
            0.5
        """
        numbers: dict[str, float] = {}
        maps: dict[str, dict[str, float]] = {}
        for number, value in fields(message):
            if number in _NUMBERS:
                numbers[_NUMBERS[number]] = as_double(value)
            elif number in _MAPS and isinstance(value, bytes):
                name, amount = _entry(value)
                maps.setdefault(_MAPS[number], {})[name] = amount
            elif number == _OLD_RPS and isinstance(value, int):
                numbers.setdefault("rps", float(value))
        frozen = {name: MappingProxyType(entries) for name, entries in maps.items()}
        return cls(**numbers, **frozen)


_NUMBERS: Final = {
    1: "cpu_utilization",
    2: "mem_utilization",
    6: "rps",
    7: "eps",
    9: "application_utilization",
}
_OLD_RPS: Final = 3
_MAPS: Final = {4: "request_cost", 5: "utilization", 8: "named_metrics"}


def _entry(message: bytes) -> tuple[str, float]:
    """Return name and amount of an entry of a map."""
    name, amount = "", 0.0
    for number, value in fields(message):
        if number == 1 and isinstance(value, bytes):
            name = value.decode()
        elif number != 1:
            amount = as_double(value)
    return name, amount


def report_in(trailers: Trailers | None) -> LoadReport | None:
    """Return the load report in the trailers of a call; ``None`` if there is no sound one."""
    for key, value in trailers or ():
        if key == _TRAILER and isinstance(value, bytes):
            try:
                return LoadReport.parse(value)
            except ValueError:
                return None
    return None


def _utilization(report: LoadReport) -> float:
    """Return what gRPC itself weights by. Source: gRFC A58, ``application_utilization``."""
    return report.application_utilization or report.cpu_utilization


class ReportedLoad:
    """Load of the nodes as they last reported it, for ``load=`` of a strategy.

    Give it to the strategy, and its `record` to the channel. A node whose last report is older than
    ``max_age`` counts as idle, or one that was busy once would never be asked again.

    Args:
        score: Makes a load of a report, lower is better; by default the application's utilization,
            or that of the CPU where there is none.
        max_age: Seconds for which a report holds, finite and > 0.
        clock: Source of monotonic seconds.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: ``max_age`` is out of range.

    Thread-safety: full; a report is one assignment. Cost: O(1).

    Example:
        >>> from loadwise import Balancer, PowerOfTwoChoices
        >>> load = ReportedLoad()
        >>> balancer = Balancer(["a", "b"], PowerOfTwoChoices(load=load))
        >>> load.record("a", LoadReport(cpu_utilization=0.9))
        >>> load("a"), load("b"), balancer.pick()
        (0.9, 0.0, 'b')
    """

    def __init__(
        self,
        score: Callable[[LoadReport], float] = _utilization,
        *,
        max_age: float = 10.0,
        clock: Clock = time.monotonic,
    ) -> None:
        if not callable(score):
            raise TypeError(f"score is {shown(score)}; it must be a function of a LoadReport")
        refuse_async("score", score, "give a plain function of a LoadReport")
        seconds = finite("max_age", max_age)
        if not seconds > 0:
            raise ValueError(f"max_age is {max_age!r}; it must be finite and above 0 (seconds)")
        check_clock(clock)
        self._score = score
        self._max_age = seconds
        self._clock = clock
        self._last: dict[Hashable, tuple[float, float]] = {}

    def record(self, node: Any, report: LoadReport) -> None:
        """Take in the report of a node."""
        last = self._last
        if len(last) >= _MOST_NODES:
            last.clear()  # nodes that left are among them; those that stay report again
        last[node_id(node)] = (float(self._score(report)), self._clock())

    def __call__(self, node: Any) -> float:
        """Return the load of a node; 0.0 if it has not reported one lately."""
        last = self._last.get(node_id(node))
        if last is None or self._clock() - last[1] > self._max_age:
            return 0.0
        return last[0]
