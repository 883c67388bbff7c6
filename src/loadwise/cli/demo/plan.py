"""The size of a run of the demo."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DemoPlan"]

_RATE = 500.0
_SHORTEST = 4.0
_PROBES_PER_RUN = 20
_GATE = 0.8


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """The size of a run.

    Attributes:
        requests: Requests to send.
        concurrency: Client threads that send them.
        seed: Seed of the arrival times, the answer times and the strategy's draws.
    """

    requests: int
    concurrency: int
    seed: int

    @property
    def seconds(self) -> float:
        """Seconds that a run lasts if the clients keep up."""
        return max(_SHORTEST, self.requests / _RATE)

    @property
    def probe_interval(self) -> float:
        """Seconds between probes: short, so that a run sees a few."""
        return self.seconds / _PROBES_PER_RUN

    @property
    def gate(self) -> int:
        """Number of the first request that waits until the server that was killed is back."""
        return int(self.requests * _GATE)
