"""All rows of the proof, in the order of docs/proof.md."""

from __future__ import annotations

from tests.proof import balls, hashing, queues, ring, supermarket
from tests.proof.row import Row

__all__ = ["ROWS"]

ROWS: tuple[Row, ...] = (*queues.ROWS, *supermarket.ROWS, *balls.ROWS, *ring.ROWS, *hashing.ROWS)
