"""What a process holds of leased quotas, and how that answers questions."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable

from loadwise.clock import Clock
from loadwise.integrations.redis._connection import CircuitBreaker
from loadwise.integrations.redis._core import Core
from loadwise.integrations.redis._mirror import OutagePolicy
from loadwise.integrations.redis._reservation import Parts
from loadwise.integrations.redis._stake import Charge, Stake
from loadwise.integrations.redis._supply import Purse, life_of
from loadwise.quota import QuotaConfig
from loadwise.quota.tracker import Amounts, _NodeQuota

__all__ = ["Holdings"]


class Holdings(Core):
    """Quotas of which this process holds slices.

    Args: as for `Core`, and

        share: Of a limit, how much to hold ready before the demand is known.
    """

    def __init__(
        self,
        clock: Clock,
        link: CircuitBreaker,
        policy: OutagePolicy,
        refresh: float,
        wake: Callable[[], None],
        share: float,
    ) -> None:
        self._share = share
        self._purses: dict[Hashable, Purse] = {}
        super().__init__(clock, link, policy, refresh, wake)

    def _after_fork(self) -> None:
        super()._after_fork()
        for purse in self._purses.values():
            purse.empty()

    def register(self, node_id: Hashable, config: QuotaConfig) -> None:
        """Set a node's limits here."""
        super().register(node_id, config)
        with self._lock:
            self._hand_in(node_id)
            self._purses[node_id] = Purse(self._stakes[node_id].dimensions, self._share)

    def remove(self, node_id: Hashable) -> None:
        """Forget a node and its limits here."""
        with self._lock:
            self._hand_in(node_id)
        super().remove(node_id)

    def remaining(self, node_id: Hashable, dimension: str) -> float:
        """Return the units left: those held, and those that the server had left."""
        left = super().remaining(node_id, dimension)
        return left + self._held(node_id).get(dimension, 0)

    def remaining_by_dimension(self, node_id: Hashable) -> dict[str, float]:
        """Return the units left in every dimension."""
        left = super().remaining_by_dimension(node_id)
        held = self._held(node_id)
        return {name: amount + held.get(name, 0) for name, amount in left.items()}

    def _return_stale(
        self, node_id: Hashable, stake: Stake, purse: Purse, end: float, only: str | None = None
    ) -> None:
        """Give back what may be used no longer than ``end``. Lock held."""
        node = self._nodes.get(node_id)
        for name, supply in purse.supplies.items():
            if node is None or (only is not None and name != only):
                continue
            for charge, left in supply.stale(end):
                self._refund(stake, node, charge, left)

    def _hand_in(self, node_id: Hashable) -> None:
        """Give back all that is held of a node. Lock held."""
        purse, stake = self._purses.pop(node_id, None), self._stakes.get(node_id)
        if purse is not None and stake is not None:
            self._return_stale(node_id, stake, purse, math.inf)

    def _held(self, node_id: Hashable) -> dict[str, float]:
        with self._lock:
            purse, now = self._purses.get(node_id), self.clock()
            if purse is None:
                return {}
            return {name: supply.left(now) for name, supply in purse.supplies.items()}

    def _lease(self, stake: Stake) -> float:
        return life_of(stake.dimensions.values())

    def _charge(
        self, node_id: Hashable, stake: Stake, node: _NodeQuota, name: str, amount: float
    ) -> None:
        purse = self._purses.get(node_id)
        if purse is not None:
            parts: Parts = list(purse.supplies[name].draw(amount, self.clock()))
            amount -= sum(part for _, part in parts)
        if amount > 0:
            super()._charge(node_id, stake, node, name, amount)

    def _refund(self, stake: Stake, node: _NodeQuota, charge: Charge, amount: float) -> None:
        if self.clock() < charge.expires:
            charge.left += amount
        else:
            super()._refund(stake, node, charge, amount)

    def _free_at(self, node_id: Hashable, amounts: Amounts, now: float) -> float:
        free = super()._free_at(node_id, amounts, now)
        purse, stake = self._purses.get(node_id), self._stakes.get(node_id)
        if purse is None or stake is None:
            return free
        if purse.covers(amounts, now):
            return max(now, self._rests.get(node_id, now))
        return free if self._away(stake) else max(free, now + purse.pause)
