"""Waiter: one request that waits for a node, and what time may mend."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

from loadwise.balancer.bells import Bell
from loadwise.balancer.request import Request
from loadwise.errors import NoNodeAvailable

__all__ = ["Held", "Waiter", "comes_with_time", "turned_away"]

N = TypeVar("N")
H = TypeVar("H", bound="Held")

_MENDED_BY_TIME = frozenset({"full", "rate_limited", "recovering", "unhealthy"})


class Held(Protocol):
    """Lease, as far as a queue handles it."""

    def refund(self) -> None:
        """Give back the quota, because the request was never sent."""
        ...

    def call_off(self) -> bool:
        """Give back the node."""
        ...


def comes_with_time(refusal: NoNodeAvailable) -> bool:
    """Tell whether what a request was refused for lack of may come by waiting."""
    reasons = refusal.reasons
    if not _MENDED_BY_TIME.isdisjoint(reasons):
        return True
    # Quota comes, unless the request costs more than there ever is.
    return "quota" in reasons and refusal.retry_after is not None


class Waiter(Generic[N, H]):
    """One request that waits.

    Attributes:
        request: What is asked for.
        kind: What it needs of a node, as `Request.kind` says.
        since: When it began, by the clock.
        deadline: When it gives up, by the clock; inf for never.
        bell: Rung when it should look.
        granted: What it was given; ``None`` until then.
        refusal: Why it was refused when it was last asked.
        error: Why it need not wait any longer; ``None`` until then.
        ticket: Its number, in order of arrival; 0 for one that was turned away.
    """

    __slots__ = (
        "bell",
        "deadline",
        "error",
        "granted",
        "kind",
        "refusal",
        "request",
        "since",
        "ticket",
    )

    def __init__(
        self,
        request: Request[N],
        kind: Hashable,
        refusal: NoNodeAvailable,
        since: float,
        deadline: float,
        bell: Bell,
    ) -> None:
        self.request = request
        self.kind = kind
        self.refusal = refusal
        self.since = since
        self.deadline = deadline
        self.bell = bell
        self.granted: H | None = None
        self.error: Exception | None = None
        self.ticket = 0

    @property
    def is_done(self) -> bool:
        """True if it need not wait any longer."""
        return self.granted is not None or self.error is not None


def turned_away(refusal: NoNodeAvailable) -> NoNodeAvailable:
    """Return the error for one who may not even wait: nodes that time brings back are taken."""
    given = refusal.reasons.items()
    reasons = {why: count for why, count in given if why not in _MENDED_BY_TIME | {"quota"}}
    reasons["queue"] = sum(refusal.reasons.values()) - sum(reasons.values())
    return NoNodeAvailable(
        refusal.balancer, refusal.total, reasons, refusal.retry_after, refusal.filters
    )
