"""Finding a node that grants what a request needs: its probe, its quota."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Generic, TypeVar

from loadwise._callables import refuse_awaitable
from loadwise.balancer.request import Request
from loadwise.balancer.view import View
from loadwise.health import HealthStatus, HealthTracker, Probe
from loadwise.node_set import NodeSet
from loadwise.quota import QuotaSource, Reservation, ReservedQuota
from loadwise.strategies._base import ViewStrategy

__all__ = ["Grant", "Negotiator"]

N = TypeVar("N")

_NEEDED_NOW = "a pick cannot wait: make it a plain method"


class Grant:
    """What a node has granted.

    Attributes:
        index: The node's index.
        probe: Its one probe, if it is UNHEALTHY and the request is that probe.
        reservation: Quota set aside, if there are quotas.
    """

    __slots__ = ("index", "probe", "reservation")

    def __init__(self, index: int, probe: Probe | None, reservation: ReservedQuota | None) -> None:
        self.index = index
        self.probe = probe
        self.reservation = reservation


class Negotiator(Generic[N]):
    """Asks the strategy until a node is found that grants what the request needs.

    Thread-safety: that of the strategy and the trackers; nothing of its own changes.
    """

    def __init__(
        self, strategy: ViewStrategy[N], health: HealthTracker | None, quota: QuotaSource | None
    ) -> None:
        self._strategy = strategy
        self._health = health
        self._quota = quota

    def find(
        self, view: View[N], nodes: NodeSet[N], request: Request[N], *, for_lease: bool
    ) -> tuple[Grant | None, dict[int, str]]:
        """Return what was granted, if a node was found, and who has refused and why."""
        refused: dict[int, str] = {}
        while True:
            index = self._strategy.select(nodes, request.context(refused))
            if index is None:
                return None, refused
            identity = nodes.ids[index]
            probe = None
            if index in view.probes:
                probe = self._probe(identity, request, for_lease=for_lease)
                if probe is None and not self._is_up(identity):
                    refused[index] = "unhealthy"
                    continue
            if self._quota is None:
                return Grant(index, probe, None), refused
            reservation = self._quota.try_acquire(identity, request.cost)
            if reservation is not None:
                if reservation.__class__ is not Reservation:
                    refuse_awaitable("try_acquire of the quota", reservation, _NEEDED_NOW)
                return Grant(index, probe, reservation), refused
            self.give_up(request)
            # Most likely others cannot afford it either: rule them out in one go.
            for i in nodes.eligible:
                if self._quota.available_at(nodes.ids[i], request.cost) > self._quota.clock():
                    refused[i] = "quota"
            refused[index] = "quota"

    def give_up(self, request: Request[N]) -> None:
        """Take back the probe of a request that will not be sent, if it has one."""
        if request.probe is not None and self._health is not None:
            self._health.end_probe(*request.probe)

    def _probe(self, identity: Hashable, request: Request[N], *, for_lease: bool) -> Probe | None:
        if self._health is None:
            return None
        # A lease ends its probe itself; after a mere pick it lapses if nothing is reported.
        lapse = math.inf if for_lease else self._health.policy.probe_interval
        # Known before it is granted: Ctrl-C may strike in between, and it must not be lost.
        probe = Probe()
        request.probe = identity, probe
        return self._health.grant_probe(identity, lapse, probe)

    def _is_up(self, identity: Hashable) -> bool:
        return self._health is None or self._health.status(identity) != HealthStatus.UNHEALTHY
