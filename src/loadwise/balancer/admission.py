"""Finding a node that grants what a request needs: room, its probe, its quota."""

from __future__ import annotations

import math
import random
from collections.abc import Hashable
from collections.abc import Set as AbstractSet
from typing import Generic, TypeVar

from loadwise._callables import refuse_awaitable
from loadwise.balancer.asked_nodes import MOST_REFUSALS, Asked
from loadwise.balancer.free_nodes import FreeNodes
from loadwise.balancer.limits import Room
from loadwise.balancer.request import Request
from loadwise.balancer.shortage import Shortages
from loadwise.balancer.slot import Slot
from loadwise.balancer.view import View
from loadwise.health import KNOWN_DOWN, HealthStatus, HealthTracker, Probe
from loadwise.node_set import NodeSet
from loadwise.quota import QuotaSource, Reservation, ReservedQuota
from loadwise.strategies.protocols import ViewStrategy

__all__ = ["Admission", "Grant"]

N = TypeVar("N")

_MOST_RECOVERING = 16
"""So many RECOVERING nodes may be passed over before one is given more than it needs."""
_NEEDED_NOW = "a pick cannot wait: make it a plain method"

_NONE: AbstractSet[int] = frozenset()
_ONE: list[None] = [None]

_MOST_CROWDED = 4
"""So many full nodes may be met by a strategy that takes any node, before one is drawn for it."""
_MOST_IN_ORDER = 64
"""The same for one that keeps an order, before all full nodes are left out of what it is shown."""
_MOST_TRIES = 8
"""So often is a permit tried for that other threads of this process want at the same moment."""


class Grant:
    """Grant of a node: room, probe and quota.

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


class Admission(Generic[N]):
    """Asks the strategy until a node is found that grants what the request needs.

    RECOVERING nodes that have all the requests they need are passed over. After four of them all
    RECOVERING nodes are left out; where there is nobody else, up to 16 are asked for room, before
    one of them is given more. So a request costs the same however many there are.

    Thread-safety: that of the strategy, the trackers and `Shortages`.
    """

    def __init__(
        self,
        strategy: ViewStrategy[N],
        health: HealthTracker | None,
        quota: QuotaSource | None,
        free: FreeNodes[N],
    ) -> None:
        self._strategy = strategy
        self._takes_any: bool = getattr(strategy, "takes_any", False)
        # Combinations may turn all nodes down, and who knows what one of the user's own does.
        self._turns_none_down = hasattr(strategy, "takes_any")
        self._free = free
        self._health = health
        self._quota = quota
        nobody: NodeSet[N] = NodeSet(())
        self._kept_steady: tuple[NodeSet[N], frozenset[int], NodeSet[N]]
        self._kept_steady = nobody, frozenset(), nobody
        self.shortages: Shortages[N] | None = None if quota is None else Shortages(quota)

    def find(
        self, view: View[N], request: Request[N], *, for_lease: bool
    ) -> Grant | list[Asked[N]]:
        """Return what was granted or, if nothing was, who was asked.

        The second to be asked, if any, are nodes that are down, where all others are excluded.
        """
        nodes = request.restrict(view.nodes)
        first = self._ask(view, nodes, request, for_lease=for_lease)
        if isinstance(first, Grant):
            return first
        if view.others is None or not view.candidates <= request.excluded:
            return [first]
        # What is excluded is all there is to choose from: better a node that is down than none.
        nodes = request.restrict(view.others)
        second = self._ask(view, nodes, request, for_lease=for_lease, despite=True)
        return second if isinstance(second, Grant) else [first, second]

    def anyone(self, view: View[N], request: Request[N]) -> bool:
        """Tell whether there is a node that `find` might grant, and ask nobody for anything.

        O(number excluded), amortised, as `find`.
        """
        if self._someone(view, request.restrict(view.nodes), request):
            return True
        if view.others is None or not view.candidates <= request.excluded:
            return False
        return self._someone(view, request.restrict(view.others), request, despite=True)

    def _someone(
        self, view: View[N], nodes: NodeSet[N], request: Request[N], *, despite: bool = False
    ) -> bool:
        asked = Asked(nodes, request, self.shortages, despite=despite)
        while True:
            left = asked.left
            for index in left.eligible:
                if index in request.excluded or index in asked.refused:
                    continue
                if view.slots[index].is_full:
                    return bool(self._with_room(view, asked, request)[0])
                if self._affords(nodes.ids[index], request):
                    asked.close()
                    return True
                asked.refuse_for_quota(index)
                if asked.left is not left:
                    break
            else:
                if not asked.doubtful:
                    asked.close()
                    return False
                asked.ask_again()

    def _affords(self, identity: Hashable, request: Request[N]) -> bool:
        quota = self._quota
        return quota is None or quota.available_at(identity, request.cost) <= quota.clock()

    def _ask(
        self,
        view: View[N],
        nodes: NodeSet[N],
        request: Request[N],
        *,
        for_lease: bool,
        despite: bool = False,
    ) -> Grant | Asked[N]:
        """Ask for one of ``nodes``; with ``despite``, all of them are known to be down."""
        asked = Asked(nodes, request, self.shortages, despite=despite)
        # RECOVERING nodes that have all the requests they need; ``None`` once that counts no more.
        sated: set[int] | None = set() if view.recovering else None
        most, crowd = MOST_REFUSALS, 0
        while True:
            left = asked.left
            if sated and len(sated) > most:
                asked.left = self._steady(view, left)
            if crowd:
                index = self._choose(view, asked, request, crowd)
            else:
                index = self._strategy.select(asked.left, request.context(asked.refused))
            among, asked.left = asked.left, left
            if index is None:
                if asked.doubtful:
                    asked.ask_again()
                    continue
                if among is not left and most < _MOST_RECOVERING:
                    most = _MOST_RECOVERING  # perhaps a RECOVERING node has room
                    continue
                if not sated:
                    asked.crowded = crowd > 0
                    asked.close()
                    return asked
                # There is nobody else.
                asked.forgive(sated)
                sated = None
                continue
            if sated is not None and self.is_passed_over(view, index):
                sated.add(index)
                asked.refused[index] = "recovering"
                continue
            grant = self._grant(view, index, request, for_lease=for_lease, despite=despite)
            if isinstance(grant, Grant):
                asked.close()
                return grant
            crowd += grant == "full"
            asked.refuse(index, grant)

    def _choose(
        self, view: View[N], asked: Asked[N], request: Request[N], crowd: int
    ) -> int | None:
        """Return whom to ask next, given that ``crowd`` nodes were found full."""
        most = _MOST_CROWDED if self._takes_any else _MOST_IN_ORDER
        if 1 < crowd < most:
            return self._strategy.select(asked.left, request.context(asked.refused, asked.full))
        few, are_all = self._with_room(view, asked, request)
        if not few:
            return None
        if self._takes_any and (are_all or crowd >= most):
            return _roomier(view, few)
        if are_all and len(few) == 1 and self._turns_none_down:
            return few[0]
        left = asked.left
        barred: AbstractSet[int] = asked.full
        if are_all:
            left, barred = left.only(few), _NONE
        elif crowd >= most:
            slots = view.slots
            left, barred = left.without([i for i in left.eligible if slots[i].is_full]), _NONE
        return self._strategy.select(left, request.context(asked.refused, barred))

    def _with_room(
        self, view: View[N], asked: Asked[N], request: Request[N]
    ) -> tuple[list[int], bool]:
        banned = request.excluded.union(asked.refused) if asked.refused else request.excluded
        return self._free.some(asked.left, view.slots, banned, narrowed=request.narrows)

    def _steady(self, view: View[N], left: NodeSet[N]) -> NodeSet[N]:
        """Return those of ``left`` that are not RECOVERING. O(n) once for the last ``left``."""
        source, recovering, steady = self._kept_steady
        if source is not left or recovering is not view.recovering:
            steady = left.without(view.recovering)
            self._kept_steady = left, view.recovering, steady
        return steady

    def _grant(
        self, view: View[N], index: int, request: Request[N], *, for_lease: bool, despite: bool
    ) -> Grant | str:
        """Return what a node grants, or the reason why it grants nothing."""
        identity = view.nodes.ids[index]
        room = view.slots[index].room
        if room is not None and not _enter(room, request, for_lease=for_lease):
            return "full"
        probe: Probe | None = None
        if index in view.probes and not despite:
            probe = self._probe(identity, request, for_lease=for_lease)
            if probe is None and not self._is_up(identity):
                self.give_up(request)
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

    def is_passed_over(self, view: View[N], index: int) -> bool:
        """Tell whether a node is RECOVERING and has all the requests that it needs."""
        return index in view.recovering and self._is_full(view.slots[index])

    def _is_full(self, slot: Slot) -> bool:
        if self._health is None:
            return False
        needed = self._health.successes_needed(slot.id)
        return needed is not None and slot.requests >= needed

    def give_up(self, request: Request[N]) -> None:
        """Take back what was granted to a request that will not be sent."""
        room = request.room
        if room is not None:
            # As one step, because nothing is called in it.
            request.room = None
            free = room.free
            free += _ONE
            room.tell()
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


def _enter(room: Room, request: Request[N], *, for_lease: bool) -> bool:
    """Take a permit, or merely look for one; return whether there is one."""
    if room.debt:
        room.pay()
    if not for_lease:
        return room.left > 0
    if room.elsewhere is not None:
        return _enter_shared(room, request)
    # Nothing is called from here until the request holds it.
    try:
        del room.free[-1]
    except IndexError:
        return False
    request.room = room
    return True


def _enter_shared(room: Room, request: Request[N]) -> bool:
    """Take a permit of a node of which other processes have requests in flight, too.

    Permits are taken first and counted then, so that threads of this process are never too many
    together. Where they find that they are, all give back, and try again.
    """
    for _ in range(_MOST_TRIES):
        if room.left <= 0:
            return False
        # Nothing is called until the request holds it.
        try:
            del room.free[-1]
        except IndexError:
            return False
        request.room = room
        if room.left >= 0:
            return True
        # As one step, as in give_up().
        request.room = None
        free = room.free
        free += _ONE
        room.tell()
    return False


def _roomier(view: View[N], indices: list[int]) -> int:
    """Return the one with the larger share of its room free, of two drawn at random."""
    one, other = random.choices(indices, k=2)
    return one if view.slots[one].free_share >= view.slots[other].free_share else other
