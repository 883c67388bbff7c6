"""Version of a balancer's health, and a look at the host's memory whenever it is asked for."""

from __future__ import annotations

from loadwise.health import HealthTracker
from loadwise.shared_memory._exchange import HostExchange

__all__ = ["HostVitals"]


class HostVitals:
    """Tells a balancer's picks whether something has changed, here or in other processes.

    Args:
        exchange: This process's part in the host.
        health: The balancer's tracker, if it has one.

    Thread-safety: full.

    Cost: a comparison.
    """

    __slots__ = ("_exchange", "_health")

    def __init__(self, exchange: HostExchange, health: HealthTracker | None) -> None:
        self._exchange = exchange
        self._health = health
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
        """Version of the health; 0 without a tracker."""
        exchange = self._exchange
        if exchange.chime[0] != exchange.chimed:
            exchange.attend()
        return 0 if self._health is None else self._health.version
