"""State that an answer depends on, and whether it is still the same."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from loadwise.node_set import NodeSet

if TYPE_CHECKING:
    from loadwise.clock import Clock

__all__ = ["ALWAYS", "NOTHING_KEPT", "Kept", "StateSource", "Versioned", "Watch"]

N = TypeVar("N")


class StateSource(Protocol):
    """State that decides who may be chosen, and that tells when it changes."""

    @property
    def version(self) -> int:
        """Number that changes with every change of state."""
        ...

    @property
    def clock(self) -> Clock:
        """The clock that `next_change` is told by."""
        ...

    def next_change(self) -> float:
        """Return when the passing of time alone changes the state next; inf for never."""
        ...


class Versioned(Protocol):
    """Anything that tells by its version whether it is still what it was."""

    @property
    def version(self) -> int:
        """Number that changes with every change of state."""
        ...


class Watch:
    """Remembers the versions of some sources, to tell whether they are still the same.

    Make it *before* reading the state: a change in between is then seen as one.

    Args:
        sources: Whose versions and times of change to heed.
    """

    __slots__ = ("_deadlines", "_versions")

    def __init__(self, sources: Iterable[StateSource]) -> None:
        self._versions = [(source, source.version) for source in sources]
        changes = [(source.clock, source.next_change()) for source, _ in self._versions]
        self._deadlines = [(clock, when) for clock, when in changes if when < math.inf]

    def until(self, clock: Clock, when: float) -> None:
        """End it at ``when`` by ``clock`` besides."""
        self._deadlines = [*self._deadlines, (clock, when)]

    @property
    def timed(self) -> bool:
        """True if the passing of time alone will end it."""
        return bool(self._deadlines)

    @property
    def version(self) -> int:
        """1 while it holds, else 0."""
        return int(self.holds())

    def holds(self) -> bool:
        """Tell whether nothing has changed since. O(number of sources)."""
        # A loop, because this may be asked at every pick, and a generator costs more.
        for source, version in self._versions:
            if source.version != version:
                return False
        return not self._deadlines or all(clock() < when for clock, when in self._deadlines)

    def terms(self) -> tuple[Versioned, int]:
        """Return something and its version: while it has that, the watch holds.

        Mostly that is the one source itself, so that whoever asks at every pick need not call.
        """
        if len(self._versions) == 1 and not self._deadlines:
            return self._versions[0]
        return self, 1


Kept = tuple[NodeSet[N], NodeSet[N], Versioned, int]
"""Candidates, a view of them, and what has which version for as long as the view is right."""

ALWAYS: tuple[Versioned, int] = (Watch(()), 1)
"""Terms that never end."""

NOTHING_KEPT: Kept[Any] = (NodeSet(()), NodeSet(()), *ALWAYS)
"""Fits no candidates, because the set is nobody else's."""
