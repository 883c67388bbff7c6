"""One node's quota in one process: its account with the server, and the slices it holds."""

from __future__ import annotations

import math
from collections.abc import Iterable

from loadwise.integrations.redis._account import Account
from loadwise.integrations.redis._quota_protocol import QuotaCall, Reply
from loadwise.integrations.redis._reservation import SharedReservation
from loadwise.integrations.redis._slices import NodeSlices, Part, Parts, Slice
from loadwise.quota.counts import NOTHING, NodeQuota, need
from loadwise.quota.protocol import Amounts

__all__ = ["PendingCall", "SharedNode"]


class SharedNode:
    """One node's quota in one process. Not thread-safe: the counts hold a lock.

    Args:
        quota: The windows that show it.
        share: Of each limit, how much to hold ready; ``None`` in strict mode.

    Attributes:
        account: What this process has used.
        slices: What it holds; ``None`` in strict mode.
        synced: When the server last answered, by the local clock.
        foreign: Whether what the server holds is not to be used.
    """

    __slots__ = ("account", "foreign", "quota", "slices", "synced")

    def __init__(self, quota: NodeQuota, share: float | None) -> None:
        self.synced = -math.inf
        self.foreign = False
        self.slices: NodeSlices | None = None
        self.account = Account(quota.windows)
        self.configure(quota, share)

    def configure(self, quota: NodeQuota, share: float | None) -> None:
        """Go on under other limits."""
        self.give_back_slices(math.inf)
        self.quota = quota
        self.account.configure(quota.windows)
        if share is not None:
            dimensions = [window.dimension for window in quota.windows.values()]
            self.slices = NodeSlices(dimensions, share)

    def leave_to_parent(self) -> None:
        """Begin afresh in the child of a fork: what was used and held is the parent's."""
        self.account.leave_to_parent()
        if self.slices is not None:
            self.slices.drop()

    def charge(self, name: str, amount: float, now: float) -> None:
        """Charge what was used without asking, first to what is held."""
        if self.slices is not None:
            amount -= sum([part for _, part in self.slices.pools[name].draw(amount, now)])
        if amount > 0:
            self.account.charge(name, amount, now)

    def spend(self, full: Amounts, named: Amounts, now: float) -> Parts | None:
        """Charge a request without asking the server, if it fits by what is known."""
        for window in self.quota.windows.values():
            if not window.fits(need(window.dimension, named)):
                return None
        return {name: [(self.account.charge(name, each, now), each)] for name, each in full.items()}

    def settle(self, reservation: SharedReservation, amounts: Amounts, now: float) -> None:
        """Charge what a request used above what was reserved, or give back what it did not use."""
        for name, amount in amounts.items():
            reserved = reservation.amounts.get(name)
            if reserved is None or name not in self.quota.windows:
                continue
            if amount > reserved:
                self.charge(name, amount - reserved, now)
            else:
                self.give_back(name, reservation.parts.get(name, ()), reserved - amount, now)

    def give_back(self, name: str, parts: Iterable[Part], amount: float, now: float) -> None:
        """Give units back where they came from, those that came last first."""
        for source, part in reversed([*parts]):
            share = min(part, amount)
            if share <= 0:
                return
            amount -= share
            if not isinstance(source, Slice):
                self.account.add(name, source, -share)
            elif now < source.expires:
                source.left += share
            else:
                self.account.add(name, source.bucket, -share)

    def give_back_slices(self, end: float) -> None:
        """Give back what is held and may be used no longer than ``end``."""
        if self.slices is not None:
            for name, part in self.slices.take_out(end):
                self.give_back(name, [part], part[1], math.inf)

    def take(self, slices: NodeSlices, now: float) -> QuotaCall:
        """Return a call that takes as much as is to be held."""
        return self.account.call("take", now, slices.ask(now), NOTHING, slices.life)

    def due(self, now: float, idle: float, *, last: bool) -> QuotaCall | None:
        """Return the call to the server that is due.

        Args:
            now: The time.
            idle: Seconds after which what is shown is brought up to date.
            last: Whether there will be no more, so that all that is held is given back.
        """
        self.give_back_slices(math.inf if last else now)
        if self.slices is not None and not last and self.slices.is_low(now):
            return self.take(self.slices, now)
        if self.account.pending() or (not last and now - self.synced >= idle):
            return self.account.call("sync", now, NOTHING, NOTHING)
        return None

    def take_in(self, call: QuotaCall, reply: Reply, now: float) -> Parts:
        """Record what the server has counted, hold what was taken; return what was granted."""
        granted = self.account.take_in(call, reply, now)
        if self.slices is not None and call.op == "take":
            for name, part in self.slices.stock(granted, call, now):
                self.give_back(name, [part], part[1], math.inf)
        return granted


class PendingCall:
    """One call to the server, and what came of it.

    Attributes:
        named: The amounts that a request for quota named.
        reply: What the server replied; ``None`` until then.
        granted: What it granted.
    """

    __slots__ = ("call", "granted", "named", "node", "node_id", "reply")

    def __init__(self, node_id: str, node: SharedNode, call: QuotaCall, named: Amounts) -> None:
        self.node_id = node_id
        self.node = node
        self.call = call
        self.named = named
        self.reply: Reply | None = None
        self.granted: Parts = {}
