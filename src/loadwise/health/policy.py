"""The rules by which a node changes its state of health and is probed."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Protocol

from loadwise._numbers import finite, whole
from loadwise.health.status import HealthStatus
from loadwise.outcome import Outcome

__all__ = ["ConsecutiveFailurePolicy", "HealthPolicy", "NodeHealth"]


@dataclass(frozen=True, slots=True)
class NodeHealth:
    """Record of one node's health.

    Attributes:
        id: The node's id.
        status: Its state.
        consecutive_failures: Failures since the last success.
        consecutive_successes: Successes since the last failure; not counted on while HEALTHY.
        last_failure: When it last failed, in seconds of the tracker's clock; ``None`` if never.
        down_since: When it was last found UNHEALTHY, in seconds of the tracker's clock; ``None``
            once it is HEALTHY again.
        reason: Why it is in this state, in words; ``None`` for a node that simply works.
    """

    id: Hashable
    status: HealthStatus = HealthStatus.HEALTHY
    consecutive_failures: int = 0
    consecutive_successes: int = 0
    last_failure: float | None = None
    down_since: float | None = None
    reason: str | None = None


class HealthPolicy(Protocol):
    """The rule by which outcomes change a node's state.

    It is called under the tracker's lock: it must be quick and must not call the tracker. A
    policy may keep state of its own by ``health.id``. Three more members are optional:

    - ``ignores_success_when_healthy = True`` says that it never acts on a success of a HEALTHY
      node without failures; such reports, by far the most, then cost next to nothing.
    - ``recovery_successes`` tells how many successes in a row end RECOVERING. A balancer lets no
      more requests into a RECOVERING node than it still needs; without this member, one at a time.
    - ``probe_delay(failed_probes, draw)`` returns the seconds to the next probe of an UNHEALTHY
      node after so many failed ones; ``draw()`` is uniform in [0, 1). Without this member they
      are always ``probe_interval``.
    """

    @property
    def probe_interval(self) -> float:
        """Seconds from a failure to the probe of an UNHEALTHY node, >= 0; inf for no probe."""
        ...

    def next_status(self, health: NodeHealth, outcome: Outcome) -> HealthStatus:
        """Return the state after ``outcome`` (SUCCESS or FAILURE).

        Args:
            health: The node's health so far, with the counts already including ``outcome``.
            outcome: What was reported.
        """
        ...


@dataclass(frozen=True, slots=True)
class ConsecutiveFailurePolicy:
    """Failures in a row make a node unhealthy; successes in a row make it healthy again.

    ========== ================================== ==========
    from       on                                 to
    ========== ================================== ==========
    HEALTHY    ceil(threshold / 2) failures       DEGRADED
    DEGRADED   threshold failures                 UNHEALTHY
    DEGRADED   1 success                          HEALTHY
    UNHEALTHY  1 success                          RECOVERING
    RECOVERING ``recovery_successes`` in a row    HEALTHY
    RECOVERING 1 failure                          UNHEALTHY
    ========== ================================== ==========

    With a threshold of 1 the first failure leads straight to UNHEALTHY; with
    ``recovery_successes`` of 1 the first success leads straight back to HEALTHY.

    Args:
        failure_threshold: Failures in a row that make a node UNHEALTHY, >= 1.
        recovery_successes: Successes in a row, the one that ended UNHEALTHY included, that make
            it HEALTHY again, >= 1.
        probe_interval: Seconds from the failure that made it UNHEALTHY, or from a failed probe,
            to the next probe, finite and >= 0.
        probe_backoff: By how much each failed probe multiplies the interval, finite and >= 1, so
            that a dead node is asked ever less often. A success starts again at the first one.
        max_probe_interval: Seconds that the interval grows to at most, finite and >= 0; it does
            not shorten ``probe_interval`` itself.
        jitter: Share, from 0 to 1, by which each interval is lengthened at random, so that nodes
            that failed together are not probed together: 0.5 makes 10 seconds 10 to 15.

    Raises:
        TypeError: A number of failures or successes is not an int, or the interval no number.
        ValueError: An argument is out of range.

    Immutable, so thread-safe.

    Example:
        >>> patient = ConsecutiveFailurePolicy(probe_interval=10.0, probe_backoff=2.0)
        >>> [patient.probe_delay(failed, draw=lambda: 0.0) for failed in (0, 1, 2, 9)]
        [10.0, 20.0, 40.0, 300.0]
    """

    failure_threshold: int = 3
    recovery_successes: int = 2
    probe_interval: float = 10.0
    probe_backoff: float = 1.0
    max_probe_interval: float = 300.0
    jitter: float = 0.0

    @property
    def ignores_success_when_healthy(self) -> bool:
        """A success of a healthy node changes nothing."""
        return True

    def __post_init__(self) -> None:
        for name in ("failure_threshold", "recovery_successes"):
            object.__setattr__(self, name, whole(name, getattr(self, name), 1))
        for name in ("probe_interval", "max_probe_interval"):
            seconds = finite(name, getattr(self, name))
            if not seconds >= 0:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; it must be a finite number of seconds, "
                    f"at least 0"
                )
            object.__setattr__(self, name, seconds)
        backoff, jitter = finite("probe_backoff", self.probe_backoff), finite("jitter", self.jitter)
        if not backoff >= 1:
            raise ValueError(
                f"probe_backoff is {self.probe_backoff!r}; it must be a finite number, at least 1"
            )
        if not 0 <= jitter <= 1:
            raise ValueError(
                f"jitter is {self.jitter!r}; it must be a share of the interval, from 0 to 1"
            )
        object.__setattr__(self, "probe_backoff", backoff)
        object.__setattr__(self, "jitter", jitter)

    def probe_delay(self, failed_probes: int, draw: Callable[[], float]) -> float:
        """Return the seconds to the next probe.

        Args:
            failed_probes: Probes that have failed since the node was found UNHEALTHY, >= 0.
            draw: Returns a random number, uniform in [0, 1).
        """
        delay = self.probe_interval
        if failed_probes and self.probe_backoff > 1 and delay < self.max_probe_interval:
            # More doublings than a float has room for end at the maximum all the same.
            exponent = min(failed_probes, _MOST_BACKOFFS)
            try:
                grown = delay * self.probe_backoff**exponent
            except OverflowError:
                grown = self.max_probe_interval
            delay = min(grown, self.max_probe_interval)
        return delay * (1.0 + self.jitter * draw()) if self.jitter else delay

    def next_status(self, health: NodeHealth, outcome: Outcome) -> HealthStatus:
        """Return the state after ``outcome``, by the table above."""
        if outcome is Outcome.SUCCESS:
            if (
                health.status in _NOT_WELL
                and health.consecutive_successes < self.recovery_successes
            ):
                return HealthStatus.RECOVERING
            return HealthStatus.HEALTHY
        if health.status in _NOT_WELL or health.consecutive_failures >= self.failure_threshold:
            return HealthStatus.UNHEALTHY
        if health.consecutive_failures >= (self.failure_threshold + 1) // 2:
            return HealthStatus.DEGRADED
        return health.status


_MOST_BACKOFFS = 1_000
_NOT_WELL = HealthStatus.UNHEALTHY | HealthStatus.RECOVERING
