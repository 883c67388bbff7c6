"""The members of a balancer, and the picture of who may be chosen among them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from threading import Lock
from typing import Generic, TypeVar

from loadwise._counter import upcoming
from loadwise._fork import ForkAware, reset_in_child
from loadwise._native import let_go
from loadwise.balancer.status import NodeStatus
from loadwise.balancer.view import Meter, Slot, View, make_view
from loadwise.errors import UnknownNode
from loadwise.filters import Filter
from loadwise.health import HealthStatus, HealthTracker
from loadwise.load import LoadMeasure
from loadwise.node_set import NodeSet
from loadwise.nodes import node_id
from loadwise.quota import QuotaSource

__all__ = ["Fleet"]

N = TypeVar("N")


class Fleet(ForkAware, Generic[N]):
    """Membership, and the state that decides who of it may be chosen.

    Args:
        name: The balancer's name, for error messages.
        measures: What to count requests with; at least one.
        health: Who knows the health, if anyone.
        pauses: Who knows which nodes sit out.
        has_quota: Whether quota is to be reserved for each request, too.
        where: A filter that holds for every request.
        prepare: Called with a new membership before it is adopted; what it raises stops that.

    Thread-safety: changes take a lock and publish an immutable `View` by one assignment. What a
    change needs built (a hash ring) is built before, while picks go on with the old members.
    """

    def __init__(
        self,
        name: str,
        measures: tuple[LoadMeasure, ...],
        health: HealthTracker | None,
        pauses: QuotaSource,
        *,
        has_quota: bool,
        where: Filter[N] | None,
        prepare: Callable[[NodeSet[N]], None],
    ) -> None:
        self._name = name
        self._meters = tuple(map(Meter, measures))
        self._health = health
        self._pauses = pauses
        self._has_quota = has_quota
        self._where = where
        self._prepare = prepare
        # The first is held by whoever changes the membership, the second to work out a view.
        self._changing = Lock()
        self._lock = Lock()
        # By one reference, so that whoever reads finds members and slots that belong together.
        nobody: NodeSet[N] = NodeSet(())
        self._members: tuple[NodeSet[N], tuple[Slot, ...]] = (nobody, ())
        self.view = self.look()
        reset_in_child(self)

    def _after_fork(self) -> None:
        self._changing = Lock()
        self._lock = Lock()
        # The parent's leases go on holding the old slots, which nobody counts here.
        whole, slots = self._members
        for slot in slots:
            slot.alive = False
        self._members = (whole, tuple(slot.fresh(self._meters) for slot in slots))
        self.view = self.look()

    @property
    def nodes(self) -> tuple[N, ...]:
        """The members, in order."""
        return self._members[0].membership.nodes

    @property
    def ids(self) -> tuple[Hashable, ...]:
        """The members' ids, in order, as they were when each joined."""
        return self._members[0].ids

    def slot_of(self, identity: Hashable) -> Slot:
        """Return the slot of a member."""
        whole, slots = self._members
        return slots[self._index_in(whole, identity)]

    def has(self, identity: Hashable) -> bool:
        """Whether there is a member with this id."""
        return self._members[0].index_of(identity) is not None

    def refreshed(self) -> View[N]:
        """Return a view that holds now."""
        view = self.view
        if self._holds(view):
            return view
        with self._lock:
            if not self._holds(self.view):
                self._publish(self.look())
            return self.view

    def _publish(self, view: View[N]) -> None:
        replaced = self.view
        self.view = view
        let_go(replaced)

    def look(self) -> View[N]:
        """Work out a view. O(n)."""
        return self._look_at(*self._members)

    def _look_at(self, whole: NodeSet[N], slots: tuple[Slot, ...]) -> View[N]:
        return make_view(
            whole,
            slots,
            self._health,
            self._pauses,
            self._where,
            has_quota=self._has_quota,
        )

    def add(self, node: N) -> None:
        """Add a member."""
        with self._changing:
            self._adopt(NodeSet((*self.nodes, node)))

    def remove(self, identity: Hashable) -> None:
        """Remove a member."""
        with self._changing:
            index = self._index_of(identity)
            self._adopt(NodeSet((*self.nodes[:index], *self.nodes[index + 1 :])))

    def replace(self, nodes: Iterable[N]) -> None:
        """Replace all members; who stays, by id, keeps the slot."""
        fresh = NodeSet(nodes)
        with self._changing:
            self._adopt(fresh)

    def set_draining(self, identity: Hashable, *, draining: bool) -> None:
        """Begin or end the drain of a member."""
        with self._changing, self._lock:
            self._members[1][self._index_of(identity)].draining = draining
            self._publish(self.look())

    def status(self) -> list[NodeStatus]:
        """Return how each member is."""
        view = self.view
        weights = view.nodes.weights
        return [
            self._status_of(slot, drained=slot.draining or not weight)
            for slot, weight in zip(view.slots, weights, strict=True)
        ]

    def _status_of(self, slot: Slot, *, drained: bool) -> NodeStatus:
        health, reason, wait = HealthStatus.HEALTHY, None, None
        if self._health is not None:
            record = self._health.health(slot.id)
            health, reason = record.status, record.reason
            due = self._health.next_probe(slot.id)
            wait = None if due is None else max(0.0, due - self._health.clock())
        return NodeStatus(
            id=slot.id,
            health=health,
            health_reason=reason,
            in_flight=len(slot.in_flight),
            latency=slot.latency,
            picks=upcoming(slot.picks),
            quota_remaining=self._pauses.remaining_by_dimension(slot.id),
            next_probe=wait,
            drained=drained,
        )

    def _index_of(self, identity: Hashable) -> int:
        return self._index_in(self._members[0], identity)

    def _index_in(self, whole: NodeSet[N], identity: Hashable) -> int:
        identity = node_id(identity)
        index = whole.index_of(identity)
        if index is None:
            raise UnknownNode(identity, f"balancer {self._name!r}", whole.ids)
        return index

    def _adopt(self, whole: NodeSet[N]) -> None:
        """Make ``whole`` the membership: all of it or, on an error, nothing. For one at a time."""
        self._prepare(whole)
        with self._lock:
            gone = {slot.id: slot for slot in self._members[1]}
            slots = tuple(
                gone.pop(identity) if identity in gone else Slot(identity, self._meters)
                for identity in whole.ids
            )
            view = self._look_at(whole, slots)
            replaced = self._members
            self._members = whole, slots
            self._publish(view)
            let_go(replaced)
        for slot in gone.values():
            slot.alive = False
        for identity in gone:
            if self._health is not None:
                self._health.remove(identity)
            if not self._has_quota:
                self._pauses.remove(identity)

    def _holds(self, view: View[N]) -> bool:
        return (
            view.quota_version == self._pauses.version
            and (self._health is None or view.health_version == self._health.version)
            and (view.watch is None or view.watch.holds())
        )
