"""Shows what the server counts: a quota tracker whose windows are filled from its answers.

Between answers it also shows what this process has done since. So every question is answered on
the spot, and while the server is away these windows are what quota is acquired from.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Literal

from loadwise.clock import Clock
from loadwise.integrations.redis._connection import CircuitBreaker
from loadwise.integrations.redis._limits import full_amounts, needs
from loadwise.integrations.redis._quota_wire import Call, Reply, SharedBucket
from loadwise.integrations.redis._reservation import Parts
from loadwise.integrations.redis._stake import Charge, Stake
from loadwise.quota import QuotaTracker
from loadwise.quota.tracker import Amounts, _NodeQuota

__all__ = ["Mirror", "OutagePolicy"]

OutagePolicy = Literal["local", "refuse"]


class Mirror(QuotaTracker):
    """A quota tracker that shows what the server counts.

    Args:
        clock: Source of monotonic seconds, to keep local times by.
        link: Whether the server can be reached.
        policy: What to do while it cannot.

    Methods that begin with an underscore want the lock to be held.
    """

    version: int

    def __init__(self, clock: Clock, link: CircuitBreaker, policy: OutagePolicy) -> None:
        self.link = link
        self.generation = 0
        self._policy = policy
        self._stakes: dict[Hashable, Stake] = {}
        super().__init__(clock)

    def _after_fork(self) -> None:
        super()._after_fork()
        # What the parent has used and reserved is for the parent to tell, and to give back.
        self.generation += 1
        for stake in self._stakes.values():
            stake.forget()

    def reconsider_all(self) -> None:
        """Take note that the server went away or came back. O(n)."""
        with self._lock:
            now = self.clock()
            for node_id, stake in self._stakes.items():
                stake.synced = -math.inf
                self._reconsider(node_id, now)

    def _show(self, node_id: Hashable, stake: Stake, call: Call, reply: Reply) -> None:
        """Show an answer, unless that to a later call is shown."""
        node = self._nodes.get(node_id)
        if node is None or self._stakes.get(node_id) is not stake or call.number < stake.order:
            return
        stake.order = call.number
        now = self.clock()
        for name, buckets in reply.buckets.items():
            if name in node.windows:
                node.windows[name].buckets = buckets
        for use, amount in stake.untold():
            if use.name in node.windows:
                node.windows[use.name].charge(amount, now)
        for window in node.windows.values():
            window.recount()
        if not stake.tells_of_rest():
            # Else there is news that the server had not heard when it answered.
            self._show_rest(node_id, stake, reply, now)
        self._slide(node)
        self._reconsider(node_id, now)

    def _show_rest(self, node_id: Hashable, stake: Stake, reply: Reply, now: float) -> None:
        if reply.lifted and reply.lifted != stake.lifted:
            stake.lifted = reply.lifted
            if self._rests.pop(node_id, None) is not None:
                self.version += 1
        if reply.rest > now:
            self._rests[node_id] = max(reply.rest, self._rests.get(node_id, now))

    def _spend(
        self, stake: Stake, node: _NodeQuota, name: str, amount: float, now: float
    ) -> Charge:
        """Charge use without asking the server; it will be told."""
        shown = node.windows[name].charge(amount, now)
        return Charge(stake.use(name, amount, 0, now, now), amount, shown=shown)

    def _spend_alone(
        self, node_id: Hashable, stake: Stake, node: _NodeQuota, amounts: Amounts
    ) -> dict[str, Parts] | None:
        """Charge a request if it fits by what is shown, because the server cannot be asked."""
        now = self._slide(node)
        if self._policy == "refuse" or self._rests.get(node_id, now) > now:
            return None
        windows = node.windows.values()
        if not all(window.fits(needs(window.dimension, amounts)) for window in windows):
            return None
        charges: dict[str, Parts] = {
            name: [(self._spend(stake, node, name, amount, now), amount)]
            for name, amount in full_amounts(node, amounts).items()
        }
        self._reconsider(node_id, now)
        return charges

    def _refund(self, stake: Stake, node: _NodeQuota, charge: Charge, amount: float) -> None:
        """Give units back; the server will be told."""
        current = charge.id is not None and charge.epoch == stake.epoch
        stake.take_back(charge, amount)
        window = node.windows.get(charge.name)
        if window is None:
            return
        for bucket in window.buckets:
            if bucket is charge.shown or (
                current and isinstance(bucket, SharedBucket) and bucket.id == charge.id
            ):
                bucket.amount = max(0, bucket.amount - amount)
        window.recount()

    def _away(self, stake: Stake) -> bool:
        """Whether the server cannot be asked about a node."""
        return stake.foreign or not self.link.up

    def _free_at(self, node_id: Hashable, amounts: Amounts, now: float) -> float:
        free = super()._free_at(node_id, amounts, now)
        stake = self._stakes.get(node_id)
        if stake is not None and self._policy == "refuse" and self._away(stake):
            return max(free, now + self.link.wait)
        return free

    def _reconsider(self, node_id: Hashable, now: float) -> None:
        if self._rests.get(node_id, now) <= now:
            self._rests.pop(node_id, None)
        until = self._free_at(node_id, {}, now)
        before = self._blocked.get(node_id)
        if until > now:
            self._blocked[node_id] = until
            if before != until:
                self.version += 1
        elif before is not None:
            del self._blocked[node_id]
            self.version += 1
