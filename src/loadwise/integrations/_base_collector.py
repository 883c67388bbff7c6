"""The common part of the collectors for monitoring systems."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from threading import Lock
from typing import Generic, TypeVar

from loadwise._fork import ForkAware, reset_in_child
from loadwise._numbers import number, shown, whole
from loadwise.health import HealthStatus
from loadwise.integrations._balancer_metrics import BalancerMetrics, Budget, Watched
from loadwise.integrations._node_counters import MetricRecorder
from loadwise.outcome import Outcome
from loadwise.outliers import Ejection

__all__ = ["DEFAULT_BUCKETS", "BaseCollector", "as_bounds"]

R = TypeVar("R", bound=MetricRecorder)

DEFAULT_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Upper bounds in seconds: from a cache next door to a language model."""


def as_bounds(buckets: Iterable[float]) -> tuple[float, ...]:
    """Return the finite upper bounds of a histogram's buckets.

    Raises:
        TypeError: One is no number, or it is no collection of them.
        ValueError: There are none, one is NaN or not above 0, or they do not rise.
    """
    if isinstance(buckets, (str, bytes)) or not isinstance(buckets, Iterable):
        raise TypeError(f"buckets is {shown(buckets)}; it must be a list of seconds")
    bounds = tuple(float(number("a bucket's upper bound", bound)) for bound in buckets)
    if bounds and bounds[-1] == math.inf:
        bounds = bounds[:-1]
    rising = all(low < high for low, high in zip((0.0, *bounds), bounds, strict=False))
    if not bounds or not rising or math.inf in bounds:
        raise ValueError(
            f"buckets is {list(bounds)}; it must have at least one upper bound in seconds, all "
            f"above 0, finite and in rising order"
        )
    return bounds


class BaseCollector(ForkAware, Generic[R]):
    """A `MetricsCollector` that keeps a `BalancerMetrics` for each name of a balancer.

    Args:
        max_nodes: How many nodes of a balancer have series of their own.

    Thread-safety: all methods may be called from any thread.
    """

    # Whether a series that was shown once cannot be taken back.
    _labels_stay = False

    def __init__(self, max_nodes: int) -> None:
        self._max_nodes = whole("max_nodes", max_nodes, 1)
        self._lock = Lock()
        self._by_name: dict[str, BalancerMetrics[R]] = {}
        self._loose = self._make_metrics("")
        reset_in_child(self)

    def _after_fork(self) -> None:
        self._lock = Lock()

    def attach(self, balancer: Watched) -> BalancerMetrics[R]:
        """Return the collector to use for this balancer; a balancer calls it by itself."""
        with self._lock:
            metrics = self._named(balancer.name)
            metrics.watch(balancer)
            return metrics

    def watch_budget(self, budget: Budget, balancer: str = "default") -> None:
        """Show what is left of a retry budget, for as long as the budget lives.

        Args:
            budget: Whatever has ``balance() -> float``. It is held weakly.
            balancer: The name of the balancer that it belongs to. Several budgets of one name
                are added up.
        """
        with self._lock:
            self._named(balancer).watch_budget(budget)

    def on_selection(self, node_id: Hashable, strategy: str) -> None:
        """Count a pick, of no balancer in particular."""
        self._loose.on_selection(node_id, strategy)

    def on_health_change(self, node_id: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        """Count a change of state, of no balancer in particular."""
        self._loose.on_health_change(node_id, old, new)

    def on_outcome(self, node_id: Hashable, outcome: Outcome, latency: float) -> None:
        """Count the end of a request, of no balancer in particular."""
        self._loose.on_outcome(node_id, outcome, latency)

    def on_unavailable(self, reason: str) -> None:
        """Count a request without a node, of no balancer in particular."""
        self._loose.on_unavailable(reason)

    def on_retry(self, node_id: Hashable, reason: str) -> None:
        """Count a retry, of no balancer in particular."""
        self._loose.on_retry(node_id, reason)

    def on_retry_refused(self, reason: str) -> None:
        """Count a retry that was given up, of no balancer in particular."""
        self._loose.on_retry_refused(reason)

    def on_cooldown(self, node_id: Hashable, seconds: float) -> None:
        """Count a cooldown that begins, of no balancer in particular."""
        self._loose.on_cooldown(node_id, seconds)

    def on_ejection(self, node_id: Hashable, ejection: Ejection) -> None:
        """Count an ejection, of no balancer in particular."""
        self._loose.on_ejection(node_id, ejection)

    def on_wait(self, seconds: float, got: bool) -> None:  # noqa: FBT001 - as it is called
        """Count a request that waited, of no balancer in particular."""
        self._loose.on_wait(seconds, got)

    def on_panic(self, entered: bool) -> None:  # noqa: FBT001 - as it is called
        """Count a panic that begins, of no balancer in particular."""
        self._loose.on_panic(entered)

    def _shown(self) -> list[BalancerMetrics[R]]:
        """Return what is to be shown; that of balancers that are gone is dropped."""
        with self._lock:
            self._by_name = {
                name: metrics for name, metrics in self._by_name.items() if not metrics.is_over()
            }
            return [self._loose, *self._by_name.values()]

    def _named(self, name: str) -> BalancerMetrics[R]:
        metrics = self._by_name.get(name)
        if metrics is None:
            metrics = self._by_name[name] = self._make_metrics(name)
        return metrics

    def _make_metrics(self, name: str) -> BalancerMetrics[R]:
        return BalancerMetrics(
            name,
            self._max_nodes,
            lambda label: self._make_recorder(name, label),
            self._make_waits(name),
            labels_stay=self._labels_stay,
        )

    def _make_recorder(self, balancer: str, label: str) -> R:
        """Return what records of one node."""
        raise NotImplementedError

    def _make_waits(self, balancer: str) -> R:
        """Return what records of the balancer and of no node: waits, and what is counted."""
        raise NotImplementedError
