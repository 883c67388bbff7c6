"""Cooldowns of members: until when and why."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, fields
from threading import RLock
from typing import Final

from loadwise._fork import ForkAware, reset_in_child
from loadwise._numbers import finite
from loadwise._text import in_seconds, visible
from loadwise.balancer.json_values import as_json
from loadwise.balancer.slot import Cause, Slot
from loadwise.metrics import GuardedCollector
from loadwise.quota import LiftableQuota, QuotaSource

__all__ = ["Cooldown", "Cooldowns", "checked_cooldown"]

_ELSEWHERE: Final = "marked as exhausted"
_SLACK: Final = 0.5
"""Seconds by which processes that share a cooldown may differ about its end."""


def checked_cooldown(retry_after: float) -> float:
    """Return the seconds of a cooldown.

    Raises:
        TypeError: They are no number.
        ValueError: They are negative, NaN or infinite.
    """
    seconds = finite("retry_after", retry_after)
    if not seconds >= 0:
        raise ValueError(
            f"retry_after is {retry_after!r}; it must be a finite number of seconds, at least 0"
        )
    return seconds


@dataclass(frozen=True, slots=True)
class Cooldown:
    """Time for which a node gets no requests because it asked for that.

    Attributes:
        seconds_left: Seconds until it is over, above 0.
        until: When it is over, by the balancer's clock.
        reason: Why, in words; ``"marked as exhausted"`` where somebody else than this balancer
            has begun or lengthened it, by the quota's own ``mark_exhausted`` or in another process.

    Example:
        >>> print(Cooldown(seconds_left=1.5, until=101.5, reason="rate limited, retry after 2 s"))
        rate limited, retry after 2 s; 1.5 s left
    """

    seconds_left: float
    until: float
    reason: str

    def to_dict(self) -> dict[str, float | str | None]:
        """Return it as JSON has it. The keys are the names of the attributes."""
        return {each.name: as_json(getattr(self, each.name)) for each in fields(self)}

    def __str__(self) -> str:
        left = in_seconds(float(f"{self.seconds_left:.3g}"))
        return f"{visible(self.reason)}; {left} left"


class Cooldowns(ForkAware):
    """Record of a balancer's cooldowns of its members.

    Args:
        quota: Source of quotas that keeps the cooldowns.
        metrics: Told of each cooldown that begins.

    Whether a node is on cooldown, and until when, is for ``quota`` to say, which others may share.
    The balancer remembers why, and until when that was meant: what lasts longer has another cause.

    Thread-safety: full. A lock makes two requests that are refused at once one cooldown.
    """

    def __init__(self, quota: QuotaSource, metrics: GuardedCollector | None) -> None:
        self._quota = quota
        self._metrics = metrics
        self._after_fork()
        reset_in_child(self)

    def _after_fork(self) -> None:
        # Re-entrant: the collector may strike while it is held, and close a generator that ends a
        # lease.
        self._lock = RLock()

    def begin(self, slot: Slot, seconds: float, reason: str) -> None:
        """Put a member on cooldown; a longer cooldown under way is kept."""
        if not seconds:  # that would end one
            return
        with self._lock:
            before = self._quota.cooldown_until(slot.id)
            self._quota.mark_exhausted(slot.id, seconds)
            until = self._quota.cooldown_until(slot.id)
            if until is not None and (before is None or until > before):
                slot.cause = Cause(until, reason)
        if self._metrics is not None and before is None and until is not None:
            self._metrics.on_cooldown(slot.id, seconds)

    def of(self, slot: Slot) -> Cooldown | None:
        """Return a member's cooldown, if it is on one."""
        until = self._quota.cooldown_until(slot.id)
        if until is None:
            return None
        cause = slot.cause
        ours = cause is not None and until <= cause.until + _SLACK
        left = until - self._quota.clock()
        if left <= 0:
            return None
        return Cooldown(left, until, cause.reason if ours and cause is not None else _ELSEWHERE)

    def among(self, slots: Iterable[Slot]) -> dict[Hashable, Cooldown]:
        """Return the cooldowns of these members, by id. O(n)."""
        found = ((slot.id, self.of(slot)) for slot in slots)
        return {identity: cooldown for identity, cooldown in found if cooldown is not None}

    def lift(self, slot: Slot) -> bool:
        """End a member's cooldown; return whether there was one.

        Raises:
            TypeError: There is one, and the source of quotas cannot end it.
        """
        quota = self._quota
        if not isinstance(quota, LiftableQuota):
            if quota.cooldown_until(slot.id) is None:
                return False
            raise TypeError(
                f"the cooldown of node {slot.id!r} cannot be lifted: the balancer's quota is "
                f"{quota!r}, which has no lift(node_id); wait for its end, or give the quota "
                f"source that method"
            )
        with self._lock:
            slot.cause = None
            return quota.lift(slot.id)
