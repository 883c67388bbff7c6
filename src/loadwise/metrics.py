"""Hooks through which a balancer tells what it does."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from typing import Protocol

from loadwise.health import HealthStatus
from loadwise.outcome import Outcome

__all__ = ["MetricsCollector", "NoopCollector"]

_log = logging.getLogger("loadwise")


class MetricsCollector(Protocol):
    """Receives events; methods are called in the thread in which they happen.

    They must be quick and thread-safe, and do no I/O. One that raises is logged once and never
    breaks a pick.
    """

    def on_selection(self, node_id: Hashable, strategy: str) -> None:
        """A node was chosen by the strategy of this name."""

    def on_health_change(self, node_id: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        """A node's state of health changed."""

    def on_outcome(self, node_id: Hashable, outcome: Outcome, latency: float) -> None:
        """A request ended after ``latency`` seconds."""

    def on_unavailable(self, reason: str) -> None:
        """No node could be given; ``reason`` is that of `NoNodeAvailable`."""


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
        for method in ("on_selection", "on_health_change", "on_outcome", "on_unavailable"):
            if not callable(getattr(collector, method, None)):
                raise TypeError(
                    f"metrics is {collector!r}; it lacks {method}() (subclass "
                    f"loadwise.NoopCollector to define only what you need)"
                )
        self._collector = collector
        self._complained = False

    def on_selection(self, node_id: Hashable, strategy: str) -> None:
        """Pass on."""
        try:
            self._collector.on_selection(node_id, strategy)
        except Exception:  # noqa: BLE001 - a collector's errors are its own
            self._complain("on_selection")

    def on_health_change(self, node_id: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        """Pass on."""
        try:
            self._collector.on_health_change(node_id, old, new)
        except Exception:  # noqa: BLE001 - a collector's errors are its own
            self._complain("on_health_change")

    def on_outcome(self, node_id: Hashable, outcome: Outcome, latency: float) -> None:
        """Pass on."""
        try:
            self._collector.on_outcome(node_id, outcome, latency)
        except Exception:  # noqa: BLE001 - a collector's errors are its own
            self._complain("on_outcome")

    def on_unavailable(self, reason: str) -> None:
        """Pass on."""
        try:
            self._collector.on_unavailable(reason)
        except Exception:  # noqa: BLE001 - a collector's errors are its own
            self._complain("on_unavailable")

    def _complain(self, method: str) -> None:
        if not self._complained:
            self._complained = True
            _log.exception(
                "the metrics collector %r failed in %s; further failures are not logged",
                self._collector,
                method,
            )
