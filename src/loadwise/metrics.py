"""Hooks through which a balancer tells what it does."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import Protocol

from loadwise._callables import refuse_async_methods, refuse_awaitable
from loadwise._log import log_exception
from loadwise.health import HealthStatus
from loadwise.outcome import Outcome
from loadwise.outliers import Ejection

__all__ = [
    "CooldownCollector",
    "EjectionCollector",
    "MetricsCollector",
    "NoopCollector",
    "PanicCollector",
    "RetryCollector",
    "WaitCollector",
]


_METHODS = (
    "on_selection",
    "on_health_change",
    "on_outcome",
    "on_unavailable",
    "on_retry",
    "on_retry_refused",
    "on_panic",
    "on_cooldown",
    "on_wait",
    "on_ejection",
    "watch_budget",
)
_TOLD_NOW = "nobody would await it: make it a plain function that does not wait"


class MetricsCollector(Protocol):
    """Receives events; methods are called in the thread in which they happen.

    They must be quick and thread-safe, and do no I/O. One that raises is logged once and never
    breaks a pick. Coroutine methods are refused, because nobody would await them.
    """

    def on_selection(self, node_id: Hashable, strategy: str) -> None:
        """A node was chosen by the strategy of this name."""

    def on_health_change(self, node_id: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        """A node's state of health changed."""

    def on_outcome(self, node_id: Hashable, outcome: Outcome, latency: float) -> None:
        """A request ended after ``latency`` seconds."""

    def on_unavailable(self, reason: str) -> None:
        """No node could be given; ``reason`` is that of `NoNodeAvailable`."""


class RetryCollector(Protocol):
    """Collector that hears of retries, too; optional beside `MetricsCollector`."""

    def on_retry(self, node_id: Hashable, reason: str) -> None:
        """A request that failed on this node is tried on another."""

    def on_retry_refused(self, reason: str) -> None:
        """A retry was given up: budget, attempts, deadline, unsafe or no_node is why."""


class PanicCollector(Protocol):
    """Collector that hears of panic, too; optional beside `MetricsCollector`."""

    def on_panic(self, entered: bool) -> None:  # noqa: FBT001 - the event is nothing else
        """Panic began in the balancer, or ended."""


class CooldownCollector(Protocol):
    """Collector that hears of cooldowns, too; optional beside `MetricsCollector`."""

    def on_cooldown(self, node_id: Hashable, seconds: float) -> None:
        """The balancer put a node on cooldown for so many seconds.

        One that is prolonged before it is over does not begin again.
        """


class EjectionCollector(Protocol):
    """Collector that hears of ejections, too; optional beside `MetricsCollector`."""

    def on_ejection(self, node_id: Hashable, ejection: Ejection) -> None:
        """A node was ejected, because it did worse than the rest."""


class WaitCollector(Protocol):
    """Collector that hears of requests that waited, too; optional beside `MetricsCollector`."""

    def on_wait(self, seconds: float, got: bool) -> None:  # noqa: FBT001 - as PanicCollector
        """A request waited so many seconds for a node, and got one or gave up."""


class NoopCollector:
    """Ignores everything; the default, and a base for collectors of a few events."""

    def on_selection(self, node_id: Hashable, strategy: str) -> None:
        """Ignore."""

    def on_health_change(self, node_id: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        """Ignore."""

    def on_outcome(self, node_id: Hashable, outcome: Outcome, latency: float) -> None:
        """Ignore."""

    def on_unavailable(self, reason: str) -> None:
        """Ignore."""


class GuardedCollector:
    """Passes events on, and keeps what they raise from the caller."""

    def __init__(self, collector: MetricsCollector) -> None:
        if isinstance(collector, type):
            name = collector.__name__
            raise TypeError(f"metrics is the class {name}; give an instance: {name}()")
        for method in ("on_selection", "on_health_change", "on_outcome", "on_unavailable"):
            if not callable(getattr(collector, method, None)):
                raise TypeError(
                    f"metrics is {collector!r}; it lacks {method}() (subclass "
                    f"loadwise.NoopCollector to define only what you need)"
                )
        refuse_async_methods("metrics", collector, _METHODS, _TOLD_NOW)
        self._collector = collector
        # Emptied by the first who complains: pop is atomic, a flag is not.
        self._complaints = [None]

    def on_selection(self, node_id: Hashable, strategy: str) -> None:
        """Pass on."""
        self._tell(self._collector.on_selection, node_id, strategy)

    def on_health_change(self, node_id: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        """Pass on."""
        self._tell(self._collector.on_health_change, node_id, old, new)

    def on_outcome(self, node_id: Hashable, outcome: Outcome, latency: float) -> None:
        """Pass on."""
        self._tell(self._collector.on_outcome, node_id, outcome, latency)

    def on_unavailable(self, reason: str) -> None:
        """Pass on."""
        self._tell(self._collector.on_unavailable, reason)

    def on_panic(self, entered: bool) -> None:  # noqa: FBT001 - as the collector's
        """Pass on, if the collector cares."""
        self._tell(getattr(self._collector, "on_panic", None), entered)

    def on_cooldown(self, node_id: Hashable, seconds: float) -> None:
        """Pass on, if the collector cares."""
        self._tell(getattr(self._collector, "on_cooldown", None), node_id, seconds)

    def on_wait(self, seconds: float, got: bool) -> None:  # noqa: FBT001 - as the collector's
        """Pass on, if the collector cares."""
        self._tell(getattr(self._collector, "on_wait", None), seconds, got)

    def on_ejection(self, node_id: Hashable, ejection: Ejection) -> None:
        """Pass on, if the collector cares."""
        self._tell(getattr(self._collector, "on_ejection", None), node_id, ejection)

    def on_retry(self, node_id: Hashable, reason: str) -> None:
        """Pass on, if the collector cares."""
        self._tell(getattr(self._collector, "on_retry", None), node_id, reason)

    def on_retry_refused(self, reason: str) -> None:
        """Pass on, if the collector cares."""
        self._tell(getattr(self._collector, "on_retry_refused", None), reason)

    def watch_budget(self, budget: object) -> None:
        """Have the collector watch a retry budget, if it cares."""
        self._tell(getattr(self._collector, "watch_budget", None), budget)

    def _tell(self, method: Callable[..., object] | None, *event: object) -> None:
        if method is None:
            return
        try:
            answer: object = method(*event)
            if answer is not None:
                name = getattr(method, "__name__", "")
                refuse_awaitable(f"{name}() of the metrics collector", answer, _TOLD_NOW)
        except Exception:  # noqa: BLE001 - a collector may raise what it likes
            with suppress(IndexError):
                self._complaints.pop()
                log_exception(
                    "the metrics collector %r failed in %s%r; further failures are not logged",
                    self._collector,
                    getattr(method, "__name__", method),
                    event,
                )


class SeveralCollectors:
    """Passes events on to each of several collectors; none keeps the others from hearing.

    Args:
        collectors: The collectors, each guarded by itself.
    """

    def __init__(self, collectors: Sequence[GuardedCollector]) -> None:
        self._collectors = tuple(collectors)

    def on_selection(self, node_id: Hashable, strategy: str) -> None:
        """Pass on to all."""
        for each in self._collectors:
            each.on_selection(node_id, strategy)

    def on_health_change(self, node_id: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        """Pass on to all."""
        for each in self._collectors:
            each.on_health_change(node_id, old, new)

    def on_outcome(self, node_id: Hashable, outcome: Outcome, latency: float) -> None:
        """Pass on to all."""
        for each in self._collectors:
            each.on_outcome(node_id, outcome, latency)

    def on_unavailable(self, reason: str) -> None:
        """Pass on to all."""
        for each in self._collectors:
            each.on_unavailable(reason)

    def on_panic(self, entered: bool) -> None:  # noqa: FBT001 - as the collectors'
        """Pass on to all that care."""
        for each in self._collectors:
            each.on_panic(entered)

    def on_cooldown(self, node_id: Hashable, seconds: float) -> None:
        """Pass on to all that care."""
        for each in self._collectors:
            each.on_cooldown(node_id, seconds)

    def on_wait(self, seconds: float, got: bool) -> None:  # noqa: FBT001 - as the collectors'
        """Pass on to all that care."""
        for each in self._collectors:
            each.on_wait(seconds, got)

    def on_ejection(self, node_id: Hashable, ejection: Ejection) -> None:
        """Pass on to all that care."""
        for each in self._collectors:
            each.on_ejection(node_id, ejection)

    def on_retry(self, node_id: Hashable, reason: str) -> None:
        """Pass on to all that care."""
        for each in self._collectors:
            each.on_retry(node_id, reason)

    def on_retry_refused(self, reason: str) -> None:
        """Pass on to all that care."""
        for each in self._collectors:
            each.on_retry_refused(reason)

    def watch_budget(self, budget: object) -> None:
        """Have all that care watch a retry budget."""
        for each in self._collectors:
            each.watch_budget(budget)
