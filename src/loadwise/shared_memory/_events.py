"""Changes that processes tell each other: a bell and a ring of the last 64 for each row."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from loadwise.shared_memory._layout import ENTRY, RING
from loadwise.shared_memory._memory import HostMemory

__all__ = [
    "EJECTED",
    "FORGOTTEN",
    "HEALTH",
    "NOTHING",
    "STARTED",
    "HostEvent",
    "heard_since",
    "tell",
]

NOTHING: Final = 0
"""Says only that it is time to look around."""
FORGOTTEN: Final = 1
"""Says that the cost of a node is to be taken for never measured."""
HEALTH: Final = 2
"""Says that the health of a node has changed."""
STARTED: Final = 3
"""Says that the slow start of a node has begun."""
EJECTED: Final = 4
"""Says that a node was ejected."""

# Number, node, kind, length of the words, words; the number again. Who writes begins at the end and
# who reads at the beginning, so that what both numbers agree on is one event.
_BODY: Final = struct.Struct("<IHH")
_MOST_WORDS: Final = ENTRY - 16 - _BODY.size


class HostEvent(NamedTuple):
    """Change that a process has told.

    Attributes:
        row: Of that process.
        kind: Which change it is.
        node: The number of the node's block.
        words: More to say, in UTF-8.
    """

    row: int
    kind: int
    node: int
    words: str


def tell(memory: HostMemory, kind: int, node: int = 0, words: str = "") -> None:
    """Tell all processes of a change. For one thread at a time."""
    bell = memory.bells[memory.row]
    number = (bell + 1) % 2**64
    first = memory.layout.rings + (memory.row * RING + number % RING) * ENTRY
    said = words.encode("utf-8", "replace")[:_MOST_WORDS]
    memory.words[(first + ENTRY) // 8 - 1] = number
    memory.raw[first + 8 : first + ENTRY - 8] = (_BODY.pack(node, kind, len(said)) + said).ljust(
        ENTRY - 16, b"\0"
    )
    memory.words[first // 8] = number
    memory.bells[memory.row] = number
    memory.chime[0] = (number * memory.layout.rows + memory.row) % 2**64


def heard_since(memory: HostMemory, before: bytes, now: bytes) -> Iterator[HostEvent | int]:
    """Yield what has been told since, row by row; the number of a row where some was missed.

    Args:
        memory: Where it was told.
        before: The bells when they were last heard; empty for never.
        now: The bells now.
    """
    bells = memoryview(now).cast("Q")
    last = memoryview(before or bytes(len(now))).cast("Q")
    for row, (old, new) in enumerate(zip(last, bells, strict=True)):
        if old == new or row == memory.row:
            continue
        if not before or not old < new <= old + RING:
            yield row
            continue
        for number in range(old + 1, new + 1):
            event = _event(memory, row, number)
            if event is None:
                yield row
                break
            yield event


def _event(memory: HostMemory, row: int, number: int) -> HostEvent | None:
    first = memory.layout.rings + (row * RING + number % RING) * ENTRY
    told = memory.raw[first : first + ENTRY].tobytes()
    if told[:8] != told[-8:] or int.from_bytes(told[:8], "little") != number:
        return None
    node, kind, length = _BODY.unpack_from(told, 8)
    place = 8 + _BODY.size
    words = told[place : place + min(length, _MOST_WORDS)].decode("utf-8", "replace")
    return HostEvent(row, kind, node, words)
