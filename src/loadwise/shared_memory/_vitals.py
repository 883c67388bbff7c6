"""Version of a balancer's health, and a look at the host's memory whenever it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from loadwise.health import HealthTracker
from loadwise.outliers import Ejection
from loadwise.shared_memory._ejections import HostEjections
from loadwise.shared_memory._exchange import HostExchange
from loadwise.shared_memory._starts import BalancerStarts

__all__ = ["HostVitals"]


class HostVitals:
    """Tells a balancer's picks whether something has changed, here or in other processes.

    Args:
        exchange: This process's part in the host.
        health: The balancer's tracker, if it has one.

    Thread-safety: full.

    Cost: a comparison.
    """

    __slots__ = ("__weakref__", "_exchange", "_health", "_on_ejection", "_on_start", "_started")

    def __init__(self, exchange: HostExchange, health: HealthTracker | None) -> None:
        self._exchange = exchange
        self._health = health
        self._on_start: Callable[[Hashable, float], None] | None = None
        self._on_ejection: Callable[[Hashable, Ejection], None] | None = None
        self._started = 0
        if health is not None:
            exchange.share_health(health)

    @property
    def due(self) -> float:
        """When the rows and the file are to be looked at."""
        return self._exchange.due

    def tend(self) -> None:
        """Look at the rows and the file, if that is due."""
        self._exchange.catch_up()

    @property
    def version(self) -> int:
        """Version of the health, and of slow starts that others began."""
        exchange = self._exchange
        if exchange.chime[0] != exchange.chimed:
            exchange.attend()
        return self._started if self._health is None else self._started + self._health.version

    def share_starts(self, heard: Callable[[Hashable, float], None]) -> BalancerStarts:
        """Return where the balancer's slow starts are told; have it told of those of others."""
        self._on_start = heard
        return self._exchange.news.starts.share(self._found, self._hear_start)

    def share_ejections(self, heard: Callable[[Hashable, Ejection], None]) -> HostEjections:
        """Return where the balancer's ejections are told; have it told of those of others."""
        self._on_ejection = heard
        ejections = self._exchange.news.ejections
        ejections.share(self._hear_ejection)
        self._exchange.look_anew()
        return ejections

    def _found(self, node_id: Hashable) -> float | None:
        if self._health is None:
            return None
        return self._exchange.news.health.found(self._health, node_id)

    def _hear_start(self, node_id: Hashable, since: float) -> None:
        if self._on_start is not None:
            self._on_start(node_id, since)
            self._started += 1

    def _hear_ejection(self, node_id: Hashable, ejection: Ejection) -> None:
        if self._on_ejection is not None:
            self._on_ejection(node_id, ejection)
