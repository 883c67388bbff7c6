"""Protocols of quotas: what a balancer asks of whoever keeps them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from loadwise.clock import Clock
    from loadwise.quota.config import QuotaConfig

__all__ = ["Amounts", "CorrectableQuota", "Left", "LiftableQuota", "QuotaSource", "ReservedQuota"]

Amounts = Mapping[str, float]
"""Units, by dimension."""


class Left(NamedTuple):
    """Rest of a limit, as an upstream tells it.

    Attributes:
        amount: Units left.
        limit: Units that it allows in all; ``None`` if it does not say.
        reset: Seconds until all of them are back; ``None`` if it does not say.
    """

    amount: float
    limit: float | None = None
    reset: float | None = None


class ReservedQuota(Protocol):
    """Quota set aside for one request, as `loadwise.Reservation` is."""

    def settle(self, amounts: Amounts) -> None:
        """Replace the reserved amounts by the true ones, for the dimensions named."""
        ...

    def cancel(self) -> None:
        """Give everything back: the request was never sent."""
        ...


class QuotaSource(Protocol):
    """Quotas of nodes, by id: a `loadwise.QuotaTracker`, or one that shares its counts.

    A pick calls it, so its methods must be quick. Those that an implementation answers from
    elsewhere say so.
    """

    @property
    def version(self) -> int:
        """Number that changes whenever another set of nodes is unavailable."""
        ...

    @property
    def clock(self) -> Clock:
        """The clock that times are told by."""
        ...

    def register(self, node_id: Hashable, config: QuotaConfig) -> None:
        """Set a node's limits."""
        ...

    def remove(self, node_id: Hashable) -> None:
        """Forget a node and its limits."""
        ...

    def record_usage(self, node_id: Hashable, amounts: Amounts) -> bool:
        """Charge what a request has used; tell whether the node has a registered quota."""
        ...

    def try_acquire(
        self, node_id: Hashable, amounts: Amounts | None = None
    ) -> ReservedQuota | None:
        """Reserve quota for one request, in all dimensions or in none."""
        ...

    def mark_exhausted(self, node_id: Hashable, seconds: float) -> None:
        """Put a node on cooldown; a longer one under way is kept, and 0 seconds end it."""
        ...

    def is_available(self, node_id: Hashable) -> bool:
        """Tell whether the node is not on cooldown and has room for a request at default costs."""
        ...

    def remaining(self, node_id: Hashable, dimension: str) -> float:
        """Return the units left in a dimension; inf for a node without a quota."""
        ...

    def remaining_by_dimension(self, node_id: Hashable) -> dict[str, float]:
        """Return the units left in every dimension; empty for a node without a quota."""
        ...

    def cooldown_until(self, node_id: Hashable) -> float | None:
        """Return when the node's cooldown ends; ``None`` if it is on none."""
        ...

    def available_at(self, node_id: Hashable, amounts: Amounts | None = None) -> float:
        """Return when such a request will fit; inf if never."""
        ...

    def unavailable(self) -> list[Hashable]:
        """Return the ids of the nodes that are not available now."""
        ...

    def next_change(self) -> float:
        """Return when `unavailable` changes by the passing of time alone; inf if never."""
        ...


@runtime_checkable
class LiftableQuota(Protocol):
    """Source of quotas whose cooldowns `loadwise.Balancer.lift` can end."""

    def lift(self, node_id: Hashable) -> bool:
        """End the cooldown of a node, and nothing else; return whether it was on one."""
        ...


@runtime_checkable
class CorrectableQuota(Protocol):
    """Reservation that `loadwise.Lease.correct` can correct."""

    def correct(self, left: Mapping[str, Left]) -> None:
        """Correct what has been counted by what the upstream says is left."""
        ...
