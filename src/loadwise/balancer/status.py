"""Frozen records in which a balancer tells about itself."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from loadwise.balancer.panic import Panic
from loadwise.health import HealthStatus

__all__ = ["Explanation", "NodeStatus"]


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One member at one moment.

    Attributes:
        id: The node's id.
        health: Its state of health.
        health_reason: Why it is in that state, in words; ``None`` for a node that simply works.
        in_flight: Requests under way.
        latency: Moving average of its successful requests' latency in seconds; ``None`` before
            the first.
        picks: How often it was chosen since it joined, by this process.
        quota_remaining: Units left by quota dimension; empty without quotas.
        next_probe: Seconds until it may be probed, 0 when a probe is due; ``None`` for a node
            that needs none or whose probe is under way.
        drained: Whether it gets no new requests by `Balancer.drain` or a weight of 0.
        ailing: Whether it is UNHEALTHY but not dead, so that it gets requests in panic.
        limit: How many requests it may have in flight; ``None`` for no limit.
    """

    id: Hashable
    health: HealthStatus
    health_reason: str | None
    in_flight: int
    latency: float | None
    picks: int
    quota_remaining: Mapping[str, float]
    next_probe: float | None
    drained: bool
    ailing: bool = False
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why the next request would go where it would go.

    Attributes:
        balancer: The balancer's name.
        strategy: The strategy's name.
        ineligible: The nodes that were ruled out, by id, each with the reason: ``"drained"``,
            ``"unhealthy"``, ``"recovering"``, ``"rate_limited"``, ``"quota"``, ``"filtered"`` or
            ``"excluded"``.
        eligible: The ids the strategy could choose from.
        seen: What the strategy bases its choice on, by id and by name (``"load"``, ``"weight"``,
            ``"remaining"``), for the eligible nodes.
        choice: The id it would choose; ``None`` when there is none, or when it cannot be told.
        foreseeable: Whether the choice can be told; ``False`` for a strategy of your own that has
            no ``peek``, and where the first choice has not the quota that the request costs or
            is RECOVERING and has all the requests that it needs.
        panic: How bad it is, while the balancer is in panic; else ``None``.
        ailing: The ids of nodes that are UNHEALTHY and eligible because of it, but not dead.
    """

    balancer: str
    strategy: str
    ineligible: Mapping[Hashable, str]
    eligible: tuple[Hashable, ...]
    seen: Mapping[Hashable, Mapping[str, float]]
    choice: Hashable | None
    foreseeable: bool
    panic: Panic | None = None
    ailing: frozenset[Hashable] = frozenset()

    def __str__(self) -> str:
        lines = [f"{self.balancer}: {self.strategy}"]
        if not self.foreseeable:
            lines[0] += " cannot tell its choice without making it"
        elif self.choice is None:
            lines[0] += " has nothing to choose"
        else:
            lines[0] += f" would choose {self.choice!r}"
        if self.panic is not None:
            lines.append(f"  {self.panic}")
        for node_id in self.eligible:
            facts = ", ".join(f"{name} {value:g}" for name, value in self.seen[node_id].items())
            eligible = "eligible though ailing" if node_id in self.ailing else "eligible"
            lines.append(f"  {node_id!r}: {eligible}" + (f" ({facts})" if facts else ""))
        lines += [f"  {node_id!r}: {reason}" for node_id, reason in self.ineligible.items()]
        return "\n".join(lines)
