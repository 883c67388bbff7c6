"""Members of a balancer, and the view of who may be chosen among them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Hashable
from functools import partial
from threading import RLock
from typing import Generic, TypeVar

from loadwise._fork import ForkAware, reset_in_child
from loadwise._membership import Owner
from loadwise._native import let_go
from loadwise.balancer.host import HealthVersion, HostWatch
from loadwise.balancer.limits import Freed, Limits, Room, Rooms
from loadwise.balancer.panic import Panic, PanicRule
from loadwise.balancer.slot import MeasureFeed, Slot
from loadwise.balancer.slow_start import SlowStarts
from loadwise.balancer.view import Grounds, View, admits, has_answered, make_view, no_view
from loadwise.errors import UnknownNode
from loadwise.filters import Filter
from loadwise.health import HealthStatus, HealthTracker
from loadwise.load import LoadMeasure
from loadwise.node_set import NodeSet
from loadwise.nodes import node_id
from loadwise.outliers import Ejector
from loadwise.quota import QuotaSource

__all__ = ["Fleet"]

N = TypeVar("N")
T = TypeVar("T")


class Fleet(ForkAware, Generic[N]):
    """Membership, and the state that decides who of it may be chosen.

    Args:
        name: The balancer's name, for error messages.
        measures: What to count requests with; at least one.
        health: Who knows the health, if anyone.
        quota: Source of quotas, which also knows the cooldowns.
        has_quota: Whether quota is to be reserved for each request, too.
        limits: How many requests each node may have in flight.
        freed: Told of nodes that have room again.
        where: A filter that holds for every request.
        rule: When there is panic; ``None`` for never.
        slow: Who is in slow start; ``None`` without the rule.
        on_panic: Told how bad it is when panic begins, and ``None`` when it ends.
        prepare: Called with a new membership before it is adopted; what it raises stops that.
        vitals: Version of the health.

    Thread-safety: changes take a lock and publish an immutable `View` by one assignment. What one
    needs built is built before, while picks go on with the old members.
    """

    def __init__(  # noqa: PLR0913 - all that decides who may be chosen comes together here
        self,
        name: str,
        measures: tuple[LoadMeasure, ...],
        health: HealthTracker | None,
        quota: QuotaSource,
        *,
        has_quota: bool,
        limits: Limits[N],
        freed: Freed,
        where: Filter[N] | None,
        rule: PanicRule | None,
        slow: SlowStarts | None,
        on_panic: Callable[[Panic | None], None],
        prepare: Callable[[NodeSet[N]], None],
        vitals: HealthVersion,
    ) -> None:
        self._name = name
        self._vitals = vitals
        self._feeds = tuple(map(MeasureFeed, measures))
        self._health = health
        self._quota = quota
        self._limits = limits
        self._rooms = Rooms(freed)
        shared = vitals if isinstance(vitals, HostWatch) else None
        self._grounds = Grounds(health, quota, where, rule, has_quota, slow, shared)
        # Whether nobody knows when the filter changes its mind, so that it is asked at every pick.
        self._unwatched = where is not None and where.sources() is None
        self._on_panic = on_panic
        self._prepare = prepare
        self._owner = Owner()
        # The first is held by whoever changes the membership, the second to work out a view. Both
        # may be taken again: the collector may strike while they are held, and close a generator
        # that asks for a node.
        self._changing = RLock()
        self._changes = False
        self._lock = RLock()
        # Those that are drained, and perhaps some that are no more.
        self._draining: set[Hashable] = set()
        # Panics that began or ended and have not been told of yet, in order.
        self._news: deque[Panic | None] = deque()
        # Emptied by whoever tells of them: that is atomic, a flag is not.
        self._teller = [None]
        # By one reference, so that whoever reads finds members and slots that belong together.
        nobody: NodeSet[N] = NodeSet(())
        self._members: tuple[NodeSet[N], tuple[Slot, ...]] = (nobody, ())
        self.view: View[N] = no_view(nobody)
        self.view = self.look()
        reset_in_child(self)

    def _after_fork(self) -> None:
        self._changing = RLock()
        self._changes = False
        self._lock = RLock()
        self._teller = [None]
        # The parent's leases go on holding the old slots, which nobody counts here.
        whole, slots = self._members
        for slot in slots:
            slot.alive = False
        fresh = tuple(slot.fresh(self._feeds) for slot in slots)
        self._members = (whole, fresh)
        self._rooms.begin_anew([slot.room for slot in fresh if slot.room is not None])
        before, self.view = self.view, self.look()
        if (before.panic is None) is not (self.view.panic is None):
            self._news.append(self.view.panic)
        if self._news:
            self.view.quota_version = self.view.shown_quota_version = -1  # so it is told of

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
        """Tell whether there is a member with this id."""
        return self._members[0].index_of(identity) is not None

    def refreshed(self) -> View[N]:
        """Return a view that holds now."""
        if (watch := self._grounds.watch) is not None:
            watch.tend()
            self.view.expire(watch.due)
        view = self.view
        # A function of the user's is asked before the lock is taken: it may take its time.
        answers = self._answers(view.nodes)
        if view.admitted == answers and self._holds(view):
            return view
        self._grounds.catch_up()
        present: View[N] | None = None
        while present is None:
            with self._lock:
                whole, slots = self._members
                if answers is None or len(answers) == len(whole):
                    present = self.view
                    if present.admitted != answers or not self._holds(present):
                        present = self._publish(self._look_at(whole, slots, answers))
            if present is None:
                answers = self._answers(whole)
        self._tell()
        return present

    def eject_outliers(self, ejector: Ejector) -> None:
        """Have outliers ejected; said once, before the first request."""
        self._grounds = self._grounds._replace(ejector=ejector)
        self.view = self.look()

    def _answers(self, whole: NodeSet[N]) -> bytes | None:
        """Return the answers of a filter that may change its mind at any time. O(n)."""
        where = self._grounds.where
        return admits(where, whole) if self._unwatched and where is not None else None

    def _publish(self, view: View[N]) -> View[N]:
        """Make a view the present one, and return the one that is then."""
        before = self.view
        if before.panic is not None and before.panic.last_resort and view.panic != before.panic:
            view = self._end_last_resort(before, view)
        replaced = self.view  # asked again, because the collector may have struck
        self.view = view
        if (replaced.panic is None) is not (view.panic is None):
            self._news.append(view.panic)
        if self._grounds.slow is not None and not self._grounds.slow.holds(view.phase):
            view.quota_version = -1  # who began meanwhile has marked the view before
        let_go(replaced)
        return view

    def _end_last_resort(self, before: View[N], view: View[N]) -> View[N]:
        """Have all other nodes probed at once, if the last resort ends because a node answered.

        Else the first to recover would be left alone with the load.
        """
        if self._health is None or (view.panic is not None and view.panic.last_resort):
            return view
        if not view.down or not has_answered(before, view, self._health):
            return view
        self._health.hasten_probes([view.nodes.ids[i] for i in view.down])
        return self._look_at(*self._members, view.admitted)

    def _tell(self) -> None:
        """Tell of panics that began or ended, in order.

        Outside the lock, because collectors are the user's. One thread tells at a time, and what
        others add meanwhile, too: else an end could be told before its beginning.
        """
        while self._news:
            try:
                del self._teller[0]
            except IndexError:  # whoever has it sees what there is to tell
                return
            try:
                while self._news:
                    self._on_panic(self._news.popleft())
            finally:
                self._teller.append(None)

    def look(self) -> View[N]:
        """Work out a view."""
        whole, slots = self._members
        return self._look_at(whole, slots, self._answers(whole))

    def _look_at(
        self, whole: NodeSet[N], slots: tuple[Slot, ...], answers: bytes | None
    ) -> View[N]:
        return make_view(
            whole,
            slots,
            self._grounds,
            before=self.view,
            draining=[i for i in map(whole.index_of, self._draining) if i is not None],
            answers=answers,
        )

    def _change(self, change: Callable[[], T]) -> T:
        """Return ``change()``, while nobody else changes the membership.

        Raises:
            RuntimeError: It is asked for within another change.
        """
        with self._changing:
            if self._changes:
                raise RuntimeError(
                    f"the members of balancer {self._name!r} are changed by a function that is "
                    f"called, or an object that is collected, while this thread changes them; "
                    f"change them after that"
                )
            self._changes = True
            try:
                done = change()
            finally:
                self._changes = False
        self._tell()
        return done

    def add(self, node: N) -> None:
        """Add a member. What was read of the others when they joined is not read again."""
        limit = self._limits.of(node)
        self._change(partial(self._add, node, limit))

    def _add(self, node: N, limit: int | None) -> None:
        whole, slots = self._members
        grown = NodeSet.of_membership(whole.membership.joined(node))
        self._prepare(grown)
        slot = self._slot(grown.ids[-1], self._rooms.of(grown.ids[-1], limit))
        self._adopt(grown, (*slots, slot), ())
        self._limit(slot, limit)

    def remove(self, identity: Hashable) -> None:
        """Remove a member."""
        # Outside the lock, because it may call what is the user's.
        self._change(partial(self._remove, identity)).settle()

    def _remove(self, identity: Hashable) -> Slot:
        whole, slots = self._members
        index = self._index_in(whole, identity)
        left = NodeSet.of_membership(whole.membership.parted(index))
        self._prepare(left)
        self._adopt(left, slots[:index] + slots[index + 1 :], (slots[index],))
        return slots[index]

    def replace(self, fresh: NodeSet[N], drained: Collection[Hashable] = ()) -> None:
        """Replace all members by a set of its own; who stays, by id, keeps the slot."""
        # A membership that strategies can tell from those of other balancers.
        fresh.membership.owner = self._owner
        limits = [self._limits.of(node) for node in fresh]
        for slot in self._change(partial(self._replace, fresh, limits, drained)):
            slot.settle()

    def _replace(
        self, fresh: NodeSet[N], limits: list[int | None], drained: Collection[Hashable]
    ) -> Collection[Slot]:
        self._prepare(fresh)
        gone = {slot.id: slot for slot in self._members[1]}
        slots = tuple(
            gone.pop(identity)
            if identity in gone
            else self._slot(identity, self._rooms.of(identity, limits[i]))
            for i, identity in enumerate(fresh.ids)
        )
        if drained:
            for slot in slots:
                slot.draining = slot.id in drained
            self._draining |= {slot.id for slot in slots if slot.draining}
        self._adopt(fresh, slots, gone.values())
        if self._limits.exist:
            for slot, limit in zip(slots, limits, strict=True):
                self._limit(slot, limit)
        return gone.values()

    def _limit(self, slot: Slot, limit: int | None) -> None:
        """Give a member the limit that its node has now."""
        if slot.room is None or limit is None:
            # Requests that began under no limit are not counted against the next one, nor those
            # that end under none.
            if limit is None:
                self._rooms.forget(slot.id)
            slot.limit_by(self._rooms.of(slot.id, limit))
        if slot.room is not None and limit is not None and slot.room.limit != limit:
            slot.room.resize(limit)

    def set_draining(self, identity: Hashable, *, draining: bool) -> None:
        """Begin or end the drain of a member."""
        self._change(partial(self._set_draining, identity, draining=draining))

    def _set_draining(self, identity: Hashable, *, draining: bool) -> None:
        with self._lock:
            whole, slots = self._members
            slot = slots[self._index_in(whole, identity)]
            # In this order: an interrupt may fall between the two, and the slot has the last word.
            if draining:
                self._draining.add(slot.id)
            slot.draining = draining
            if not draining:
                self._draining.discard(slot.id)
            self._publish(self._look_at(*self._members, self.view.admitted))

    def note_change(self, identity: Hashable, old: HealthStatus, new: HealthStatus) -> bool:
        """Note that the health of a node changes now; return whether it is a member."""
        whole, slots = self._members
        index = whole.index_of(identity)
        if index is None:
            return False
        slots[index].state_since = self._quota.clock()
        if self._grounds.slow is not None:
            self._grounds.slow.changed(slots[index].id, old, new)
            self.view.quota_version = -1  # so the next pick looks again
        return True

    def weight_factor(self, identity: Hashable) -> float | None:
        """Return what part of its weight a member has now, if it is in slow start."""
        slow = self._grounds.slow
        return None if slow is None or self.view.panic is not None else slow.factor(identity)

    def _slot(self, identity: Hashable, room: Room | None) -> Slot:
        slot = Slot(identity, self._feeds, self._quota.clock(), room)
        if self._grounds.slow is not None:
            self._grounds.slow.joined(identity)
        return slot

    def _index_in(self, whole: NodeSet[N], identity: Hashable) -> int:
        identity = node_id(identity)
        index = whole.index_of(identity)
        if index is None:
            raise UnknownNode(identity, f"balancer {self._name!r}", whole.ids)
        return index

    def _adopt(self, whole: NodeSet[N], slots: tuple[Slot, ...], gone: Collection[Slot]) -> None:
        """Make ``whole`` the membership: all of it or, on an error, nothing. For one at a time."""
        answers = self._answers(whole)
        with self._lock:
            view = self._look_at(whole, slots, answers)
            replaced = self._members
            self._members = whole, slots
            self._publish(view)
            let_go(replaced)
        for slot in gone:
            slot.alive = False
            slot.rolls_at = -math.inf
        for slot in gone:
            self._draining.discard(slot.id)
            if self._grounds.slow is not None:
                self._grounds.slow.left(slot.id)
            if self._health is not None:
                self._health.remove(slot.id)
            if not self._grounds.has_quota:
                self._quota.remove(slot.id)

    def _holds(self, view: View[N]) -> bool:
        return (
            view.shown_quota_version == self._quota.version
            and (self._grounds.slow is None or self._grounds.slow.holds(view.phase))
            and view.health_version == self._vitals.version
            and (self._grounds.ejector is None or self._grounds.ejector.is_swept(view.due))
            and (view.watch is None or view.watch.holds())
        )
