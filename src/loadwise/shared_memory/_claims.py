"""Claims of probes: of all processes of a host one at a time probes a node that is down."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Final

from loadwise.shared_memory._cells import HostCell
from loadwise.shared_memory._locks import PROBES

__all__ = ["HostClaims", "TrackerClaims"]

_LOOKS_AGAIN: Final = 1.0
"""Seconds until it is looked again whether a probe is still claimed."""
_FARTHEST: Final = 86_400.0
"""Seconds: what claims more was forged."""


class HostClaims:
    """Claims of this process, for all its trackers.

    A claim is a time, in the row of the process that has it, until when nobody else is to probe the
    node. So it lapses, whatever becomes of that process, and is cleared with the row if it dies.

    Who claims writes first and then reads what others have claimed. In between it takes the lock of
    the node's probes and frees it: so of two who claim at once the second to do so reads what the
    first has written. If both read each other's claim both withdraw, and try again a second later.

    Args:
        find: Returns the entry of a node, if others can see it.

    Thread-safety: full. Cost: O(processes) and two system calls to claim.
    """

    def __init__(self, find: Callable[[Hashable], HostCell | None]) -> None:
        self._find = find
        # By id: which of this process's trackers has claimed, and until when.
        self._own: dict[Hashable, tuple[TrackerClaims, float]] = {}

    def forget(self) -> None:
        """Leave all claims to the parent of a fork."""
        self._own = {}

    def claim(
        self, who: TrackerClaims, node_id: Hashable, now: float, until: float
    ) -> float | None:
        """Claim a probe; return when to try again, if another has claimed it."""
        own = self._own.setdefault(node_id, (who, until))
        if own[0] is not who and now < own[1]:
            return min(own[1], now + _LOOKS_AGAIN)
        self._own[node_id] = who, until
        cell = self._find(node_id)
        if cell is None:
            return None
        place = _place(cell)
        cell.memory.reals[place + cell.memory.row] = until
        locks = cell.memory.locks
        if locks is not None:
            with suppress(OSError):
                if locks.take(PROBES + cell.number):
                    locks.free(PROBES + cell.number)
        others = [
            claimed
            for row, claimed in enumerate(cell.memory.reals[place : place + len(cell.seen)])
            if row != cell.memory.row and now < claimed < now + _FARTHEST
        ]
        if not others:
            return None
        self.settle(who, node_id, 0.0)
        return min(*others, now + _LOOKS_AGAIN)

    def settle(self, who: TrackerClaims, node_id: Hashable, due: float) -> None:
        """Give a claim up, and keep others from probing the node before it is due."""
        own = self._own.get(node_id)
        if own is None or own[0] is not who:
            return
        if due > 0.0:
            self._own[node_id] = who, due
        else:
            self._own.pop(node_id, None)
        cell = self._find(node_id)
        if cell is not None:
            cell.memory.reals[_place(cell) + cell.memory.row] = max(0.0, due)


class TrackerClaims:
    """Claims of one tracker.

    Args:
        host: Claims of its process.
    """

    def __init__(self, host: HostClaims) -> None:
        self._host = host

    def claim(self, node_id: Hashable, now: float, until: float) -> float | None:
        """Claim a node's probe until a time; return when to try again, if another has it."""
        return self._host.claim(self, node_id, now, until)

    def settle(self, node_id: Hashable, due: float) -> None:
        """Give a claim up; nobody is to probe the node before ``due``."""
        self._host.settle(self, node_id, due)


def _place(cell: HostCell) -> int:
    return (cell.memory.layout.block_of(cell.number) + cell.memory.layout.claims) // 8
