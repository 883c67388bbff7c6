"""Reasons for which a view rules members out, counted once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final

from loadwise.balancer.times_back import NEVER, Journal, Waits
from loadwise.quota import QuotaSource

__all__ = ["BY_QUOTA", "Tally"]

BY_QUOTA: Final = ("quota", "rate_limited")
"""Reasons of nodes without quota or on cooldown; one may take the other's place with time."""

_PASSES = (*BY_QUOTA, "unhealthy")


class Tally:
    """Reasons for which members are ruled out, counted, and when they are back.

    Args:
        reasons: How many members are ruled out by each reason.
        waits: When those are back that time brings back.
        until: When the reasons have to be counted again.

    Immutable, so thread-safe.
    """

    __slots__ = ("reasons", "until", "waits")

    def __init__(self, reasons: Mapping[str, int], waits: Waits, until: float) -> None:
        self.reasons = reasons
        self.waits = waits
        self.until = until

    @staticmethod
    def of(
        ruled_out: Mapping[int, str],
        ids: Sequence[Hashable],
        quota: QuotaSource,
        ask: Callable[[int], float],
        mark: int,
    ) -> Tally:
        """Return a tally counted now. O(n).

        Args:
            ruled_out: The reasons, by index.
            ids: The members' ids, by index.
            quota: Source of quotas, which also knows the cooldowns.
            ask: Gives when a member is back, by index.
            mark: Where the journal of ``quota`` stands.
        """
        reasons: dict[str, int] = {}
        back: list[int] = []
        until = NEVER
        for index, why in ruled_out.items():
            reason = why
            if reason in BY_QUOTA:
                until_then = quota.cooldown_until(ids[index])
                reason = "quota" if until_then is None else "rate_limited"
                if until_then is not None:
                    until = min(until, until_then)
            if reason in _PASSES:
                back.append(index)
            reasons[reason] = reasons.get(reason, 0) + 1
        return Tally(reasons, Waits.asked(back, ask, mark), until)

    def fresh(
        self,
        journal: Journal,
        index_of: Callable[[Hashable], int | None],
        ask: Callable[[int], float],
        now: float,
    ) -> Tally:
        """Return the tally with the times that hold now. O(1) without changes."""
        waits = self.waits.fresh(journal, index_of, ask).settled(now, ask)
        return self if waits is self.waits else Tally(self.reasons, waits, self.until)
