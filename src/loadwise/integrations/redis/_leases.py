"""Leased mode: slices of the quota are taken in the background, and picks use those.

A slice is charged on the server when it is taken, and counted there as if it were used at the
very end of its life. So whenever its units are really used, the server remembers them for a whole
window after: no stretch of ``window`` seconds holds more than the limit, in all processes together,
just as in strict mode. The price is that units come back up to one life of a slice later, and that
what lies unused in one process is, for so long, of no use to the others.

How much a process holds ready follows its demand: twice as much when more than half was used
before it was renewed, half as much when nothing was. What was not used is given back.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

from loadwise.integrations.redis._exchange import Steps
from loadwise.integrations.redis._holdings import Holdings
from loadwise.integrations.redis._limits import full_amounts, needs
from loadwise.integrations.redis._quota_wire import Call, Reply
from loadwise.integrations.redis._reservation import SharedReservation
from loadwise.integrations.redis._stake import Charge, Stake
from loadwise.integrations.redis._supply import Purse
from loadwise.quota.tracker import _NOTHING, Amounts

__all__ = ["LeasedCore"]


class LeasedCore(Holdings):
    """Quotas that processes share, in leased mode.

    Args: as for `Holdings`.
    """

    def greet(self, node_id: str) -> Steps[None]:
        """Take the first slice of a node that was registered."""
        stake, purse = self._stakes.get(node_id), self._purses.get(node_id)
        if stake is not None and purse is not None and self.link.up:
            yield from self._take(node_id, stake, purse)

    def acquire(
        self, node_id: Hashable, amounts: Amounts | None
    ) -> Steps[SharedReservation | None]:
        """Reserve quota for one request from what is held. Asks nothing of the server."""
        yield from ()
        with self._lock:
            named = _NOTHING if amounts is None else amounts
            node, stake = self._nodes.get(node_id), self._stakes.get(node_id)
            named = self._checked(named, node, node_id)
            purse, now = self._purses.get(node_id), self.clock()
            if self._rests.get(node_id, now) > now:
                return None
            if node is None:
                return SharedReservation(self, node_id, {}, {})
            if stake is None or purse is None:  # it is being registered this very moment
                return None
            answer = None
            if purse.covers(named, now):
                full = full_amounts(node, named)
                charges = {
                    name: list(supply.draw(full[name], now))
                    for name, supply in purse.supplies.items()
                }
                answer = SharedReservation(self, node_id, full, charges)
            elif self._away(stake):
                return self._without_server(node_id, stake, node, named)
            else:
                for supply in purse.supplies.values():
                    supply.short = max(supply.short, needs(supply.dimension, named))
            if not purse.covers({}, now):
                self._reconsider(node_id, now)
            is_low = purse.is_low(now)
        if is_low:
            self._wake()
        return answer

    def chores(self, *, last: bool = False) -> Steps[float]:
        """Renew what is held, give back what has grown old, and what `Core` does."""
        pause = self._refresh
        for node_id, purse in list(self._purses.items()):
            stake = self._stakes.get(node_id)
            if stake is None:
                continue
            with self._lock:
                now = self.clock()
                self._return_stale(node_id, stake, purse, math.inf if last else now)
                is_low = purse.is_low(now) and not last
            if is_low and not (yield from self._take(str(node_id), stake, purse)):
                return self.link.wait
            pause = min(pause, purse.pause)
        return min(pause, (yield from super().chores(last=last)))

    def _take(self, node_id: str, stake: Stake, purse: Purse) -> Steps[bool]:
        """Ask for as much as is wanted; tell whether the server answered."""
        with self._lock:
            now = self.clock()
            wanted = {name: supply.ask(now, purse.life) for name, supply in purse.supplies.items()}
        call, reply = yield from self._insist(node_id, stake, "take", wanted)
        if reply is None:
            return False
        if reply.status != "ok":
            return True
        with self._lock:
            self._stock(stake, purse, call, reply)
            now = self.clock()
            enough = all(
                reply.granted.get(name, (0, 0))[0] >= amount for name, amount in wanted.items()
            )
            purse.ask_at = now if enough else now + purse.pause
            self._reconsider(node_id, now)
        return True

    def _stock(self, stake: Stake, purse: Purse, call: Call, reply: Reply) -> None:
        """Put what was granted to what is held. Lock held."""
        now, expires = self.clock(), call.sent + purse.life
        for name, (amount, bucket_id) in reply.granted.items():
            told = amount if reply.epoch == stake.epoch else 0
            use = stake.use(name, amount, told, now, expires)
            charge = Charge(use, amount, bucket_id, reply.epoch)
            charge.left, charge.expires = amount, expires
            self._return_stale(call.node_id, stake, purse, now + purse.life / 2, name)
            purse.supplies[name].slices.append(charge)
