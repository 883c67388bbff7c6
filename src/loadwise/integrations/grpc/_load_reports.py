"""Load that servers report with their answers, by ORCA (Open Request Cost Aggregation)."""

from __future__ import annotations

import json
import math
import time
from base64 import b64decode
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, cast

from loadwise._callables import refuse_async
from loadwise._numbers import finite, shown
from loadwise.clock import Clock, check_clock
from loadwise.integrations.grpc._verdicts import Trailers
from loadwise.integrations.grpc._wire import as_double, fields
from loadwise.nodes import node_id

__all__ = ["LoadReport", "ReportedLoad", "report_in"]

# The C library below keeps the first for itself, at least up to 1.85: only the other comes here.
_BINARY: Final = "endpoint-load-metrics-bin"
_TEXT: Final = "endpoint-load-metrics"
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
        rps: Requests per second, all services together (``rps_fractional``).
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
        figures: list[tuple[str, float]] = []
        for number, value in fields(message):
            if number in _NUMBERS:
                figures.append((_NUMBERS[number], as_double(value)))
            elif number in _MAPS and isinstance(value, bytes):
                name, amount = _entry(value)
                figures.append((f"{_MAPS[number]}.{name}", amount))
        return cls._of(figures)

    @classmethod
    def read(cls, header: str) -> LoadReport:
        """Return the report in a text that begins with its format: TEXT, JSON or BIN (base64).

        Raises:
            ValueError: It is none.

        Example:
            >>> LoadReport.read("TEXT cpu_utilization=0.5, named_metrics.queue=3").named_metrics
            mappingproxy({'queue': 3.0})
        """
        form, _, text = header.partition(" ")
        if form == "BIN":
            return cls.parse(b64decode(text, validate=True))
        if form == "JSON":
            return cls._of(_in_json(text))
        if form != "TEXT":
            raise ValueError(f"{header[:40]!r} does not begin with TEXT, JSON or BIN")
        pairs = (each.partition("=") for each in text.split(",") if each.strip())
        return cls._of([(name.strip(), float(value)) for name, _, value in pairs])

    @classmethod
    def _of(cls, figures: list[tuple[str, float]]) -> LoadReport:
        """Return the report with figures by name; those of maps begin with the map's.

        Raises:
            ValueError: One is no figure.
        """
        report: dict[str, Any] = {}
        for name, value in figures:
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value!r}; it must be finite and at least 0")
            group, dot, key = name.partition(".")
            if not dot and name in _NUMBERS.values():
                report["rps" if name == _RPS else name] = value
            elif dot and group in _MAPS.values():
                report.setdefault(group, {})[key] = value
        for group in {*_MAPS.values()} & report.keys():
            report[group] = MappingProxyType(report[group])
        return cls(**report)


_RPS: Final = "rps_fractional"
_NUMBERS: Final = {
    1: "cpu_utilization",
    2: "mem_utilization",
    6: _RPS,
    7: "eps",
    9: "application_utilization",
}
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


def _in_json(text: str) -> list[tuple[str, float]]:
    """Return the figures of a report in JSON."""
    told: object = json.loads(text)
    if not isinstance(told, dict):
        raise ValueError(f"{text[:40]!r} is no object")  # noqa: TRY004 - what is read, not a type
    figures: list[tuple[str, float]] = []
    for name, value in cast("dict[str, object]", told).items():
        if isinstance(value, dict):
            entries = cast("dict[str, Any]", value).items()
            figures += [(f"{name}.{key}", float(amount)) for key, amount in entries]
        elif name in _NUMBERS.values():
            figures.append((name, float(cast("Any", value))))
    return figures


def report_in(trailers: Trailers | None) -> LoadReport | None:
    """Return the load report in the trailers of a call; ``None`` if there is no sound one.

    Source: gRFC A51 for the binary form, Envoy's ``orca_parser.h`` for the others.
    """
    for key, value in trailers or ():
        try:
            if key == _BINARY and isinstance(value, bytes):
                return LoadReport.parse(value)
            if key == _TEXT and isinstance(value, str):
                return LoadReport.read(value)
        except (ValueError, TypeError):
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
