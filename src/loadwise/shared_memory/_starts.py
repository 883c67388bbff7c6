"""Slow starts by the host's clock: when a node joined the host, or was last found to be back."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from typing import Final

from loadwise.clock import Clock
from loadwise.shared_memory._audience import Audience
from loadwise.shared_memory._cells import HostCell
from loadwise.shared_memory._events import STARTED

__all__ = ["BalancerStarts", "HostStarts"]

_AHEAD: Final = 1.0


class HostStarts:
    """Exchange of slow starts between this process's balancers and those of other processes.

    Each process writes when those starts began that it was the first to begin; the newest holds.

    Args:
        find: Returns the entry of a node, if others can see it.
        post: Tells others that something of a node has changed.
        clock: The host's clock.

    Thread-safety: full; news are heard by one thread at a time.
    """

    def __init__(
        self,
        find: Callable[[Hashable], HostCell | None],
        post: Callable[[HostCell, int, str], None],
        clock: Clock = time.monotonic,
    ) -> None:
        self._find = find
        self._post = post
        self._clock = clock
        self._audience = Audience[float]()

    def share(
        self,
        found: Callable[[Hashable], float | None],
        heard: Callable[[Hashable, float], None],
    ) -> BalancerStarts:
        """Return where a balancer tells of its starts.

        Args:
            found: As for `BalancerStarts`.
            heard: A method that is told of those of others. Its object is not kept alive.
        """
        self._audience.add(heard)
        return BalancerStarts(self, found)

    def hear(self, cell: HostCell, row: int) -> None:
        """Tell balancers when a node's slow start began in another process."""
        since = cell.memory.reals[self._place(cell) + row]
        if 0.0 < since < self._clock() + _AHEAD:
            self._audience.tell(cell.id, since)

    def begin(self, node_id: Hashable, now: float) -> None:
        """Have all processes begin the slow start of a node."""
        cell = self._find(node_id)
        if cell is not None:
            self._write(cell, now)
            self._post(cell, STARTED, "")

    def last(self, node_id: Hashable) -> float:
        """Return when a node's newest slow start began; 0 for none. O(processes)."""
        cell = self._find(node_id)
        return 0.0 if cell is None else self._newest(cell)

    def is_new(self, node_id: Hashable) -> bool:
        """Tell whether no process has had the node before. O(processes)."""
        cell = self._find(node_id)
        if cell is None:
            return True
        layout, row = cell.memory.layout, cell.memory.row
        place = layout.block_of(cell.number) + layout.holds
        holders = cell.memory.raw[place : place + layout.rows].tobytes()
        return not any(holders[:row] + holders[row + 1 :]) and not self._written(cell)[row]

    def left(self, node_id: Hashable) -> None:
        """Forget what this process has told of a node."""
        cell = self._find(node_id)
        if cell is not None:
            self._write(cell, 0.0)

    def _newest(self, cell: HostCell) -> float:
        latest = self._clock() + _AHEAD
        return max((since for since in self._written(cell) if 0.0 < since < latest), default=0.0)

    @staticmethod
    def _place(cell: HostCell) -> int:
        layout = cell.memory.layout
        return (layout.block_of(cell.number) + layout.starts) // 8

    def _written(self, cell: HostCell) -> Sequence[float]:
        place = self._place(cell)
        return cell.memory.reals[place : place + cell.memory.layout.rows].tolist()

    def _write(self, cell: HostCell, since: float) -> None:
        cell.memory.reals[self._place(cell) + cell.memory.row] = since


class BalancerStarts:
    """Slow starts of one balancer, as its host has them.

    Args:
        host: Those of all its processes.
        found: Returns when another process found out the state of a node that is being taken
            over now; ``None`` for one that was found out here.
    """

    def __init__(self, host: HostStarts, found: Callable[[Hashable], float | None]) -> None:
        self.begin = host.begin
        self.last = host.last
        self.is_new = host.is_new
        self.left = host.left
        self.found = found
