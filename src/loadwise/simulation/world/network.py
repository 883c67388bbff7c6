"""Delays of messages between zones."""

from __future__ import annotations

from loadwise.simulation.scenario import Network

__all__ = ["Delays"]


class Delays:
    """Delays of messages between one client and the servers.

    Args:
        network: What is known of the ways.
        zone: Where the client stands, if anywhere.
    """

    __slots__ = ("_by_zone", "_default")

    def __init__(self, network: Network, zone: str | None) -> None:
        self._default = network.delay
        self._by_zone = {
            there: pair.delay
            for pair in network.pairs
            for here, there in (pair.zones, pair.zones[::-1])
            if here == zone
        }

    def to(self, zone: str | None) -> float:
        """Return the seconds that a message takes to a server in a zone, or back."""
        return self._default if zone is None else self._by_zone.get(zone, self._default)
