"""Ejections and results that several processes share, as an ejector sees them."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import AbstractContextManager
from typing import Protocol

from loadwise.outliers.ejection import Ejection
from loadwise.outliers.rules import Sample

__all__ = ["SharedEjections", "SharedResults"]


class SharedResults(Protocol):
    """Results of one node in other processes."""

    def pool(self, own: Sample) -> tuple[Sample, int]:
        """Tell own results; return those of others since the last time.

        The number has a bit for each process that has told of any.
        """
        ...


class SharedEjections(Protocol):
    """Ejections of other processes."""

    def order(self, node_id: Hashable) -> AbstractContextManager[None]:
        """Have no other process eject a node meanwhile."""
        ...

    def is_out(self, node_id: Hashable, now: float) -> bool:
        """Tell whether any process has ejected a node for longer than ``now``."""
        ...

    def keep(self, node_id: Hashable, until: float) -> None:
        """Have a node count as out until a time; 0 for not any more."""
        ...

    def tell(self, node_id: Hashable, ejection: Ejection) -> None:
        """Tell others of an ejection."""
        ...

    def results(self, node_id: Hashable) -> SharedResults:
        """Return where the results of a node are told."""
        ...
