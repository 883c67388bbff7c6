"""Logs of prompts: of each row the last that its process sent, and where, as hashes."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from threading import RLock
from typing import Final, NamedTuple

from xxhash import xxh3_64_intdigest

from loadwise.shared_memory._layout import LOG
from loadwise.shared_memory._memory import HostMemory

__all__ = ["MOST_BLOCKS", "PromptLog", "Sent"]

MOST_BLOCKS: Final = 4096
"""Blocks of a prompt that are told; of a longer one its beginning."""
_COUNT: Final = 2**32 - 1
"""Part of an entry's first word: the number of its blocks. Above it stands their size."""
_FRAME: Final = 3
"""Words of an entry beside its hashes: sizes, node, and a hash of all of it."""
_LONGEST: Final = MOST_BLOCKS + _FRAME


class Sent(NamedTuple):
    """Prompt that a process has sent to a node.

    Attributes:
        place: Where its entry begins.
        node: The hash of the node's key.
        block_chars: Characters of a block.
        hashes: Those of its blocks.
    """

    place: int
    node: int
    block_chars: int
    hashes: memoryview[int]


class PromptLog:
    """Logs of all rows in a host's memory; the process's own is there to be written.

    A log is a ring of words. Its head tells how many were ever written, its tail how many of them
    were dropped. An entry is read whole or not at all: it ends with a hash of all of it and of its
    place. A process that dies leaves its log to who takes its row after it: what it sent where is
    still true.

    Args:
        memory: Where they are. `HostMemory.open_log` has made room.

    Thread-safety: a lock of the process's own to write; none to read.

    Cost: O(blocks) to write and to read an entry.
    """

    def __init__(self, memory: HostMemory) -> None:
        layout = memory.layout
        heads, tails = layout.heads // 8, layout.tails // 8
        self.heads = memory.words[heads : heads + layout.rows]
        self.row = memory.row
        self._tails = memory.words[tails : tails + layout.rows]
        self._first = layout.logs // 8
        self._words = memory.words
        # Re-entrant: the collector may strike while it is held, and have a request sent.
        self._lock = RLock()
        self._writes = False

    def append(self, node: int, block_chars: int, hashes: Sequence[int]) -> tuple[int, int]:
        """Write an entry; return where it begins and ends, or twice the same if it was not written.

        Args:
            node: The hash of the node's key.
            block_chars: Characters of a block.
            hashes: Those of its blocks.
        """
        if len(hashes) > MOST_BLOCKS:
            hashes = hashes[:MOST_BLOCKS]
        with self._lock:
            if self._writes:
                return 0, 0
            self._writes = True
            try:
                head = self._make_room(len(hashes) + _FRAME)
                entry = array("Q", (min(block_chars, _COUNT) << 32 | len(hashes), node, *hashes))
                entry.append(xxh3_64_intdigest(entry.tobytes(), head))
                end = head + len(entry)
                self._put(head, memoryview(entry))
                self.heads[self.row] = end
                return head, end
            finally:
                self._writes = False

    def _make_room(self, size: int) -> int:
        """Drop as many of the oldest entries as it takes; return the head."""
        head, tail = self.heads[self.row], self._tails[self.row]
        if not 0 <= head - tail <= LOG or head > sys.maxsize:  # somebody has written there
            head = tail = 0
            self.heads[self.row] = 0
        while head + size - tail > LOG:
            place = self._first + self.row * LOG + tail % LOG
            tail = min(tail + (self._words[place] & _COUNT) + _FRAME, head)
        self._tails[self.row] = tail
        return head

    def _put(self, place: int, entry: memoryview[int]) -> None:
        first, begin = self._first + self.row * LOG, place % LOG
        whole = min(len(entry), LOG - begin)
        self._words[first + begin : first + begin + whole] = entry[:whole]
        if whole < len(entry):
            self._words[first : first + len(entry) - whole] = entry[whole:]

    def read(self, row: int, place: int, most: int) -> tuple[list[Sent], int]:
        """Return what a row's process has sent, and where to go on.

        Args:
            row: The row.
            place: Where to begin. What was dropped meanwhile is left out.
            most: Words to read, but one entry at least.
        """
        head, tail = self.heads[row], self._tails[row]
        if not tail <= place <= head:
            place = tail
        if not 0 <= head - place <= LOG:  # forged
            return [], head
        words = self._copy(row, place, min(head - place, max(most, _LONGEST)))
        found: list[Sent] = []
        at, end = 0, len(words)
        while at < end:
            count = words[at] & _COUNT
            after = at + count + _FRAME
            if after > end and end < head - place and count <= MOST_BLOCKS:
                break  # the rest of it comes next time
            if (
                after > end
                or xxh3_64_intdigest(words[at : after - 1], place + at) != words[after - 1]
            ):
                # It was overwritten meanwhile, or it is damaged.
                tail = self._tails[row]
                return found, tail if place + at < tail <= head else head
            hashes = words[at + 2 : after - 1]
            found.append(Sent(place + at, words[at + 1], words[at] >> 32, hashes))
            at = after
        return found, place + at

    def _copy(self, row: int, place: int, size: int) -> memoryview[int]:
        first, begin = self._first + row * LOG, place % LOG
        whole = min(size, LOG - begin)
        copied = self._words[first + begin : first + begin + whole].tobytes()
        if whole < size:
            copied += self._words[first : first + size - whole].tobytes()
        return memoryview(copied).cast("Q")
