"""Parts of a user's own fit by their shape alone. Checked by mypy and pyright, never run."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from loadwise import (
    Balancer,
    Clock,
    Endpoint,
    Filter,
    Filtered,
    HealthPolicy,
    HealthStatus,
    HealthTracker,
    LeastLoad,
    LoadMeasure,
    MetricsCollector,
    NodeHealth,
    NoopCollector,
    Outcome,
    PowerOfTwoChoices,
    SelectionContext,
    Split,
    StateStore,
    Strategy,
    Tiers,
    WithFallback,
    Zones,
)
from loadwise.filters import StateSource
from loadwise.load import Cell, FirstByteMeasure

EMPTY = SelectionContext()


class Newest:
    """A strategy: one method."""

    def select(
        self, candidates: Sequence[Endpoint], context: SelectionContext = EMPTY
    ) -> int | None:
        """Return the last that is not excluded."""
        indices = range(len(candidates) - 1, -1, -1)
        return next((i for i in indices if not context.is_excluded(i)), None)


class Anything:
    """A strategy for nodes of any type."""

    def select(self, candidates: Sequence[object], context: SelectionContext = EMPTY) -> int | None:
        """Return the first, if there is one."""
        return 0 if candidates else None


newest: Strategy[Endpoint] = Newest()
for_endpoints: Strategy[Endpoint] = Anything()
for_texts: Strategy[str] = Anything()
chain: Strategy[Endpoint] = WithFallback(
    Filtered(Newest(), lambda node: node.priority == 0), newest
)
tiers: Tiers[Endpoint] = Tiers(Newest)
zones: Zones[Endpoint] = Zones(Newest, weights={"eu": 2, "us": 0.5})
split: Split[Endpoint] = Split({"new": 5, "old": 95}, by=lambda node: node.zone, make=Anything)
percents: dict[int | str, float] = split.shares([Endpoint("a")])
balancer: Balancer[Endpoint] = Balancer([Endpoint("a")], Newest())
another = Balancer(["a"], Anything())


class OneStrike:
    """A health policy: an attribute and a method."""

    probe_interval = 30.0

    def next_status(self, health: NodeHealth, outcome: Outcome) -> HealthStatus:
        """One failure and it is out, one success and it is back."""
        return HealthStatus.HEALTHY if outcome is Outcome.SUCCESS else HealthStatus.UNHEALTHY


policy: HealthPolicy = OneStrike()
tracker = HealthTracker(OneStrike())


class Counter:
    """A collector of all events."""

    def on_selection(self, node_id: Hashable, strategy: str) -> None:
        """Count."""

    def on_health_change(self, node_id: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        """Count."""

    def on_outcome(self, node_id: Hashable, outcome: Outcome, latency: float) -> None:
        """Count."""

    def on_unavailable(self, reason: str) -> None:
        """Count."""


class Latencies(NoopCollector):
    """A collector of one event."""

    def on_outcome(self, node_id: Hashable, outcome: Outcome, latency: float) -> None:
        """Note."""


collectors: list[MetricsCollector] = [Counter(), Latencies()]
watched = Balancer(["a"], metrics=Counter())
watched_by_several = Balancer(["a"], metrics=[Counter(), Latencies()])
Balancer(["a"], metrics=(Counter(),))


class Errors:
    """A load measure."""

    def cell(self, node_id: Hashable) -> Cell:
        """Return the entry of one node."""
        return Cell()

    def load(self, cell: Cell) -> float:
        """Return a node's present load."""
        return len(cell) * 2.0

    def observe(self, cell: Cell, latency: float, outcome: Outcome, now: float) -> None:
        """Take note of a request's end."""

    def use_clock(self, clock: Clock) -> None:
        """Nothing to time."""


class FirstBytes(Errors):
    """A load measure that is told when answers begin."""

    def first_byte(self, cell: Cell, tokens: float, now: float) -> None:
        """Take note of an answer's begin."""


measure: LoadMeasure = Errors()
told: FirstByteMeasure = FirstBytes()
untold: FirstByteMeasure = Errors()  # type: ignore[assignment]
by_first_bytes: LeastLoad[str] = LeastLoad(load=FirstBytes())
by_errors: PowerOfTwoChoices[str] = PowerOfTwoChoices(load=Errors())
by_length: LeastLoad[str] = LeastLoad(load=len)


class InZone(Filter[Endpoint]):
    """A filter by inheritance, with its sources."""

    def __init__(self, zone: str, health: HealthTracker) -> None:
        self._zone = zone
        self._health = health

    def __call__(self, node: Endpoint) -> bool:
        """Whether the node is accepted."""
        return node.zone == self._zone and bool(self._health.status(node.id))

    def sources(self) -> tuple[StateSource, ...]:
        """The tracker."""
        return (self._health,)


def close_by(node: Endpoint) -> bool:
    """A filter by being a function."""
    return node.zone == "eu"


accept: Callable[[Endpoint], bool] = InZone("eu", tracker) & close_by | ~InZone("us", tracker)
filtered = Balancer([Endpoint("a")], where=InZone("eu", tracker) & close_by)


class Files:
    """A state store."""

    def get(self, id: str) -> bytes | None:  # noqa: A002 - as in the protocol
        """Return the state of one node, or ``None``."""
        return None

    def put(self, id: str, state: bytes) -> None:  # noqa: A002
        """Insert or replace the state of one node."""

    def remove(self, id: str) -> None:  # noqa: A002
        """Delete the state of one node."""

    def list(self) -> list[tuple[str, bytes]]:
        """Return all pairs of id and state."""
        return []


store: StateStore[str, bytes] = Files()


def now() -> float:
    """A clock is a function."""
    return 0.0


clock: Clock = now
timed = Balancer(["a"], clock=now)
