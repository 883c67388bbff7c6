"""Layout of a host's memory: where each process keeps each of its numbers.

The file begins with a page that says whose it is. After it come the records of the rows, one row
for each process; their bells and rings, which tell the others of changes; the ids of the nodes;
one block for each node; and the rows' logs of prompts, which take room when they are written. In a
block the numbers of one kind stand side by side, one for each row, so that a sum over all processes
reads neighbours.

Zeros mean that nothing is known, in every place: a hole of the file is an empty picture.
"""

from __future__ import annotations

import struct
from typing import Final

__all__ = [
    "AGE_ORIGIN",
    "BELL",
    "ENTRY",
    "KEY",
    "LOG",
    "MAGIC",
    "PAGE",
    "RING",
    "ROW_RECORD",
    "SCORE_ORIGIN",
    "VERSION",
    "MemoryLayout",
]

MAGIC: Final = b"loadwise"
VERSION: Final = 3
PAGE: Final = 4096
ROW_RECORD: Final = 64
"""Bytes of a row's record: pid, when it joined, and by which tau its scores fade."""
BELL: Final = 8
"""Bytes of a row's bell: how many changes it has told."""
RING: Final = 64
"""Changes of a row that others can still read one by one."""
ENTRY: Final = 256
"""Bytes of a change."""
LOG: Final = 2**16
"""Words of 8 bytes of a row's log of prompts."""
KEY: Final = 128
"""Bytes of a node's id."""
AGE_ORIGIN: Final = float(2**32)
"""Seconds: an age is kept as this less when the request began, so that the oldest is highest."""
SCORE_ORIGIN: Final = 1024.0
"""Added to scores, so that one that is measured is above 0."""

_HEADER: Final = struct.Struct("<8sIIII64s")
_TALLIES: Final = 1024


def _up(place: int) -> int:
    return -(-place // PAGE) * PAGE


class MemoryLayout:
    """Places of everything in a host's memory, in bytes.

    Args:
        processes: How many processes may take part.
        nodes: How many nodes there is room for.

    Attributes:
        rows: Rows for processes, a few more than there may be: they come by the eight.
        used: Place of the number of nodes that were ever given a block.
        renewed: Place of the number of times that a block was given to another node.
        chime: Place of what differs after each change: the row that told of it, and its bell.
        records: Place of the rows' records.
        bells: Place of the rows' bells.
        heads: Place of where the rows' logs end, in words that were ever written.
        tails: Place of where what is kept of them begins, counted alike.
        rings: Place of the rows' rings.
        keys: Place of the nodes' ids.
        blocks: Place of the nodes' blocks.
        ages: Place in a block of when the oldest requests began; those in flight are at its start.
        scores: Place in a block of what orders costs: see `PeakEwma.rank`.
        health: Place in a block of states of health.
        claims: Place in a block of until when each process has claimed the probe.
        starts: Place in a block of when slow starts began.
        ejections: Place in a block of until when each process has ejected the node.
        results: Place in a block of how many requests went well, failed, and were slow.
        prompts: Place in a block of the prompts without a first byte, and their tokens.
        held: Place in a block of the tokens of all prompts whose requests are under way.
        marks: Place in a block of when prompts were last computed, or began on an idle node.
        holds: Place in a block of which rows have the node.
        peak: Place in a block of the highest of the scores, which any process writes.
        block: Bytes of a block.
        logs: Place of the rows' logs of prompts, at the end.
        size: Bytes of all.
    """

    def __init__(self, processes: int, nodes: int) -> None:
        self.processes = processes
        self.nodes = nodes
        self.rows = rows = -(-processes // 8) * 8
        self.used, self.renewed, self.chime = _TALLIES, _TALLIES + 8, _TALLIES + 16
        self.records = PAGE
        self.bells = self.records + ROW_RECORD * rows
        self.heads = self.bells + BELL * rows
        self.tails = self.heads + 8 * rows
        self.rings = _up(self.tails + 8 * rows)
        self.keys = _up(self.rings + RING * ENTRY * rows)
        self.blocks = _up(self.keys + KEY * nodes)
        self.ages = 4 * rows
        self.scores = self.ages + 8 * rows
        self.health = self.scores + 8 * rows
        self.claims = self.health + 32 * rows
        self.starts = self.claims + 8 * rows
        self.ejections = self.starts + 8 * rows
        self.results = self.ejections + 8 * rows
        self.prompts = self.results + 24 * rows
        self.held = self.prompts + 8 * rows
        self.marks = self.held + 8 * rows
        self.holds = self.marks + 8 * rows
        self.peak = -(-(self.holds + rows) // 8) * 8
        self.block = self.peak + 8
        self.logs = _up(self.blocks + self.block * nodes)
        self.size = self.logs + 8 * LOG * rows

    def header(self, boot: bytes) -> bytes:
        """Return what the first page begins with, on a host that was booted as ``boot`` says."""
        return _HEADER.pack(MAGIC, VERSION, self.processes, self.nodes, self.block, boot[:64])

    @staticmethod
    def parse(header: bytes) -> tuple[int, int, int, bytes] | None:
        """Return version, processes, nodes and boot of a header; ``None`` where it is none."""
        magic, version, processes, nodes, _block, boot = _HEADER.unpack(header[: _HEADER.size])
        if magic != MAGIC:
            return None
        return version, processes, nodes, boot.rstrip(b"\0")

    def block_of(self, index: int) -> int:
        """Return the place of a node's block."""
        return self.blocks + self.block * index

    def key_of(self, index: int) -> int:
        """Return the place of a node's id."""
        return self.keys + KEY * index
