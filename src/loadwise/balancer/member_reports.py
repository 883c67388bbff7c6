"""Reports of how each member of a balancer is."""

from __future__ import annotations

from collections import Counter
from typing import Any, Generic, TypeVar

from loadwise._counter import upcoming
from loadwise.balancer.cooldowns import Cooldowns
from loadwise.balancer.fleet import Fleet
from loadwise.balancer.json_values import as_json
from loadwise.balancer.panic import PanicRule
from loadwise.balancer.recent import sums
from loadwise.balancer.slot import Slot
from loadwise.balancer.status import NodeStatus
from loadwise.clock import Clock
from loadwise.health import HealthStatus, HealthTracker
from loadwise.quota import QuotaSource

__all__ = ["Roster"]

N = TypeVar("N")


class Roster(Generic[N]):
    """Reads how members are, and changes nothing.

    Args:
        fleet: The members.
        clock: The balancer's clock.
        health: Who knows the health, if anyone.
        quota: Who knows what is left of quotas.
        cooldowns: Cooldowns of the members, with their reasons.
        rule: When there is panic; ``None`` for never.

    Thread-safety: that of those it asks. Members are those of one moment; what is told of them
    changes while they are asked one after another.
    """

    def __init__(
        self,
        fleet: Fleet[N],
        clock: Clock,
        health: HealthTracker | None,
        quota: QuotaSource,
        cooldowns: Cooldowns,
        rule: PanicRule | None,
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._health = health
        self._quota = quota
        self._cooldowns = cooldowns
        self._rule = rule

    def status(self) -> list[NodeStatus]:
        """Return how each member is. O(n)."""
        view = self._fleet.view
        whole = view.nodes.membership
        members = zip(view.slots, whole.nodes, whole.weights, strict=True)
        return [self._status_of(slot, node, weight) for slot, node, weight in members]

    def as_dict(self, name: str, strategy: str, waiting: int) -> dict[str, Any]:
        """Return how the balancer of this name and its members are, as JSON has it. O(n)."""
        view = self._fleet.refreshed()
        nodes = self.status()
        # As panic counts them.
        members = len(view.nodes) - sum(
            why in ("drained", "filtered") for why in view.ruled_out.values()
        )
        states = Counter(each.health for each in nodes)
        return {
            "name": as_json(name),
            "strategy": strategy,
            "panic": None if view.panic is None else view.panic.to_dict(),
            "members": members,
            "available": members - len(view.down),
            "counts": {str(state.name): states[state] for state in HealthStatus},
            "on_cooldown": sum(each.cooldown is not None for each in nodes),
            "waiting": waiting,
            "nodes": [each.to_dict() for each in nodes],
        }

    def _status_of(self, slot: Slot, node: N, weight: float) -> NodeStatus:
        health, reason, wait = HealthStatus.HEALTHY, None, None
        ailing = ejected = False
        now = self._clock()
        if self._health is not None:
            record = self._health.health(slot.id)
            health, reason = record.status, record.reason
            if health is HealthStatus.UNHEALTHY:
                ejected = self._health.is_ejected(slot.id)
                due = self._health.next_probe(slot.id)
                wait = None if due is None else max(0.0, due - self._health.clock())
                if self._rule is not None:
                    ailing = self._health.is_ailing(slot.id, self._rule.window)
        successes, failures = sums(slot.buckets, upcoming(slot.successes), now)
        in_flight = slot.requests
        zone, priority = getattr(node, "zone", None), getattr(node, "priority", None)
        return NodeStatus(
            id=slot.id,
            health=health,
            health_reason=reason,
            in_flight=in_flight,
            latency=slot.latency,
            picks=upcoming(slot.picks),
            quota_remaining=self._quota.remaining_by_dimension(slot.id),
            next_probe=wait,
            drained=slot.draining or not weight,
            ailing=ailing,
            limit=None if slot.room is None else slot.room.limit,
            cooldown=self._cooldowns.of(slot),
            state_seconds=max(0.0, now - slot.state_since),
            recent_successes=successes,
            recent_failures=failures,
            weight=weight,
            slow_start=self._fleet.weight_factor(slot.id),
            ejected=ejected,
            elsewhere=0 if slot.elsewhere is None else max(0, in_flight - len(slot.in_flight)),
            zone=zone if isinstance(zone, str) else None,
            priority=priority if isinstance(priority, int) else None,
        )
