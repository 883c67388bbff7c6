"""Panic: the state of a balancer with too few nodes available."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from loadwise._log import log_warning
from loadwise._numbers import finite
from loadwise.clock import Clock
from loadwise.health import HealthTracker

__all__ = ["Panic", "PanicLog", "PanicRule"]


@dataclass(frozen=True, slots=True)
class Panic:
    """State of a balancer in panic: how many members are left.

    Attributes:
        available: Members that are not UNHEALTHY.
        ailing: Members that are UNHEALTHY but not dead; they are given requests, too.
        members: All members that the balancer's filter admits and that are not drained.
        threshold: Share of available members below which there is panic.
        last_resort: Whether nobody is available or ailing, so that all members are given requests.

    Example:
        >>> print(Panic(available=1, ailing=2, members=5, threshold=0.5, last_resort=False))
        panic: 1 of 5 nodes is available, below 50 %; requests go to 2 ailing nodes, too
    """

    available: int
    ailing: int
    members: int
    threshold: float
    last_resort: bool

    def to_dict(self) -> dict[str, float | str]:
        """Return it as JSON has it: the attributes by name, and all in words as ``text``."""
        return {**asdict(self), "text": str(self)}

    def __str__(self) -> str:
        if self.last_resort:
            if self.members == 1:
                return "panic: its node is dead; requests go to it as a last resort"
            return f"panic: all {self.members} nodes are dead; requests go to them as a last resort"
        are = "is" if self.available == 1 else "are"
        text = f"panic: {self.available} of {self.members} nodes {are} available"
        if self.available:
            text += f", below {self.threshold * 100:g} %"
        if self.ailing:
            ailing = "1 ailing node" if self.ailing == 1 else f"{self.ailing} ailing nodes"
            text += (
                f"; requests go to {ailing}, too"
                if self.available
                else f"; requests go to {ailing}"
            )
        return text


class PanicRule:
    """Rule by which a balancer is in panic.

    Args:
        threshold: Share of available members below which there is panic, from 0 to 1.
        window: Seconds for which a success keeps a node from being taken for dead, > 0.

    Raises:
        TypeError: An argument is not a number.
        ValueError: An argument is out of range.

    Immutable, so thread-safe.
    """

    __slots__ = ("threshold", "window")

    def __init__(self, threshold: float, window: float) -> None:
        self.threshold = finite("panic_threshold", threshold)
        if not 0 <= self.threshold <= 1:
            raise ValueError(
                f"panic_threshold is {threshold!r}; it must be a share of the nodes from 0 to 1, "
                f"or None for no panic at all"
            )
        self.window = finite("panic_window", window)
        if not self.window > 0:
            raise ValueError(
                f"panic_window is {window!r}; it must be a finite number of seconds above 0, or "
                f"None for that of the health policy"
            )

    @classmethod
    def of(
        cls, threshold: float | None, window: float | None, health: HealthTracker | None
    ) -> PanicRule | None:
        """Return the rule that a balancer's arguments say; ``None`` where there is no panic."""
        rule = cls(
            0.0 if threshold is None else threshold,
            1.0 if window is None else window,
        )
        if threshold is None or health is None:
            return None
        return cls(rule.threshold, health.panic_window) if window is None else rule

    def judge(self, members: int, down: int, ailing: int) -> Panic | None:
        """Return how bad it is; ``None`` if there is no panic."""
        available = members - down
        if not members or (available and available / members >= self.threshold):
            return None
        return Panic(available, ailing, members, self.threshold, not available and not ailing)


class PanicLog:
    """Tells the log and a collector when a balancer's panic begins and ends.

    Args:
        name: The balancer's name.
        rule: Its rule; ``None`` where there is never panic.
        clock: Source of monotonic seconds.
        on_panic: Told whether panic began or ended; ``None`` if nobody wants to know.

    A fleet at the edge may enter and leave panic many times a second. To the log, what begins
    within a ``panic_window`` of the line before is the same panic.

    Not thread-safe: a balancer calls it for one change at a time.
    """

    def __init__(
        self,
        name: str,
        rule: PanicRule | None,
        clock: Clock,
        on_panic: Callable[[bool], None] | None,
    ) -> None:
        self._name = name
        self._window = 0.0 if rule is None else rule.window
        self._clock = clock
        self._on_panic = on_panic
        self._logged_at = -float("inf")

    def tell(self, panic: Panic | None) -> None:
        """Tell that panic began, or that it ended."""
        if panic is not None:
            now = self._clock()
            # What is logged later than now was logged before the clock went back.
            if not self._logged_at <= now < self._logged_at + self._window:
                self._logged_at = now
                log_warning("balancer %r is in %s", self._name, panic)
        if self._on_panic is not None:
            self._on_panic(panic is not None)
