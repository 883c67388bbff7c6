"""Failures of one request that are held back until an attempt succeeds."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from loadwise.outcome import Outcome

__all__ = ["Blame"]


class Blame:
    """Holds back failures of one request until it is known whose fault they are.

    The first failure counts at once. Later ones are held: if an attempt succeeds, the request was
    sound, and they are reported; if none does, they are dropped, because what fails everywhere is
    the request's fault. Whoever drops this object drops them, too.

    Attributes:
        holds_cooldowns: Whether the cooldowns that come with failures are held, too, that of the
            first one included.
        doubts_limits: Whether those are held, too, that come with the rate limits reported next.

    Thread-safety: attempts may end in several threads at once.

    Cost: O(1) for each failure; O(failures held) for a success.
    """

    __slots__ = ("_cooldowns", "_first", "_held", "doubts_limits", "holds_cooldowns")

    def __init__(self, *, holds_cooldowns: bool = False) -> None:
        # Emptied by the first failure: that is atomic, a flag is not.
        self._first = [None]
        self._held: dict[Hashable, Callable[[], None]] | None = None
        self._cooldowns: dict[Hashable, Callable[[], None]] | None = None
        self.holds_cooldowns = holds_cooldowns
        self.doubts_limits = False

    def counts_at_once(self) -> bool:
        """Record a failure; return whether it is the request's first."""
        try:
            del self._first[0]
        except IndexError:
            return False
        return True

    def holds_cooldown(self, outcome: Outcome) -> bool:
        """Tell whether the cooldown that comes with such an end is to be held."""
        return self.holds_cooldowns if outcome is Outcome.FAILURE else self.doubts_limits

    def hold(self, node_id: Hashable, report: Callable[[], None]) -> None:
        """Hold a failure of a node; an earlier one of the same node gives way to it."""
        held = self._held
        if held is None:
            self._held = held = {}
        held.pop(node_id, None)
        held[node_id] = report

    def hold_cooldown(self, node_id: Hashable, begin: Callable[[], None]) -> None:
        """Hold the cooldown of a node; an earlier one of the same node gives way to it."""
        cooldowns = self._cooldowns
        if cooldowns is None:
            self._cooldowns = cooldowns = {}
        cooldowns[node_id] = begin

    def succeeded(self, node_id: Hashable) -> None:
        """Report what is held, in order, except what is of the node that has succeeded now."""
        held, self._held = self._held, None
        cooldowns, self._cooldowns = self._cooldowns, None
        for each in (held, cooldowns):
            if each is not None:
                each.pop(node_id, None)
                for report in list(each.values()):
                    report()
