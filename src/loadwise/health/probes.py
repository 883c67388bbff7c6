"""The probes of nodes that are down: when the next is due, and who has it."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from typing import Final, Protocol

from loadwise._callables import refuse_awaitable
from loadwise._numbers import number, shown
from loadwise.health.policy import HealthPolicy

__all__ = ["KNOWN_DOWN", "Claims", "Probe", "ProbeSchedule"]


class Probe:
    """The right to send one request to an UNHEALTHY node.

    Attributes:
        expires: When it lapses if nothing is reported of it, in seconds of the tracker's clock.
    """

    __slots__ = ("expires",)

    def __init__(self) -> None:
        self.expires = math.inf


KNOWN_DOWN: Final = Probe()
"""Stands for the probe of a request that was sent to a node though it was known to be down.

What comes of it is news, however short the time since the node went down. It was granted by
nobody, so its failure begins no new probe interval.
"""


_SHORTEST_CLAIM: Final = 1.0
_LONGEST_CLAIM: Final = 60.0
"""Seconds until others may probe a node whose probe a process has claimed and not ended."""
_PROBE_NOW: Final = (-math.inf, 0)


class Claims(Protocol):
    """Claims of probes, where several processes probe the same nodes."""

    def claim(self, node_id: Hashable, now: float, until: float) -> float | None:
        """Claim a node's probe until a time; return when to try again, if another has it."""
        ...

    def settle(self, node_id: Hashable, due: float) -> None:
        """Give a claim up; nobody is to probe the node before ``due``."""
        ...


class ProbeSchedule:
    """Schedule of probes: when each node that is down may be probed, and who has its probe.

    Args:
        policy: How long to wait: its ``probe_delay``, or else its ``probe_interval``.
        draw: Source of random numbers, uniform in [0, 1).

    Attributes:
        claims: Where other processes probe the same nodes; ``None`` for this one alone.

    Not thread-safe: the tracker holds a lock.

    Cost: O(1) for each method.
    """

    def __init__(self, policy: HealthPolicy, draw: Callable[[], float]) -> None:
        self._policy = policy
        self._draw = draw
        self._delay: Callable[[int, Callable[[], float]], float] | None = getattr(
            policy, "probe_delay", None
        )
        # By id: when the next is due, and how many have failed in a row.
        self._due: dict[Hashable, tuple[float, int]] = {}
        self._granted: dict[Hashable, Probe] = {}
        # Until when nodes may not be probed, whatever is planned.
        self._held: dict[Hashable, float] = {}
        self.claims: Claims | None = None
        # When to try again, for probes that were due here and that others had claimed.
        self._claimed: dict[Hashable, float] = {}

    def forget_granted(self) -> None:
        """Leave the probes that are under way to the parent of a fork."""
        self._granted = {}

    def begin(self, node_id: Hashable, when: float | None) -> None:
        """Plan the first probe of a node that went down at ``when``; ``None`` for a probe now."""
        self._due[node_id] = (-math.inf if when is None else when + self._wait(0), 0)

    def failed(self, node_id: Hashable, when: float) -> None:
        """Plan the probe after one that failed at ``when``."""
        failures = self._due.get(node_id, (0.0, 0))[1] + 1
        due = when + self._wait(failures)
        self._due[node_id] = (due, failures)
        if self.claims is not None:
            self.claims.settle(node_id, due)

    def hasten(self, node_id: Hashable) -> None:
        """Make the next probe due now."""
        self._due[node_id] = (-math.inf, self._due.get(node_id, (0.0, 0))[1])
        self._claimed.pop(node_id, None)

    def hold(self, node_id: Hashable, until: float) -> None:
        """Let a node not be probed before ``until``, and then at once."""
        self._held[node_id] = until

    def has_hold(self, node_id: Hashable) -> bool:
        """Tell whether a node was held, and neither released nor probed since."""
        return node_id in self._held

    def is_held(self, node_id: Hashable, now: float) -> bool:
        """Tell whether a node may not be probed now for that it is held."""
        return bool(self._held) and now < self._held.get(node_id, -math.inf)

    def release(self, node_id: Hashable) -> None:
        """Hold a node no more; its probe is due now."""
        self._held.pop(node_id, None)
        self.hasten(node_id)

    def due(self, node_id: Hashable) -> float:
        """Return when the node may next be probed; inf while its probe is under way."""
        due = self._held.get(node_id)
        if due is None:
            due = self._due.get(node_id, _PROBE_NOW)[0]
        if self._claimed:
            due = max(due, self._claimed.get(node_id, due))
        probe = self._granted.get(node_id)
        return due if probe is None else max(due, probe.expires)

    def dues(self, node_ids: Iterable[Hashable]) -> list[float]:
        """Return the same for each of these nodes. O(ids)."""
        if self._granted or self._held or self._claimed:
            return [self.due(node_id) for node_id in node_ids]
        plans = self._due
        return [plans.get(node_id, _PROBE_NOW)[0] for node_id in node_ids]

    def grant(self, node_id: Hashable, probe: Probe, now: float, lapse: float) -> bool:
        """Give a node's probe away for ``lapse`` seconds; ``False`` if another process has it."""
        if self.claims is not None:
            seconds = min(max(self._policy.probe_interval, _SHORTEST_CLAIM), _LONGEST_CLAIM)
            claimed = self.claims.claim(node_id, now, now + seconds)
            if claimed is not None:
                self._claimed[node_id] = claimed
                return False
        probe.expires = now + lapse
        self._held.pop(node_id, None)
        self._claimed.pop(node_id, None)
        self._granted[node_id] = probe
        return True

    def end(self, node_id: Hashable, probe: Probe) -> bool:
        """Take a probe back; return whether it was under way."""
        if self._granted.get(node_id) is not probe:
            return False
        del self._granted[node_id]
        self._settle(node_id)
        return True

    def end_lapsing(self, node_id: Hashable) -> bool:
        """Take back a probe that belongs to no lease; return whether there was one.

        One without an end in time belongs to a lease, which ends it itself.
        """
        probe = self._granted.get(node_id)
        if probe is None or math.isinf(probe.expires):
            return False
        del self._granted[node_id]
        self._settle(node_id)
        return True

    def up(self, node_id: Hashable) -> None:
        """Drop the plan for a node that is down no more; its probe may still be under way."""
        self._due.pop(node_id, None)
        self._held.pop(node_id, None)
        self._claimed.pop(node_id, None)
        if self.claims is not None:
            self.claims.settle(node_id, 0.0)

    def remove(self, node_id: Hashable) -> None:
        """Forget a node."""
        self.up(node_id)
        self._granted.pop(node_id, None)

    def _settle(self, node_id: Hashable) -> None:
        if self.claims is not None:
            self.claims.settle(node_id, self._due.get(node_id, _PROBE_NOW)[0])

    def _wait(self, failed: int) -> float:
        if self._delay is None:
            return self._policy.probe_interval
        delay: object = self._delay(failed, self._draw)
        if type(delay) is float and delay == delay:  # noqa: PLR0124 - NaN differs from itself
            return delay
        whose = f"{type(self._policy).__name__}.probe_delay"
        refuse_awaitable(whose, delay, "a report cannot wait: make it a plain function")
        plain = number(f"what {whose} returned", delay)
        if math.isnan(plain):
            raise ValueError(f"{whose} returned {shown(delay)}; it must return seconds")
        return plain
