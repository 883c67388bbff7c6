"""Entry of one node: what this process counts of it, and what all of the host's do."""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import Final

from loadwise.load import MEASURED, EwmaCell, oldest_waiting
from loadwise.shared_memory._layout import AGE_ORIGIN, SCORE_ORIGIN
from loadwise.shared_memory._memory import HostMemory

__all__ = ["HostCell", "Left"]

Left = list[tuple[HostMemory, int, Hashable]]
"""Nodes that nobody here has any more: where they are, and their ids."""

_HIGHEST_AGE: Final = AGE_ORIGIN


class HostCell(EwmaCell):
    """Entry of one node in a host's memory.

    Its length is the number of requests that this process has in flight; `seen` holds that of each
    process. What this process counts it writes to `mine`, and looks whether that has changed
    meanwhile: of several threads the last to write writes what holds.

    Attributes:
        id: The node's id.
        memory: Where it is.
        number: That of its block there.
        mine: Requests in flight, of this process.
        seen: The same of each process.
        my_age: When the oldest request without a first byte began, as `MemoryLayout` has it.
        ages: The same of each process.
        my_score: What orders its cost, or 0 if that was never measured.
        scores: The same of each process.
        peak: The highest of them. Who raises it writes it, and so does who has lowered what was the
            highest. Of two who write at once either may be lost until `HostExchange` looks.
        since: All requests that are waiting began at this moment or later.
        eldest: The row of the one that began then, if it still waits.

    Thread-safety: lock-free.
    """

    __slots__ = (
        "_left",
        "ages",
        "eldest",
        "id",
        "memory",
        "mine",
        "my_age",
        "my_score",
        "number",
        "peak",
        "scores",
        "seen",
        "since",
    )

    def __init__(self, node_id: Hashable, memory: HostMemory, index: int, left: Left) -> None:
        super().__init__()
        self.id = node_id
        self._left = left
        self._place(memory, index, memory.row + 1)

    def move(self, memory: HostMemory, index: int, reach: int) -> None:
        """Go on in another memory, or block; and write there what is counted here."""
        self._place(memory, index, reach)
        self.publish()
        self.publish_age()
        self.publish_cost()

    def _place(self, memory: HostMemory, index: int, reach: int) -> None:
        layout = memory.layout
        block, row = layout.block_of(index), memory.row
        reals = memory.reals
        self.memory, self.number = memory, index
        self.mine = memory.small[block // 4 + row : block // 4 + row + 1]
        ages, scores = (block + layout.ages) // 8, (block + layout.scores) // 8
        self.my_age = reals[ages + row : ages + row + 1]
        self.my_score = reals[scores + row : scores + row + 1]
        peak = (block + layout.peak) // 8
        self.peak = reals[peak : peak + 1]
        self.look_at(reach)

    def look_at(self, reach: int) -> None:
        """Look at so many rows from now on."""
        layout = self.memory.layout
        block = layout.block_of(self.number)
        ages, scores = (block + layout.ages) // 8, (block + layout.scores) // 8
        self.seen = self.memory.small[block // 4 : block // 4 + reach]
        self.ages = self.memory.reals[ages : ages + reach]
        self.scores = self.memory.reals[scores : scores + reach]
        self.since, self.eldest = -inf, 0

    @property
    def total(self) -> int:
        """Requests in flight of all processes."""
        return sum(self.seen)

    @property
    def elsewhere(self) -> int:
        """Requests in flight of other processes."""
        seen, row = self.seen, self.memory.row
        return sum(seen[:row]) + sum(seen[row + 1 :])

    def publish(self) -> None:
        """Write how many requests this process has in flight."""
        while True:
            mine, number = self.mine, len(self)
            mine[0] = number
            if len(self) == number and self.mine is mine:
                return

    def publish_age(self) -> None:
        """Write when the oldest request without a first byte began."""
        while True:
            mine, oldest = self.my_age, oldest_waiting(self)
            mine[0] = 0.0 if oldest == inf else _HIGHEST_AGE - oldest
            if oldest_waiting(self) == oldest and self.my_age is mine:
                return

    def publish_cost(self) -> None:
        """Write what orders its cost: cost and time in one, so that both are of one moment."""
        gauge = self.gauge
        while True:
            mine, score, weights = self.my_score, gauge.score, gauge.weights
            known = weights is MEASURED and -SCORE_ORIGIN < score < inf
            mine[0] = score + SCORE_ORIGIN if known else 0.0
            self.publish_peak()
            if not known or (gauge.score == score and self.my_score is mine):
                return

    def publish_peak(self) -> None:
        """Write the highest score of all processes, if it is another than is written."""
        highest = max(self.scores)
        if not 0.0 <= highest < inf:
            highest = max((score for score in self.scores if 0.0 < score < inf), default=0.0)
        if self.peak[0] != highest:
            self.peak[0] = highest

    def __del__(self) -> None:
        left = getattr(self, "_left", None)  # none if the constructor was interrupted
        if left is not None:
            left.append((self.memory, self.number, self.id))
