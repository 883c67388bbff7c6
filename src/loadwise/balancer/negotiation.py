"""Finding a node that grants what a request needs: room, its probe, its quota."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Generic, TypeVar

from loadwise._callables import refuse_awaitable
from loadwise.balancer.request import Request
from loadwise.balancer.view import Slot, View
from loadwise.health import KNOWN_DOWN, HealthStatus, HealthTracker, Probe
from loadwise.node_set import NodeSet
from loadwise.quota import QuotaSource, Reservation, ReservedQuota
from loadwise.strategies._base import ViewStrategy

__all__ = ["Grant", "Negotiator"]

N = TypeVar("N")

_MOST_REFUSALS = 4
_NEEDED_NOW = "a pick cannot wait: make it a plain method"


class Grant:
    """What a node has granted.

    Attributes:
        index: The node's index.
        probe: Its one probe, if it is UNHEALTHY and the request is that probe; `KNOWN_DOWN` if it
            is UNHEALTHY and given requests all the same.
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
        self, view: View[N], request: Request[N], *, for_lease: bool
    ) -> tuple[Grant | None, dict[int, str]]:
        """Return what was granted, if a node was found, and who was ruled out or has refused."""
        nodes, ruled_out = request.restrict(view.nodes)
        grant, refused = self._ask(view, nodes, request, for_lease=for_lease)
        if grant is None and view.others is not None and view.candidates <= request.excluded:
            # What is excluded is all there is to choose from: better a node that is down than none.
            nodes, more = request.restrict(view.others)
            grant, others = self._ask(view, nodes, request, for_lease=for_lease, despite=True)
            refused |= more | others
            # They could have been chosen in spite of their health.
            down = view.down - view.candidates
            refused |= {i: "rate_limited" for i in down if not view.others.mask[i]}
            refused |= {i: "excluded" for i in request.excluded if view.others.mask[i]}
        return grant, ruled_out | refused

    def _ask(
        self,
        view: View[N],
        nodes: NodeSet[N],
        request: Request[N],
        *,
        for_lease: bool,
        despite: bool = False,
    ) -> tuple[Grant | None, dict[int, str]]:
        """Ask for one of ``nodes``; with ``despite``, all of them are known to be down."""
        refused: dict[int, str] = {}
        # RECOVERING nodes that have all the requests they need; ``None`` once that counts no more.
        full: set[int] | None = set() if view.recovering else None
        while True:
            index = self._strategy.select(nodes, request.context(refused))
            if index is None:
                if not full:
                    return None, refused
                # There is nobody else.
                refused = {i: why for i, why in refused.items() if i not in full}
                full = None
                continue
            if full is not None and self.is_passed_over(view, index):
                full.add(index)
                if len(full) > _MOST_REFUSALS:
                    full.update(i for i in view.recovering if self.is_passed_over(view, i))
                refused.update(dict.fromkeys(full, "recovering"))
                continue
            grant = self._grant(view, index, request, for_lease=for_lease, despite=despite)
            if isinstance(grant, Grant):
                return grant, refused
            refused[index] = grant
            if grant == "quota":
                refused |= self._without_quota(nodes, request)

    def _grant(
        self, view: View[N], index: int, request: Request[N], *, for_lease: bool, despite: bool
    ) -> Grant | str:
        """Return what a node grants, or the reason why it grants nothing."""
        identity = view.nodes.ids[index]
        probe: Probe | None = None
        if index in view.probes and not despite:
            probe = self._probe(identity, request, for_lease=for_lease)
            if probe is None and not self._is_up(identity):
                return "unhealthy"
        elif index in view.down:  # and yet it may be chosen: this is panic
            probe = KNOWN_DOWN
        if self._quota is None:
            return Grant(index, probe, None)
        reservation = self._quota.try_acquire(identity, request.cost)
        if reservation is None:
            self.give_up(request)
            return "quota"
        if reservation.__class__ is not Reservation:
            refuse_awaitable("try_acquire of the quota", reservation, _NEEDED_NOW)
        return Grant(index, probe, reservation)

    def _without_quota(self, nodes: NodeSet[N], request: Request[N]) -> dict[int, str]:
        """Rule out in one go all that cannot afford what one of them could not."""
        quota = self._quota
        if quota is None:
            return {}
        cost = request.cost
        return {
            i: "quota"
            for i in nodes.eligible
            if quota.available_at(nodes.ids[i], cost) > quota.clock()
        }

    def is_passed_over(self, view: View[N], index: int) -> bool:
        """Tell whether a node is RECOVERING and has all the requests that it needs."""
        return index in view.recovering and self._is_full(view.slots[index])

    def _is_full(self, slot: Slot) -> bool:
        if self._health is None:
            return False
        needed = self._health.successes_needed(slot.id)
        return needed is not None and len(slot.in_flight) >= needed

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
