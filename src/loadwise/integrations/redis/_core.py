"""Quotas that processes share, without the I/O, in strict mode: the server is asked each time."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from loadwise.integrations.redis._exchange import TRIES, Exchange, Steps
from loadwise.integrations.redis._limits import check_shareable, full_amounts
from loadwise.integrations.redis._quota_wire import Call, Reply
from loadwise.integrations.redis._reservation import Parts, SharedReservation
from loadwise.integrations.redis._stake import Charge, Stake
from loadwise.quota import QuotaConfig
from loadwise.quota.tracker import _NOTHING, Amounts, _NodeQuota

__all__ = ["Core"]


class Core(Exchange):
    """Quotas that processes share, in strict mode.

    Args: as for `Exchange`.

    Thread-safety: one lock, which is not held while the server is asked.
    """

    def register(self, node_id: Hashable, config: QuotaConfig) -> None:
        """Set a node's limits here. Registering again replaces them and keeps what was used."""
        if not isinstance(node_id, str):
            raise TypeError(f"the id is {node_id!r}; in a shared quota it must be a str")
        if isinstance(config, QuotaConfig):
            check_shareable(node_id, config)
        super().register(node_id, config)
        with self._lock:
            stake, before = Stake(config.dimensions), self._stakes.get(node_id)
            if before is not None:
                stake.inherit(before)
            self._stakes[node_id] = stake
            self._reconsider(node_id, self.clock())

    def remove(self, node_id: Hashable) -> None:
        """Forget a node and its limits here."""
        super().remove(node_id)
        with self._lock:
            stake = self._stakes.pop(node_id, None)
            if stake is not None and stake.pending():
                self._leaving.append((str(node_id), stake))
        self._wake()

    def record_usage(self, node_id: Hashable, amounts: Amounts) -> bool:
        """Charge what a request has used; the server will be told."""
        with self._lock:
            node, stake = self._nodes.get(node_id), self._stakes.get(node_id)
            if node is None or stake is None:
                return False
            amounts = self._checked(amounts, node, node_id)
            now = self._slide(node)
            for name in amounts.keys() & node.windows.keys():
                self._charge(node_id, stake, node, name, amounts[name])
            self._reconsider(node_id, now)
        self._wake()
        return True

    def mark_exhausted(self, node_id: Hashable, seconds: float) -> None:
        """Have a node sit out; if it is registered, the server will be told."""
        super().mark_exhausted(node_id, seconds)
        with self._lock:
            stake = self._stakes.get(node_id)
            if stake is None:
                return
            stake.rest = self._rests.get(node_id)
        self._wake()

    def lift(self, node_id: Hashable) -> bool:
        """End the pause of a node; if it is registered, the server will be told."""
        with self._lock:
            sat_out = super().lift(node_id)
            stake = self._stakes.get(node_id)
            if stake is None:
                return sat_out
            # Though it sat out for nobody here: others may know more.
            stake.rest, stake.lift = None, True
        self._wake()
        return sat_out

    def settle(self, reservation: SharedReservation, amounts: Amounts) -> None:
        """Replace what was reserved by the true amounts."""
        node_id = reservation.node_id
        with self._lock:
            node, stake = self._nodes.get(node_id), self._stakes.get(node_id)
            if reservation.amounts:
                amounts = self._checked(amounts, node, node_id)
            reservation.end()
            if node is None or stake is None or reservation.generation != self.generation:
                return
            now = self._slide(node)
            for name, amount in amounts.items():
                reserved = reservation.amounts.get(name)
                if reserved is None or name not in node.windows:
                    continue
                if amount > reserved:
                    self._charge(node_id, stake, node, name, amount - reserved)
                else:
                    parts = reservation.charges.get(name, ())
                    self._return_parts(stake, node, parts, reserved - amount)
            self._reconsider(node_id, now)
        self._wake()

    def greet(self, node_id: str) -> Steps[None]:
        """Find out what the server counts of a node that was registered."""
        stake = self._stakes.get(node_id)
        if stake is not None and self.link.up:
            yield from self._sync(node_id, stake)

    def acquire(
        self, node_id: Hashable, amounts: Amounts | None
    ) -> Steps[SharedReservation | None]:
        """Reserve quota for one request, in all dimensions or in none."""
        for _ in range(TRIES):
            with self._lock:
                begun = self._begin(node_id, amounts)
            if not isinstance(begun, _Request):
                return begun
            reply = yield from self._ask(begun.stake, begun.call)
            if reply is None or reply.status != "lost":
                with self._lock:
                    return self._outcome(begun, reply)
        return None

    def _begin(
        self, node_id: Hashable, amounts: Amounts | None
    ) -> _Request | SharedReservation | None:
        """Answer a request, or say what the server must be asked. Lock held."""
        named = _NOTHING if amounts is None else amounts
        node, stake = self._nodes.get(node_id), self._stakes.get(node_id)
        named = self._checked(named, node, node_id)
        now = self.clock()
        if self._rests.get(node_id, now) > now:
            return None
        if node is None:
            return SharedReservation(self, node_id, {}, {})
        if stake is None:  # it is being registered this very moment
            return None
        if not self.link.up:
            return self._without_server(node_id, stake, node, named)
        call = self._plan(str(node_id), stake, "acquire", named)
        return _Request(stake, node, named, call)

    def _outcome(self, request: _Request, reply: Reply | None) -> SharedReservation | None:
        """Return what became of a request. Lock held."""
        node_id, stake = request.call.node_id, request.stake
        if reply is None or reply.status == "foreign":
            return self._without_server(node_id, stake, request.node, request.amounts)
        if reply.status == "full":
            return None
        full = full_amounts(request.node, request.amounts)
        return SharedReservation(self, node_id, full, self._granted(stake, reply))

    def _without_server(
        self, node_id: Hashable, stake: Stake, node: _NodeQuota, amounts: Amounts
    ) -> SharedReservation | None:
        """Answer a request by the policy for outages. Lock held."""
        charges = self._spend_alone(node_id, stake, node, amounts)
        if charges is None:
            return None
        return SharedReservation(self, node_id, full_amounts(node, amounts), charges)

    def _granted(self, stake: Stake, reply: Reply) -> dict[str, Parts]:
        """Take note of what the server granted. Lock held."""
        now = self.clock()
        charges: dict[str, Parts] = {}
        for name, (amount, bucket_id) in reply.granted.items():
            told = amount if reply.epoch == stake.epoch else 0
            use = stake.use(name, amount, told, now, now)
            charges[name] = [(Charge(use, amount, bucket_id, reply.epoch), amount)]
        return charges

    def _charge(
        self, _node_id: Hashable, stake: Stake, node: _NodeQuota, name: str, amount: float
    ) -> None:
        """Charge what was used without asking. Lock held."""
        self._spend(stake, node, name, amount, self.clock())

    def _return_parts(self, stake: Stake, node: _NodeQuota, parts: Parts, amount: float) -> None:
        for charge, part in reversed(parts):
            share = min(part, amount)
            if share > 0:
                self._refund(stake, node, charge, share)
                amount -= share


class _Request(NamedTuple):
    """A request for quota that the server is to decide."""

    stake: Stake
    node: _NodeQuota
    amounts: Amounts
    call: Call
