"""Counts of quotas that processes share, without the I/O.

What others have used is as the server said last; what this process has used is known at once. So
every question is answered on the spot, and while the server is away these counts decide.

In strict mode `_begin` makes a `PendingCall` of what is asked, a subclass sends its call to the
server and gives the reply to `_received`, and `_finish` answers.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from types import MappingProxyType

from loadwise._numbers import number
from loadwise.clock import Clock
from loadwise.integrations.redis._arguments import (
    Mode,
    OutagePolicy,
    as_seconds,
    check_quota_options,
    check_shareable,
)
from loadwise.integrations.redis._circuit_breaker import CircuitBreaker
from loadwise.integrations.redis._events import EventKind, EventLog, SharedEvent
from loadwise.integrations.redis._keys import quota_key
from loadwise.integrations.redis._parsing import Rejected
from loadwise.integrations.redis._quota_protocol import Reply, parse_reply
from loadwise.integrations.redis._shared_node import PendingCall, SharedNode, SharedReservation
from loadwise.integrations.redis._slices import NodeSlices
from loadwise.nodes import id_of
from loadwise.quota import QuotaConfig
from loadwise.quota.counts import NOTHING, QuotaCounts
from loadwise.quota.protocol import Amounts

__all__ = ["SharedCounts"]

_REFRESH = 1.0
# Of its time the background spends a tenth on nodes that are not in use here, at most.
_IDLE_SHARE = 0.1
# Seconds by which replies may differ about the end of the same cooldown.
_SAME = 0.05

_MEANWHILE = {
    "local": "until it is back, each process enforces the limits on its own",
    "refuse": "until it is back, requests that need quota are refused",
}


class SharedCounts(QuotaCounts[SharedNode]):
    """Counts of quotas that processes share.

    Args: as for `SharedQuota`, and

        wake: Called when there is something to tell the server; must not wait.

    Thread-safety: one lock, which is not held while the server is asked.
    """

    def __init__(
        self,
        prefix: str,
        mode: Mode,
        on_outage: OutagePolicy,
        *,
        timeout: float,
        slice_share: float,
        clock: Clock,
        on_event: Callable[[SharedEvent], object] | None,
        wake: Callable[[], None],
    ) -> None:
        check_quota_options(prefix, mode, on_outage, slice_share, clock)
        self._timeout = as_seconds("timeout", timeout)
        self._prefix = prefix
        self._share = number("slice_share", slice_share) if mode == "leased" else None
        self._refuses = on_outage == "refuse"
        self._wake = wake
        self._refresh = self._idle = _REFRESH
        self._log = EventLog("quota", on_event)
        self._circuit = CircuitBreaker(self._log, clock, _MEANWHILE[on_outage])
        self._next_try = clock()
        # The last call that failed: its like is to work before the server counts as back.
        self._failed_call: PendingCall | None = None
        # Whether all nodes have been considered since the server was away: not by a request.
        self._is_known = True
        self._forks = 0
        self._leaving: deque[SharedNode] = deque()
        super().__init__(clock)

    def _after_fork(self) -> None:
        super()._after_fork()
        # What the parent has used and reserved is for the parent to tell, and to give back.
        self._forks += 1
        self._leaving.clear()
        now = self.clock()
        for node_id, node in self._nodes.items():
            node.leave_to_parent()
            self._reconsider(node_id, now)

    @property
    def connected(self) -> bool:
        """True if the server can be reached, as far as is known."""
        return self._circuit.up

    @property
    def events(self) -> Mapping[str, int]:
        """Count of each kind of `SharedEvent`."""
        return MappingProxyType(self._log.counts)

    def remove(self, node_id: Hashable) -> None:
        """Forget a node and its limits in this process. Unknown ids are no error."""
        node_id = id_of(node_id)
        with self._lock:
            node = self._nodes.get(node_id)
            super().remove(node_id)
            if node is not None:
                node.give_back_slices(math.inf)
                self._leaving.append(node)
        self._wake()

    def record_usage(self, node_id: Hashable, amounts: Amounts) -> bool:
        """Charge what a request has used, as `loadwise.QuotaTracker.record_usage` does.

        It counts here at once, and elsewhere as soon as the background has told the server.
        """
        is_limited = super().record_usage(node_id, amounts)
        if is_limited:
            self._wake()
        return is_limited

    def _cooldown_changed(self, node_id: Hashable, *, lift: bool) -> None:
        # That one is lifted is told though there was none here: others may know more.
        node = self._nodes.get(node_id)
        if node is not None:
            node.account.tell(lift=lift, until=self._cooldowns.get(node_id))
            self._wake()

    def is_available(self, node_id: Hashable) -> bool:
        """Tell whether the node is not on cooldown and has room, as far as is known here."""
        self._keep_current(node_id)
        return super().is_available(node_id)

    def available_at(self, node_id: Hashable, amounts: Amounts | None = None) -> float:
        """Return when such a request will fit, as far as is known here; inf if never.

        Raises:
            ValueError: A dimension is unknown, or an amount negative, NaN or infinite.
        """
        self._keep_current(node_id)
        return super().available_at(node_id, amounts)

    def remaining(self, node_id: Hashable, dimension: str) -> float:
        """Return the units left, as far as is known here; inf for a node without a quota.

        Raises:
            ValueError: The node has no such dimension.
        """
        self._keep_current(node_id)
        return super().remaining(node_id, dimension)

    def remaining_by_dimension(self, node_id: Hashable) -> dict[str, float]:
        """Return the units left in every dimension, as far as is known here."""
        self._keep_current(node_id)
        return super().remaining_by_dimension(node_id)

    def _keep_current(self, node_id: Hashable) -> None:
        """Have what is shown of all nodes kept up to date from now on, and of one at once."""

    def _set_limits(self, node_id: Hashable, config: QuotaConfig) -> None:
        if not isinstance(node_id, str):
            raise TypeError(f"the id is {node_id!r}; in a shared quota it must be a str")
        if isinstance(config, QuotaConfig):
            check_shareable(node_id, config)
        super()._set_limits(node_id, config)

    def _new_node(self, node_id: Hashable, config: QuotaConfig) -> SharedNode:
        key = quota_key(self._prefix, node_id)
        return SharedNode(node_id, config, key, self._share)

    def _begin(
        self, node_id: Hashable, amounts: Amounts | None
    ) -> PendingCall | SharedReservation | None:
        """Answer a request for quota, or return what the server must be asked."""
        named = NOTHING if amounts is None else amounts
        node_id = id_of(node_id)
        with self._lock:
            node = self._nodes.get(node_id)
            if named:
                named = self._checked(named, node, node_id)
            now = self.clock()
            if self._cooldowns.get(node_id, now) > now:
                return None
            if node is None:
                return SharedReservation(self._settle, self._forks, node_id, NOTHING, {})
            slices = node.slices
            if slices is None and self._circuit.up:
                return PendingCall(node, node.ask(named, now), named)
            if slices is None:
                return self._decide_alone(node, named)
            if slices.begun or self._is_away(node):
                return self._draw(node, slices, named, now)
            slices.miss(named)
            return PendingCall(node, node.take(slices, now), named)

    def _finish(self, pending: PendingCall) -> SharedReservation | None:
        """Answer a request for quota by what the server replied."""
        reply, node = pending.reply, pending.node
        if pending.call.op == "acquire" and reply is not None and reply.status != "foreign":
            if reply.status != "ok":
                return None
            full, parts = pending.call.amounts, pending.granted
            return SharedReservation(self._settle, self._forks, node.id, full, parts)
        with self._lock:
            if self._nodes.get(node.id) is not node:
                return None
            if node.slices is not None:
                return self._draw(node, node.slices, pending.named, self.clock())
            return self._decide_alone(node, pending.named)

    def _decide_alone(self, node: SharedNode, named: Amounts) -> SharedReservation | None:
        """Answer a request by the policy for outages: the server cannot be asked. Lock held."""
        now = self._slide(node)
        refused = self._refuses or self._cooldowns.get(node.id, now) > now
        full = node.full(named)
        parts = None if refused else node.spend(full, named, now)
        self._reconsider(node.id, now)
        if parts is None:
            return None
        return SharedReservation(self._settle, self._forks, node.id, full, parts)

    def _draw(
        self, node: SharedNode, slices: NodeSlices, named: Amounts, now: float
    ) -> SharedReservation | None:
        """Answer a request from what is held. Lock held."""
        answer = None
        if slices.covers(named, now):
            full = node.full(named)
            parts = slices.draw(full, now)
            answer = SharedReservation(self._settle, self._forks, node.id, full, parts)
        elif self._is_away(node):
            return self._decide_alone(node, named)
        else:
            slices.miss(named)
        if not slices.covers(NOTHING, now):
            self._reconsider(node.id, now)
        if slices.is_low(now):
            self._wake()
        return answer

    def _settle(self, reservation: SharedReservation, amounts: Amounts) -> None:
        node_id = reservation.node_id
        with self._lock:
            node = self._nodes.get(node_id)
            if reservation.amounts:
                amounts = self._checked(amounts, node, node_id)
            reservation.end()
            if node is None or reservation.forks != self._forks:
                return
            now = self._slide(node)
            node.settle(reservation, amounts, now)
            self._reconsider(node_id, now)
        self._wake()

    def _due(self, node_id: Hashable, *, last: bool = False) -> Iterator[PendingCall]:
        """Yield the call that is due for a node, if there is one and the server can be asked."""
        with self._lock:
            node = self._nodes.get(node_id) if self._circuit.up else None
            call = None if node is None else node.due(self.clock(), self._idle, last=last)
        if node is not None and call is not None:
            yield PendingCall(node, call, NOTHING)

    def _due_requests(self, *, last: bool = False) -> Iterator[PendingCall]:
        """Yield the calls that are due, each after the one before it is over.

        Args:
            last: Whether there will be no more, so that all that is held is given back.
        """
        yield from self._probe(at_once=last)
        while self._leaving and self._circuit.up:
            node = self._leaving[0]
            with self._lock:
                call = node.due(self.clock(), math.inf, last=True)
            if call is not None:
                yield PendingCall(node, call, NOTHING)
            if self._circuit.up:
                self._leaving.popleft()
        for node_id in list(self._nodes):
            # What the first reply brings may have to be told.
            for _ in range(2):
                yield from self._due(node_id, last=last)

    def _probe(self, *, at_once: bool) -> Iterator[PendingCall]:
        """Yield the call that shows whether the server is back, if it is away and it is time to.

        It does for the very node whose call failed what each call does, and writes as they do: a
        call follows one that was given up. So a server that only answers some is not back.
        """
        if not self._is_known:
            self._is_known = True
            self._reconsider_all()
        failed = self._failed_call
        is_due = at_once or self.clock() >= self._next_try
        if failed is None or self._circuit.up or self._circuit.closed or not is_due:
            return
        with self._lock:
            probe = PendingCall(failed.node, failed.node.tell(self.clock()), NOTHING)
        yield probe
        if probe.reply is not None and self._circuit.restored():
            self._reconsider_all()

    def _received(self, pending: PendingCall, raw: object) -> None:
        """Take in what the server replied."""
        node, call, now = pending.node, pending.call, self.clock()
        try:
            reply = parse_reply(raw, call.amounts)
        except Rejected as error:
            reply = Reply("foreign", str(error))
        pending.reply = reply
        with self._lock:
            node.account.waiting.discard(call.seq)
            node.synced = now
            was_foreign, node.foreign = node.foreign, reply.status == "foreign"
            if node.foreign and not was_foreign:
                self._note("rejected", node, reply.detail)
            if not node.foreign:
                if reply.dropped:
                    self._note("rejected", node, f"{reply.dropped} fields were dropped")
                if call.restates and not reply.known:
                    self._note("resynchronised", node, "what was used is told again")
                pending.granted = node.take_in(call, reply, now)
            if self._nodes.get(node.id) is node:
                if node.account.shows(call):
                    self._show_rest(node, node.account.local(reply.rest), now)
                self._reconsider(node.id, now)

    def _unanswered(self, pending: PendingCall) -> None:
        """Record that a call is over of which it is not known whether the server ran it."""
        with self._lock:
            pending.node.account.give_up(pending.call)

    def _show_rest(self, node: SharedNode, rest: float, now: float) -> None:
        before = self._cooldowns.get(node.id, now)
        if rest <= now < before or (rest > now and abs(rest - before) > _SAME):
            self._cooldowns[node.id] = rest
            self.version += 1

    def _note(self, kind: EventKind, node: SharedNode, detail: str) -> None:
        self._log.defer(kind, f"the quota of {str(node.id)[:100]!r}: {detail}")

    def _reconsider_all(self) -> None:
        """Record that the server went away or came back. O(n)."""
        with self._lock:
            now = self.clock()
            for node_id, node in self._nodes.items():
                node.synced = -math.inf
                self._reconsider(node_id, now)

    def _is_away(self, node: SharedNode) -> bool:
        """Tell whether the server cannot be asked about a node."""
        return node.foreign or not self._circuit.up

    def _free_at(self, node_id: Hashable, amounts: Amounts, now: float) -> float:
        node = self._nodes.get(node_id)
        slices = None if node is None else node.slices
        if slices is not None and slices.covers(amounts, now):
            return max(now, self._cooldowns.get(node_id, now))
        free = super()._free_at(node_id, amounts, now)
        if node is None:
            return free
        if self._is_away(node):
            return max(free, now + self._circuit.wait) if self._refuses else free
        return free if slices is None or not slices.begun else max(free, now + slices.pause)

    def _failed(self, pending: PendingCall, error: BaseException) -> None:
        """Record that a call was not answered."""
        self._failed_call = pending
        self._is_known = False
        if self._circuit.failed(error):
            self._wake()
        self._next_try = self.clock() + self._circuit.wait

    def _pause(self, began: float) -> float:
        """Return the seconds to wait after a round of calls that began then."""
        if not self._circuit.up:
            return max(0.0, self._next_try - self.clock())
        self._idle = max(self._refresh, (self.clock() - began) / _IDLE_SHARE)
        slices = [node.slices for node in list(self._nodes.values())]
        return min(
            [self._idle, *(each.pause for each in slices if each is not None and each.begun)]
        )

    def __repr__(self) -> str:
        state = "connected" if self.connected else "not connected"
        return f"<{type(self).__name__} {self._prefix!r}: {state}>"
