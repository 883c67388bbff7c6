"""Memory that a host's processes share, as numbers, or a process's own in its place."""

from __future__ import annotations

import mmap
import os
from collections.abc import Container
from contextlib import suppress
from typing import Final

from loadwise.shared_memory._bus_guard import guard, retire
from loadwise.shared_memory._layout import LOG, PAGE, ROW_RECORD, MemoryLayout
from loadwise.shared_memory._locks import ROWS, ByteLocks

__all__ = ["HostMemory"]

_TAU: Final = 16
_KINDS: Final = (
    *(("ages", 1), ("scores", 1), ("claims", 1), ("results", 3)),
    *(("prompts", 1), ("held", 1), ("marks", 1)),
)
"""Numbers of 8 bytes that tell of what a process does, and how many there are of each."""


class HostMemory:
    """Bytes of a host's picture, and the row in it that is this process's.

    Args:
        layout: Where everything is.
        buffer: The mapping.
        locks: Of the file, with that of the row; ``None`` for private memory, as where nothing can
            be shared: the same in all but that nobody else looks.
        row: The process's row.

    Attributes:
        raw: All bytes.
        small: The same as numbers of 4 bytes.
        words: The same as whole numbers of 8 bytes.
        reals: The same as floats.
        bells: How many changes each row has told.
        chime: Number of the last change, which no other has. Any process writes it, after its own
            bell: if two do so at once either may be lost, and whoever looks finds both bells.

    Thread-safety: each access is one copy of aligned bytes.
    """

    def __init__(
        self, layout: MemoryLayout, buffer: mmap.mmap, locks: ByteLocks | None, row: int
    ) -> None:
        self.layout = layout
        self.locks = locks
        self.row = row
        self.raw = memoryview(buffer)
        self.small = self.raw.cast("I")
        self.words = self.raw.cast("Q")
        self.reals = self.raw.cast("d")
        bells = layout.bells // 8
        self.bells = self.words[bells : bells + layout.rows]
        self.chime = self.words[layout.chime // 8 : layout.chime // 8 + 1]
        self._records = layout.records // 8
        self._guarded = 0 if locks is None else guard(buffer, locks.file)

    @classmethod
    def private(cls, nodes: int) -> HostMemory:
        """Return memory that nobody shares, with room for so many nodes."""
        layout = MemoryLayout(1, nodes)
        # Without the logs, which nobody would read.
        return cls(layout, mmap.mmap(-1, layout.logs), None, 0)

    @property
    def used(self) -> int:
        """Number of nodes that have, or had, a block; never more than there is room for."""
        return min(self.words[self.layout.used // 8], self.layout.nodes)

    def pid(self, row: int) -> int:
        """Return the process whose row it is; 0 for nobody's."""
        return self.words[self._records + row * ROW_RECORD // 8]

    def joined(self, row: int) -> float:
        """Return when the row was taken, in seconds of the host's clock."""
        return self.reals[self._records + row * ROW_RECORD // 8 + 1]

    def tau(self, row: int) -> float:
        """Return by which time constant the row's scores fade; 0 if it has none."""
        return self.reals[self._records + row * ROW_RECORD // 8 + _TAU // 8]

    def sign(self, now: float) -> None:
        """Write who has this process's row, since when."""
        place = self._records + self.row * ROW_RECORD // 8
        self.reals[place + 1] = now
        self.words[place] = os.getpid()

    def fade_by(self, tau: float) -> None:
        """Write by which time constant this process's scores fade."""
        self.reals[self._records + self.row * ROW_RECORD // 8 + _TAU // 8] = tau

    def reach(self) -> int:
        """Return how many rows there are up to the last one that somebody has."""
        step = ROW_RECORD // 8
        first = self._records
        pids = self.words[first : first + self.layout.rows * step : step].tolist()
        return max((row + 1 for row, pid in enumerate(pids) if pid), default=0)

    def open_log(self) -> bool:
        """Have room made for this process's log of prompts; ``False`` where there is none."""
        layout = self.layout
        if self.locks is not None:
            try:
                os.posix_fallocate(self.locks.file, layout.logs + 8 * LOG * self.row, 8 * LOG)
            except OSError:
                return False
        return len(self.raw) == layout.size

    def clear_row(self, row: int) -> None:
        """Write zeros where a row tells of what its process does, for who holds its lock.

        O(nodes). What it found out of the nodes' health stays, and its log of prompts.
        """
        layout, used = self.layout, self.used
        place = self._records + row * ROW_RECORD // 8
        self.words[place] = 0
        for field in range(1, ROW_RECORD // 8):
            self.words[place + field] = 0
        nothing = memoryview(bytes(8 * used))
        block = layout.block
        counts = (layout.blocks + 4 * row) // 4
        self.small[counts : counts + used * block // 4 : block // 4] = nothing[: 4 * used].cast("I")
        for kind, width in _KINDS:
            for part in range(width):
                first = (layout.blocks + getattr(layout, kind)) // 8 + row * width + part
                self.words[first : first + used * block // 8 : block // 8] = nothing.cast("Q")
        holds = layout.blocks + layout.holds + row
        self.raw[holds : holds + used * block : block] = nothing[:used]

    def sign_again(self) -> bool:
        """Write whose row it is, where somebody has written over it; tell whether that was so."""
        if self.pid(self.row) == os.getpid():
            return False
        self.sign(self.joined(self.row))
        return True

    def forget_own(self, index: int) -> None:
        """Write zeros where this process told of a node, and hold it no more."""
        layout, row = self.layout, self.row
        block = layout.block_of(index)
        self.small[block // 4 + row] = 0
        for kind, width in _KINDS:
            first = (block + getattr(layout, kind)) // 8 + row * width
            for part in range(width):
                self.words[first + part] = 0
        self.raw[block + layout.holds + row] = 0

    def mend(self, own: Container[int]) -> None:
        """Write zeros for requests in flight that this process has not written. O(nodes).

        Args:
            own: The numbers of the nodes that it has.
        """
        layout, used = self.layout, self.used
        first, step = (layout.blocks + 4 * self.row) // 4, layout.block // 4
        column = self.small[first : first + used * step : step].tolist()
        for index in [index for index, number in enumerate(column) if number]:
            if index not in own:
                self.small[first + index * step] = 0

    def is_busy(self, row: int) -> bool:
        """Tell whether a row says that somebody has it, or has requests in flight. O(nodes)."""
        if self.pid(row):
            return True
        layout = self.layout
        first, step = (layout.blocks + 4 * row) // 4, layout.block // 4
        return any(self.small[first : first + self.used * step : step].tolist())

    def clear_dead(self, reach: int) -> bool:
        """Clear the rows of processes that have died; tell whether there was one."""
        if self.locks is None:
            return False
        found = False
        for row in range(reach):
            if row == self.row or not self.locks.take(ROWS + row):
                continue
            try:
                if self.is_busy(row):
                    self.clear_row(row)
                    found = True
            finally:
                self.locks.free(ROWS + row)
        return found

    def __del__(self) -> None:
        self.leave()

    def header(self) -> bytes:
        """Return what the first page begins with."""
        return self.raw[: PAGE // 4].tobytes()

    def leave(self) -> None:
        """Give the row up, in this process; its own numbers stay as they are."""
        locks = getattr(self, "locks", None)  # none if the constructor was interrupted
        if locks is not None:
            retire(getattr(self, "_guarded", 0))
            with suppress(OSError):
                locks.close()
