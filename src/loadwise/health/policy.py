"""When a node changes its state of health."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

from loadwise._numbers import finite, whole
from loadwise.health.status import HealthStatus
from loadwise.outcome import Outcome

__all__ = ["ConsecutiveFailurePolicy", "HealthPolicy", "NodeHealth"]


@dataclass(frozen=True, slots=True)
class NodeHealth:
    """What is known of one node's health.

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
    policy may keep state of its own by ``health.id``. If it never acts on a success of a HEALTHY
    node without failures, it can say so with an attribute ``ignores_success_when_healthy = True``
    and such reports, by far the most, cost next to nothing.
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
        probe_interval: Seconds after the last failure before a probe, finite and >= 0.

    Raises:
        TypeError: A number of failures or successes is not an int, or the interval no number.
        ValueError: An argument is out of range.

    Immutable, so thread-safe.

    Example:
        >>> ConsecutiveFailurePolicy(failure_threshold=5).probe_interval
        10.0
    """

    failure_threshold: int = 3
    recovery_successes: int = 2
    probe_interval: float = 10.0

    @property
    def ignores_success_when_healthy(self) -> bool:
        """A success of a healthy node changes nothing."""
        return True

    def __post_init__(self) -> None:
        for name in ("failure_threshold", "recovery_successes"):
            object.__setattr__(self, name, whole(name, getattr(self, name), 1))
        pause = finite("probe_interval", self.probe_interval)
        if not pause >= 0:
            raise ValueError(
                f"probe_interval is {self.probe_interval!r}; it must be a finite number of "
                f"seconds, at least 0"
            )
        object.__setattr__(self, "probe_interval", pause)

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


_NOT_WELL = HealthStatus.UNHEALTHY | HealthStatus.RECOVERING
