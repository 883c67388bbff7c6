"""One node's quota in one process, what requests have reserved of it, and calls about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress

from loadwise.errors import LoadwiseError
from loadwise.integrations.redis._account import Account
from loadwise.integrations.redis._quota_protocol import QuotaCall, Reply
from loadwise.integrations.redis._slices import NodeSlices, Part, Parts, Slice
from loadwise.quota import QuotaConfig
from loadwise.quota.counts import NOTHING, NodeQuota, need
from loadwise.quota.protocol import Amounts

__all__ = ["PendingCall", "SharedNode", "SharedReservation"]


class SharedNode(NodeQuota):
    """One node's quota in one process. Not thread-safe: the counts hold a lock.

    Args:
        node_id: The node's id.
        config: Its limits.
        key: Where the server counts what is used of them.
        share: Of each limit, how much to hold ready; ``None`` in strict mode.

    Attributes:
        account: What this process has used.
        slices: What it holds; ``None`` in strict mode.
        synced: When the server last answered, by the local clock.
        foreign: Whether what the server holds is not to be used.
    """

    __slots__ = ("_share", "account", "foreign", "key", "slices", "synced")

    def __init__(
        self, node_id: Hashable, config: QuotaConfig, key: bytes, share: float | None
    ) -> None:
        self.key = key
        self.synced = -math.inf
        self.foreign = False
        self.account = Account()
        self.slices: NodeSlices | None = None
        self._share = share
        super().__init__(node_id, config)

    def configure(self, config: QuotaConfig) -> None:
        """Go on under these limits; what is held is given back."""
        self.give_back_slices(math.inf)
        super().configure(config)
        self.account.configure(self.windows)
        if self._share is not None:
            self.slices = NodeSlices(config.dimensions, self._share)

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

    def left(self, name: str, now: float) -> float:
        """Return the units left in a dimension, with those that are held."""
        left = super().left(name, now)
        return left if self.slices is None else left + self.slices.pools[name].left(now)

    def full(self, named: Amounts) -> dict[str, float]:
        """Return what a request is charged in every dimension, default costs included."""
        return {
            name: named.get(name, window.dimension.default_cost)
            for name, window in self.windows.items()
        }

    def spend(self, full: Amounts, named: Amounts, now: float) -> Parts | None:
        """Charge a request without asking the server, if it fits by what is known."""
        for window in self.windows.values():
            if not window.fits(need(window.dimension, named)):
                return None
        return {name: [(self.account.charge(name, each, now), each)] for name, each in full.items()}

    def settle(self, reservation: SharedReservation, amounts: Amounts, now: float) -> None:
        """Charge what a request used above what was reserved, or give back what it did not use."""
        for name, amount in amounts.items():
            reserved = reservation.amounts.get(name)
            if reserved is None or name not in self.windows:
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

    def ask(self, named: Amounts, now: float) -> QuotaCall:
        """Return a call that asks for what a request is charged."""
        needs = {name: need(each.dimension, named) for name, each in self.windows.items()}
        return self.account.call("acquire", now, self.full(named), needs)

    def tell(self, now: float) -> QuotaCall:
        """Return a call that only tells what was used, and asks what others have used."""
        return self.account.call("sync", now, dict.fromkeys(self.windows, 0), NOTHING)

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
            return self.tell(now)
        return None

    def take_in(self, call: QuotaCall, reply: Reply, now: float) -> Parts:
        """Record what the server has counted, hold what was taken; return what was granted."""
        granted = self.account.take_in(call, reply, now)
        if self.slices is not None and call.op == "take":
            for name, part in self.slices.stock(granted, call, now):
                self.give_back(name, [part], part[1], math.inf)
        return granted


class SharedReservation:
    """Quota set aside for one request, as `loadwise.Reservation` is.

    Neither `settle` nor `cancel` waits for the server: here they show at once, and they count as
    soon as the background has told the server.

    Attributes:
        node_id: The node it was made for.
        amounts: What was reserved, by dimension, default costs included.

    Thread-safety: each ends once, whoever is first. In the child of a fork, ending the parent's
    is left to the parent.
    """

    __slots__ = ("_open", "_settle", "amounts", "forks", "node_id", "parts")

    def __init__(
        self,
        settle: Callable[[SharedReservation, Amounts], None],
        forks: int,
        node_id: Hashable,
        amounts: Amounts,
        parts: Parts,
    ) -> None:
        self._settle = settle
        self._open = [True]
        self.forks = forks
        self.node_id = node_id
        self.amounts = amounts
        self.parts = parts

    def settle(self, amounts: Amounts) -> None:
        """Replace the reserved amounts by the true ones, for the dimensions named.

        What was reserved too much is free again; what was used beyond the reservation is charged,
        even above the limit, because it has been used.

        Args:
            amounts: The true amounts, by dimension.

        Raises:
            LoadwiseError: The reservation has already been settled or cancelled.
            ValueError: A dimension is unknown, or an amount negative, NaN or infinite.
        """
        self._settle(self, amounts)

    def cancel(self) -> None:
        """Give everything back: the request was never sent. Does nothing once it has ended."""
        with suppress(LoadwiseError):
            self.settle(dict.fromkeys(self.amounts, 0))

    def end(self) -> None:
        """Record that it has been settled."""
        try:
            self._open.pop()
        except IndexError:
            raise LoadwiseError(
                f"the reservation on node {self.node_id!r} has already been settled or cancelled"
            ) from None


class PendingCall:
    """One call to the server, and what came of it.

    Attributes:
        named: The amounts that a request for quota named.
        reply: What the server replied; ``None`` until then.
        granted: What it granted.
    """

    __slots__ = ("call", "granted", "named", "node", "reply")

    def __init__(self, node: SharedNode, call: QuotaCall, named: Amounts) -> None:
        self.node = node
        self.call = call
        self.named = named
        self.reply: Reply | None = None
        self.granted: Parts = {}
